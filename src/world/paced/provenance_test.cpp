// Claim: a long gradient carries what a short one does: any cut into shards and any order of parts reduce to the reference's weights,
// and a part that is missing, doubled or of another microbatch does not go unseen.
#include "world/paced/provenance.h"

#include <gtest/gtest.h>

#include <cmath>

namespace stagecoach::world::paced {
namespace {

using base::Attempt;
using base::MicrobatchIndex;
using base::ShardIndex;
using base::Step;
using base::WeightVersion;

constexpr std::int64_t kElements = 1000;
constexpr std::uint64_t kStage = 0, kStages = 1;

model::TrainConfig config_of() {
  model::TrainConfig config;
  config.batch.microbatches = 4;
  config.batch.eval_microbatches = 0;
  config.schedule.steps = 2;
  return config;
}

worker::ComputeResult run(ProvenanceStage& stage, worker::ComputeRequest request) {
  auto result = stage.run(request);
  EXPECT_TRUE(result.ok());
  return result.ok() ? std::move(*result) : worker::ComputeResult{};
}

void accumulate(ProvenanceStage& stage, std::uint64_t m) {
  worker::Input input;
  input.data = worker::DataRef{false, m};
  run(stage, worker::Backward{WeightVersion(0), Step(1), Attempt(1), MicrobatchIndex(m), input, nullptr});
}

/// The whole sum of two replicas, shard by shard.
std::vector<std::pair<replica::Slice, base::Payload>> reduced(ProvenanceStage& one, ProvenanceStage& two, std::uint64_t shards) {
  std::vector<std::pair<replica::Slice, base::Payload>> sums;
  for (std::uint64_t k = 0; k < shards; ++k) {
    const auto slice = replica::slice_of(kElements, shards, ShardIndex(k));
    worker::AddParts add{Step(1), ShardIndex(k), {}};
    for (ProvenanceStage* each : {&one, &two}) add.parts.push_back(run(*each, worker::ReadSum{Step(1), Attempt(1), ShardIndex(k), slice}).payload);
    EXPECT_EQ(add.parts[0]->size(), static_cast<std::size_t>(slice.last - slice.first) * 8);
    sums.emplace_back(slice, run(one, std::move(add)).payload);
  }
  return sums;
}

TEST(Provenance, ALongGradientReducesToTheWeightsOfTheReference) {
  const model::TrainConfig config = config_of();
  Undisturbed reference(config, kStages);
  for (const std::uint64_t shards : {1u, 2u, 7u, 64u}) {
    ProvenanceStage one(config, kStage, kStages, kProvenanceElements, kElements), two(config, kStage, kStages, kProvenanceElements, kElements);
    for (const std::uint64_t m : {3u, 0u}) accumulate(one, m);
    for (const std::uint64_t m : {1u, 2u}) accumulate(two, m);
    const auto sums = reduced(one, two, shards);
    const auto written = run(two, worker::WriteReduced{Step(1), Attempt(1), sums});
    run(two, worker::Apply{Step(1), Attempt(1), std::sqrt(written.norms.at(0).sum_of_squares)});
    EXPECT_EQ(two.weights(), reference.weights(kStage, WeightVersion(1))) << shards;
    const auto state = run(two, worker::ExportState{WeightVersion(1)}).state;
    ASSERT_EQ(state.size(), kProvenanceTensors);
    EXPECT_EQ(base::ByteReader(*state[0].tensor.bytes).u64(), two.weights());
  }
}

TEST(Provenance, OneDoubledMicrobatchGivesOtherWeights) {
  const model::TrainConfig config = config_of();
  Undisturbed reference(config, kStages);
  ProvenanceStage one(config, kStage, kStages, kProvenanceElements, kElements), two(config, kStage, kStages, kProvenanceElements, kElements);
  for (const std::uint64_t m : {0u, 1u, 2u}) accumulate(one, m);
  for (const std::uint64_t m : {2u, 3u}) accumulate(two, m);
  const auto written = run(one, worker::WriteReduced{Step(1), Attempt(1), reduced(one, two, 2)});
  run(one, worker::Apply{Step(1), Attempt(1), std::sqrt(written.norms.at(0).sum_of_squares)});
  EXPECT_NE(one.weights(), reference.weights(kStage, WeightVersion(1)));
}

TEST(Provenance, AShardThatLacksAPartIsCorrupt) {
  const model::TrainConfig config = config_of();
  ProvenanceStage one(config, kStage, kStages, kProvenanceElements, kElements), two(config, kStage, kStages, kProvenanceElements, kElements);
  for (const std::uint64_t m : {0u, 1u}) accumulate(one, m);
  for (const std::uint64_t m : {2u, 3u}) accumulate(two, m);
  auto sums = reduced(one, two, 4);
  sums[2].second = run(one, worker::ReadSum{Step(1), Attempt(1), ShardIndex(2), sums[2].first}).payload;
  const auto written = one.run(worker::WriteReduced{Step(1), Attempt(1), sums});
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(written.error().code, base::ErrorCode::corrupt);
}

TEST(Provenance, WhoIsAloneKeepsItsOwnSum) {
  const model::TrainConfig config = config_of();
  Undisturbed reference(config, kStages);
  ProvenanceStage only(config, kStage, kStages, kProvenanceElements, kElements);
  for (const std::uint64_t m : {2u, 0u, 1u, 3u}) accumulate(only, m);
  const auto written = run(only, worker::WriteReduced{Step(1), Attempt(1), {}});
  run(only, worker::Apply{Step(1), Attempt(1), std::sqrt(written.norms.at(0).sum_of_squares)});
  EXPECT_EQ(only.weights(), reference.weights(kStage, WeightVersion(1)));
}

}  // namespace
}  // namespace stagecoach::world::paced
