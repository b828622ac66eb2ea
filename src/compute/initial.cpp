// Normal values by Box and Muller from SplitMix64.
#include "compute/initial.h"

#include <cmath>
#include <numbers>

#include "base/prng.h"

namespace stagecoach::compute {

std::vector<float> initial_values(const model::ModelConfig& model, const model::ParameterInfo& info) {
  const auto count = static_cast<std::size_t>(info.elements());
  if (info.shape.size() < 2) return std::vector<float>(count, 1.0f);
  constexpr double kDeviation = 0.02;
  std::vector<float> values(count);
  base::Prng prng(base::mix64(model.seed, info.index.value()));
  for (std::size_t i = 0; i < count; i += 2) {
    const double radius = kDeviation * std::sqrt(-2.0 * std::log(1.0 - prng.unit()));
    const double angle = 2.0 * std::numbers::pi * prng.unit();
    values[i] = static_cast<float>(radius * std::cos(angle));
    if (i + 1 < count) values[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
  return values;
}

}  // namespace stagecoach::compute
