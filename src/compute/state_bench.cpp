// Measures what lies between microbatches: adding a gradient, norms, updates, in nanoseconds a parameter; and Muon's matrices.
//
//   compute_state_bench [THREADS]
//
// A tensor of 32 Ki elements, which stays in a cache and shows the loops, and one of 16 Mi, which shows the memory; the best of seven
// runs each.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "compute/device.h"
#include "compute/muon.h"
#include "compute/state_math.h"
#include "compute/sums.h"

namespace stagecoach::compute {
namespace {

using model::FloatKind;
using model::OptimizerKind;
using model::SumKind;

constexpr int kRuns = 7;

/// Nanoseconds of one call of `work`, which goes over `count` elements; short ones are repeated within a run.
template <class Work>
double best_ns(std::int64_t count, const Work& work) {
  const std::int64_t times = std::max<std::int64_t>(1, (1 << 22) / count);
  double best = 1e300;
  for (int run = 0; run < kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    for (std::int64_t i = 0; i < times; ++i) work();
    best = std::min(best, std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count());
  }
  return best / static_cast<double>(times);
}

const char* name(SumKind kind) { return kind == SumKind::fixed64 ? "fixed64" : kind == SumKind::float32 ? "float32" : "bfloat16"; }
const char* name(FloatKind kind) { return kind == FloatKind::float32 ? "float32" : "bfloat16"; }

void measure_sums(std::int64_t count, SumKind kind) {
  const StateMath& math = host_math();
  const at::Tensor sums = at::zeros({count}, scalar_type(kind));
  bool fits = true;
  std::printf("sums %-9s", name(kind));
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor gradient = at::full({count}, 1e-3, type);
    const double ns = best_ns(count, [&] { fits = math.add_gradient(gradient, sum_scale(kind, 1), sums) && fits; });
    std::printf("  add a %s gradient %.3f", type == at::kFloat ? "float32" : "bfloat16", ns / static_cast<double>(count));
  }
  double total = 0;
  const double ns = best_ns(count, [&] { total += math.sums_of_squares({sums}, 1e-6)[0]; });
  std::printf("  norm %.3f%s\n", ns / static_cast<double>(count), fits && total >= 0 ? "" : " (did not fit)");
}

void measure_update(std::int64_t count, OptimizerKind optimizer, SumKind sums, FloatKind state_kind, FloatKind compute) {
  model::TrainConfig config;
  config.optimizer.kind = optimizer;
  config.numbers = {compute, state_kind, sums};
  TensorState state;
  state.sums = at::ones({count}, scalar_type(sums));
  state.weight = at::full({count}, 0.02, scalar_type(state_kind));
  if (state_kind != compute) state.copy = at::empty({count}, at::kBFloat16);
  state.moment = at::zeros({count}, scalar_type(state_kind));
  state.second_moment = at::zeros({count}, scalar_type(state_kind));
  const UpdateFactors factors = Optimizer(config).factors(base::Step(1), 1.0);
  std::printf("state %s, computed in %s, sums %s:", name(state_kind), name(compute), name(sums));
  if (optimizer == OptimizerKind::muon) {
    state.second_moment = at::Tensor();
    at::Tensor direction;
    const double momentum = best_ns(count, [&] { direction = host_math().muon_momentum(factors, state); });
    const double weight = best_ns(count, [&] { host_math().muon_weight(factors, state, 0.02f, direction); });
    std::printf(" muon's momentum %.3f, its weights %.3f\n", momentum / static_cast<double>(count), weight / static_cast<double>(count));
  } else {
    std::printf(" adamw %.3f\n", best_ns(count, [&] { host_math().update(factors, state); }) / static_cast<double>(count));
  }
}

void measure_muon(std::int64_t rows, std::int64_t columns, FloatKind number) {
  const at::Tensor direction = at::randn({rows, columns});
  const double ns = best_ns(1 << 22, [&] { orthogonalised(direction, 5, number); });
  const double narrow = static_cast<double>(std::min(rows, columns)), wide = static_cast<double>(std::max(rows, columns));
  const double flops = 5 * 2 * (2 * narrow * narrow * wide + narrow * narrow * narrow);
  std::printf("newton-schulz %lld x %lld in %s: %.3f ms, %.2f ns a parameter, %.0f GFLOP/s\n", static_cast<long long>(rows),
              static_cast<long long>(columns), name(number), ns * 1e-6, ns / (narrow * wide), flops / ns);
}

void run(int threads) {
  use_threads(threads);
  for (const std::int64_t count : {1 << 15, 1 << 24}) {
    std::printf("ns a parameter, %d thread(s), %lld elements\n", threads, static_cast<long long>(count));
    for (const SumKind kind : {SumKind::fixed64, SumKind::float32, SumKind::bfloat16}) measure_sums(count, kind);
    for (const OptimizerKind optimizer : {OptimizerKind::adamw, OptimizerKind::muon}) {
      measure_update(count, optimizer, SumKind::fixed64, FloatKind::float32, FloatKind::float32);
      measure_update(count, optimizer, SumKind::fixed64, FloatKind::float32, FloatKind::bfloat16);
      measure_update(count, optimizer, SumKind::float32, FloatKind::float32, FloatKind::float32);
      measure_update(count, optimizer, SumKind::bfloat16, FloatKind::bfloat16, FloatKind::bfloat16);
    }
  }
  for (const FloatKind number : {FloatKind::float32, FloatKind::bfloat16}) {
    measure_muon(128, 128, number);
    measure_muon(512, 512, number);
    measure_muon(1'792, 512, number);
  }
}

}  // namespace
}  // namespace stagecoach::compute

int main(int count, char** words) {
  stagecoach::compute::run(count > 1 ? std::max(1, std::atoi(words[1])) : 1);
  return 0;
}
