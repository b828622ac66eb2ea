// See muon.h.
#include "compute/muon.h"

#include <algorithm>
#include <cmath>

#include "compute/state_math.h"

namespace stagecoach::compute {

at::Tensor orthogonalised(const at::Tensor& direction, std::int64_t steps, model::FloatKind number) {
  constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;
  constexpr double kNormLeast = 1e-7;
  const bool tall = direction.size(0) > direction.size(1);
  // The norm in fp32, whatever the products are computed in: it is divided by once.
  const at::Tensor scaled = direction / direction.norm().clamp_min(kNormLeast);
  at::Tensor x = (tall ? scaled.t() : scaled).to(scalar_type(number)).contiguous();
  for (std::int64_t i = 0; i < steps; ++i) {
    const at::Tensor gram = at::mm(x, x.t());
    const at::Tensor polynomial = at::addmm(gram, gram, gram, kB, kC);
    x = at::addmm(x, polynomial, x, kA);
  }
  return (tall ? x.t() : x).to(at::kFloat).contiguous();
}

double muon_rate_factor(std::int64_t rows, std::int64_t columns) {
  return std::sqrt(std::max(1.0, static_cast<double>(rows) / static_cast<double>(columns)));
}

}  // namespace stagecoach::compute
