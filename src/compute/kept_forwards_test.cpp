// Claims: what a forward kept is counted once, given back once and only to the backward it belongs to; automatic stays within its
// bound; steps, attempts and versions that end take theirs with them; a stage's results do not depend on it when it overflows.
#include "compute/kept_forwards.h"

#include "compute/test_stages.h"

namespace stagecoach::compute {
namespace {

using base::Attempt;
using base::Step;
using base::WeightVersion;

MicrobatchName name(std::uint64_t step, std::uint64_t attempt, std::uint32_t index) {
  return {Step(step), Attempt(attempt), base::MicrobatchIndex(index)};
}

/// Two layers that share one tensor of 400 bytes, and one of 4,000 for itself.
KeptForward forward(WeightVersion version = WeightVersion(0), const StageInput& input = {}) {
  KeptForward out{version, input, std::vector<LayerKept>(2)};
  out.layers[0].hidden_TD = at::zeros({100});
  out.layers[1].stream = out.layers[0].hidden_TD.view({10, 10});
  out.layers[1].ab = at::zeros({1'000});
  return out;
}

TEST(KeptForwards, counts_each_storage_once_and_gives_back_once) {
  KeptForwards kept(Recompute::never, 0);
  kept.put(name(1, 1, 0), forward());
  kept.put(name(1, 1, 1), forward());
  EXPECT_EQ(kept.bytes(), 2 * 4'400);
  kept.put(name(1, 1, 1), forward());
  EXPECT_EQ(kept.bytes(), 2 * 4'400) << "one name, one forward";
  EXPECT_TRUE(kept.take(name(1, 1, 0), WeightVersion(0), {}));
  EXPECT_FALSE(kept.take(name(1, 1, 0), WeightVersion(0), {}));
  EXPECT_EQ(kept.bytes(), 4'400);
}

TEST(KeptForwards, belong_to_one_version_and_one_input) {
  KeptForwards kept(Recompute::never, 0);
  const StageInput input{nullptr, base::make_payload(base::Bytes(8))};
  kept.put(name(1, 1, 0), forward(WeightVersion(3), input));
  EXPECT_FALSE(kept.take(name(1, 1, 0), WeightVersion(2), input));
  EXPECT_EQ(kept.bytes(), 0) << "nobody else will come for it";
  kept.put(name(1, 1, 0), forward(WeightVersion(3), input));
  EXPECT_FALSE(kept.take(name(1, 1, 0), WeightVersion(3), {nullptr, base::make_payload(base::Bytes(9))}));
  kept.put(name(1, 1, 0), forward(WeightVersion(3), input));
  EXPECT_TRUE(kept.take(name(1, 1, 0), WeightVersion(3), {nullptr, base::make_payload(base::Bytes(8))})) << "equal bytes elsewhere";
}

TEST(KeptForwards, automatic_stays_within_its_bound) {
  KeptForwards kept(Recompute::automatic, 10'000);
  for (std::uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(kept.has_room(), i < 2) << i;
    kept.put(name(1, 1, i), forward());
  }
  EXPECT_EQ(kept.bytes(), 2 * 4'400);
  EXPECT_FALSE(kept.take(name(1, 1, 2), WeightVersion(0), {}));
  EXPECT_TRUE(kept.take(name(1, 1, 1), WeightVersion(0), {}));
  EXPECT_TRUE(kept.has_room());
  KeptForwards none(Recompute::automatic, 4'000);
  none.put(name(1, 1, 0), forward());
  EXPECT_EQ(none.bytes(), 0) << "the first is measured, and does not fit";
  EXPECT_FALSE(KeptForwards(Recompute::always, 10'000).has_room());
}

TEST(KeptForwards, end_with_their_step_attempt_and_version) {
  KeptForwards kept(Recompute::never, 0);
  kept.put(name(1, 1, 0), forward());
  kept.put(name(2, 1, 0), forward());
  kept.put(name(2, 2, 0), forward(WeightVersion(1)));
  kept.drop_steps_to(Step(1), WeightVersion(0));
  EXPECT_EQ(kept.bytes(), 2 * 4'400);
  kept.drop_steps_to(Step(1), WeightVersion(1));
  EXPECT_EQ(kept.bytes(), 4'400) << "version 0 is no more";
  kept.drop_attempts_before(Attempt(3));
  EXPECT_EQ(kept.bytes(), 0);
}

TEST(KeptForwards, a_stage_that_runs_out_of_room_gives_the_same_bits) {
  const model::TrainConfig config = small_config();
  StageOptions options;
  options.config = config;
  options.range = {1, 2};
  base::Bytes boundary(static_cast<std::size_t>(config.boundary_bytes(0)));
  for (std::size_t i = 0; i < boundary.size(); i += 4) {
    const float value = static_cast<float>(i % 97) / 97.0f - 0.5f;
    std::memcpy(boundary.data() + i, &value, sizeof value);
  }
  const StageInput input{nullptr, base::make_payload(boundary)};
  std::vector<base::Bytes> found;
  for (const std::int64_t bytes : {1, 200'000, 1 << 30}) {
    options.kept_bytes_max = bytes;
    const auto stage = value(library().make_stage(options));
    for (std::uint32_t i = 0; i < 3; ++i) value(stage->forward(WeightVersion(0), input, name(1, 1, i)));
    for (std::uint32_t i = 0; i < 3; ++i) found.push_back(*value(stage->backward(WeightVersion(0), name(1, 1, i), input, input.boundary)).input_gradient);
    found.push_back(*value(stage->read_sum(Step(1), Attempt(1), {0, stage->elements()})));
  }
  for (std::size_t i = 4; i < found.size(); ++i) EXPECT_EQ(found[i], found[i % 4]) << i;
}

}  // namespace
}  // namespace stagecoach::compute
