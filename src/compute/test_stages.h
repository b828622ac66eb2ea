// Stages, tokens and errors for the tests of this folder.
//
// Thread:  the test's.
// Why:     the tests drive the same small models, and drive them through the opened library, as the program does.
#pragma once

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "base/prng.h"
#include "compute/library.h"

namespace stagecoach::compute {

/// Four narrow layers, a bottleneck after each of the first three, odd sizes on purpose.
inline model::TrainConfig small_config() {
  model::TrainConfig config;
  config.model.vocab = 61;
  config.model.dim = 48;
  config.model.heads = 6;
  config.model.kv_heads = 2;
  config.model.ffn = 100;
  config.model.cut_width = 12;
  config.batch.sequences = 3;
  config.batch.tokens = 17;
  config.batch.microbatches = 3;
  config.schedule.warmup_steps = 1;
  config.schedule.steps = 10;
  return config;
}

template <class T>
T value(base::Result<T> result) {
  EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().message);
  if (!result.ok()) std::abort();
  return std::move(result).value();
}

inline void expect_ok(const base::Result<void>& result) { EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().message); }

template <class T>
base::ErrorCode code_of(const base::Result<T>& result) {
  EXPECT_FALSE(result.ok());
  return result.ok() ? base::ErrorCode::internal : result.error().code;
}

inline base::Payload random_tokens(const model::TrainConfig& config, std::uint64_t seed) {
  base::Prng prng(seed);
  const std::int64_t count = config.batch.sequences * (config.batch.tokens + 1);
  base::ByteWriter writer;
  // A skewed distribution, so that there is something to learn.
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint64_t vocab = static_cast<std::uint64_t>(config.model.vocab);
    writer.u32(static_cast<std::uint32_t>(prng.below(1 + prng.below(vocab))));
  }
  return base::make_payload(writer.take());
}

inline base::Payload floats(const std::vector<float>& values) {
  base::Bytes bytes(values.size() * sizeof(float));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return base::make_payload(std::move(bytes));
}

inline Library& library() { return *value(open_library(COMPUTE_LIBRARY)); }

/// One replica of every stage of a split.
struct Fleet {
  model::TrainConfig config;
  model::Split split;
  std::vector<std::unique_ptr<Stage>> stages;
};

inline Fleet make_fleet(const model::TrainConfig& config, std::int64_t stages, int versions_kept = 1,
                        Recompute recompute = Recompute::automatic) {
  std::string why;
  Fleet fleet{config, model::balanced_split(config.model, stages, why), {}};
  for (const model::StageRange& range : fleet.split) {
    StageOptions options;
    options.config = config;
    options.range = range;
    options.versions_kept = versions_kept;
    options.recompute = recompute;
    fleet.stages.push_back(value(library().make_stage(options)));
  }
  return fleet;
}

}  // namespace stagecoach::compute
