// How long one middle stage of the default model takes on this machine, with one thread: forward, backward, and the step's end.
//
// In:      compute_stage_bench LIBRARY. Out: milliseconds, the best of several rounds.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "base/prng.h"
#include "compute/library.h"

namespace stagecoach::compute {
namespace {

template <class Work>
double best_ms(int rounds, Work&& work) {
  double best = 1e300;
  for (int i = 0; i < rounds; ++i) {
    const auto before = std::chrono::steady_clock::now();
    for (int n = 0; n < 10; ++n) work();
    const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - before;
    best = std::min(best, taken.count() / 10);
  }
  return best;
}

int run(const char* path) {
  auto library = open_library(path);
  if (!library.ok()) return std::fprintf(stderr, "%s\n", library.error().message.c_str()), 1;
  StageOptions options;
  options.range = {1, 2};
  options.config.batch.microbatches = 4'096;
  auto made = (*library)->make_stage(options);
  if (!made.ok()) return std::fprintf(stderr, "%s\n", made.error().message.c_str()), 1;
  Stage& stage = **made;
  const model::TrainConfig& config = options.config;
  base::Bytes bytes(static_cast<std::size_t>(config.batch.sequences * config.batch.tokens * config.model.cut_width) * 4);
  base::Prng prng(1);
  for (std::size_t i = 0; i < bytes.size(); i += 4) {
    const auto value = static_cast<float>(prng.unit() - 0.5);
    std::memcpy(bytes.data() + i, &value, 4);
  }
  const StageInput input{nullptr, base::make_payload(bytes)};
  const base::Step step(1);
  const base::Attempt attempt(1);
  bool fine = true;
  const double forward = best_ms(20, [&] { fine = fine && stage.forward(stage.version(), input).ok(); });
  const double backward =
      best_ms(20, [&] { fine = fine && stage.backward(stage.version(), {step, attempt, {}}, input, input.boundary).ok(); });
  const ElementRange all{0, stage.elements()};
  const auto sums = stage.read_sum(step, attempt, all);
  fine = fine && sums.ok();
  const double reduce = best_ms(3, [&] {
    fine = fine && stage.write_reduced(step, attempt, all, *sums).ok() && stage.norms(step, attempt).ok();
  });
  std::uint64_t next = 1;
  const double close = best_ms(3, [&] {
    fine = fine && stage.write_reduced(base::Step(next), attempt, all, *sums).ok() &&
           stage.apply(base::Step(next), attempt, 1.0).ok();
    ++next;
  });
  if (!fine) return std::fprintf(stderr, "a call failed\n"), 1;
  std::printf("%s, %lld elements, %lld x %lld tokens\n", stage.numerics_class().c_str(),
              static_cast<long long>(stage.elements()), static_cast<long long>(config.batch.sequences),
              static_cast<long long>(config.batch.tokens));
  std::printf("forward %.3f ms, backward with recompute %.3f ms\n", forward, backward);
  std::printf("write_reduced and norms %.3f ms, write_reduced and apply %.3f ms\n", reduce, close);
  return 0;
}

}  // namespace
}  // namespace stagecoach::compute

int main(int count, char** words) {
  if (count == 2) return stagecoach::compute::run(words[1]);
  std::fprintf(stderr, "usage: compute_stage_bench LIBRARY\n");
  return 1;
}
