// Claims: Orion's plan takes the bytes that the reference counts; what stands is a sum over the real tensors; phases do not add up;
// what a forward leaves is what its layers keep, and only where it is asked to stay.
#include "model/memory.h"

#include <gtest/gtest.h>

#include "model/parameters.h"
#include "model/presets.h"

namespace stagecoach::model {
namespace {

TEST(Memory, orions_stage_takes_what_the_reference_counts) {
  // reference, orion-iota-resbm §1.3: weights, gradients and two moments in bf16, 51.9 GB at 6.48e9 parameters.
  const TrainConfig config = train_config(*find_preset("100B"), 16);
  const StageRange second{4, 10};
  const StageMemory memory = stage_memory(config, second, {.separate_device = true});
  const std::int64_t elements = total_elements(parameters(config.model, second));
  EXPECT_EQ(memory.of("weights") + memory.of("sums") + memory.of("moments"), 8 * elements);
  EXPECT_NEAR(static_cast<double>(8 * elements), 51.9e9, 0.05e9);
  EXPECT_EQ(memory.of("master"), 0);
  EXPECT_LT(memory.peak(MemoryPlace::device), 80e9) << "it ran on 80 GB devices";
}

TEST(Memory, standing_parts_follow_the_number_formats) {
  TrainConfig config;
  const StageRange whole{0, 4};
  const std::int64_t elements = total_elements(parameters(config.model, whole));
  StageMemory exact = stage_memory(config, whole, {});
  EXPECT_EQ(exact.of("weights"), 4 * elements);
  EXPECT_EQ(exact.of("master"), 0);
  EXPECT_EQ(exact.of("moments"), 8 * elements);
  EXPECT_EQ(exact.of("sums"), 8 * elements);
  config.numbers.compute = FloatKind::bfloat16;
  const StageMemory mixed = stage_memory(config, whole, {.versions_kept = 2});
  EXPECT_EQ(mixed.of("weights"), 2 * 2 * elements);
  EXPECT_EQ(mixed.of("master"), 4 * elements);
}

TEST(Memory, muon_keeps_one_moment_of_its_matrices) {
  TrainConfig config;
  config.optimizer.kind = OptimizerKind::muon;
  const StageRange middle{1, 2};
  std::int64_t expected = 0;
  for (const ParameterInfo& info : parameters(config.model, middle)) expected += (info.shape.size() == 2 ? 1 : 2) * info.elements();
  EXPECT_EQ(stage_memory(config, middle, {}).of("moments"), 4 * expected);
}

TEST(Memory, a_layer_keeps_its_tensors) {
  // The plain layer of a model without cuts, in float32: stream, two normed streams, q k v, attention's output, the stream between
  // the halves, gate and up; a number a row for each norm and a number a head for the softmax.
  TrainConfig config;
  config.model.cut_kind = CutKind::none;
  const std::int64_t tokens = 2 * 128, d = 128, qkv = d + 2 * 64, f = 448;
  EXPECT_EQ(kept_bytes(config, 1), 4 * tokens * (d + 2 * d + qkv + d + d + 2 * f + 2 + 4));
}

TEST(Memory, forwards_are_kept_only_without_recompute_and_never_at_the_tail) {
  TrainConfig config;
  const StageRange middle{1, 2}, tail{3, 4};
  const std::int64_t once = stage_memory(config, middle, {.in_flight = 3}).of("activations");
  EXPECT_EQ(once, kept_bytes(config, 1));
  EXPECT_EQ(stage_memory(config, middle, {.recompute = false, .in_flight = 3}).of("activations"), 3 * once);
  EXPECT_EQ(stage_memory(config, tail, {.recompute = false, .in_flight = 3}).of("activations"), kept_bytes(config, 3));
}

TEST(Memory, phases_do_not_meet) {
  StageMemory memory;
  memory.parts = {{"a", 100, MemoryPlace::device, MemoryPhase::always, ""},
                  {"b", 30, MemoryPlace::device, MemoryPhase::microbatch, ""},
                  {"c", 50, MemoryPlace::host, MemoryPhase::closing, ""}};
  EXPECT_EQ(memory.peak(), 150);
  EXPECT_EQ(memory.peak(MemoryPlace::device), 130);
  EXPECT_EQ(memory.peak(MemoryPlace::host), 50);
}

TEST(Memory, a_group_of_one_needs_no_second_sums) {
  const TrainConfig config;
  const StageRange middle{1, 2};
  EXPECT_EQ(stage_memory(config, middle, {.replicas = 1}).of("group"), 0);
  EXPECT_EQ(stage_memory(config, middle, {.replicas = 2}).of("group"), stage_memory(config, middle, {}).of("sums"));
}

TEST(Memory, numbers_are_grouped) {
  EXPECT_EQ(grouped(0), "0");
  EXPECT_EQ(grouped(999), "999");
  EXPECT_EQ(grouped(99'615'863'808), "99,615,863,808");
  EXPECT_EQ(grouped(-1'234), "-1,234");
}

}  // namespace
}  // namespace stagecoach::model
