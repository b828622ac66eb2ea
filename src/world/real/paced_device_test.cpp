// Claims: a paced device answers with words, names the sizes that it has on the road, takes back its own checkpoint, and refuses what it
// cannot hold with what to do.
#include "world/real/paced_device.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>

#include "fleet/brain.h"
#include "store/safetensors.h"
#include "world/real/loop.h"

namespace stagecoach::world::real {
namespace {

using base::Attempt;
using base::Step;
using base::WeightVersion;
using ::testing::HasSubstr;
using ::testing::StartsWith;

Device::Setup setup_of(std::uint64_t stage) {
  Device::Setup setup;
  setup.config.batch.microbatches = 2;
  std::string why;
  setup.split = model::balanced_split(setup.config.model, 4, why);
  setup.stage = stage;
  return setup;
}

PacedDevice::Options at_once() {
  PacedDevice::Options options;
  options.speed.forward = options.speed.backward = {base::Duration()};
  return options;
}

TEST(PacedDevice, KeepsWordsAndSendsTensors) {
  const Device::Setup setup = setup_of(1);
  PacedDevice device(at_once());
  const auto done = device.prepare(setup);
  ASSERT_TRUE(done.ok()) << done.error().message;
  EXPECT_EQ(done->input_bytes, paced::kProvenanceBytes);
  EXPECT_THAT(done->numerics_class, StartsWith(std::string(fleet::kPacedClass)));
  const auto& batch = setup.config.batch;
  const auto sizes = PacedDevice::sizes_of(setup);
  EXPECT_EQ(sizes.tokens, static_cast<std::size_t>(batch.sequences * (batch.tokens + 1) * 4));
  EXPECT_EQ(sizes.input, static_cast<std::size_t>(setup.config.boundary_bytes(0)));
  EXPECT_EQ(sizes.output, static_cast<std::size_t>(setup.config.boundary_bytes(1)));
  EXPECT_EQ(PacedDevice::sizes_of(setup_of(0)).input, 0u);
  EXPECT_EQ(PacedDevice::sizes_of(setup_of(3)).output, 0u);
  // All of the stage's sums at 8 bytes an element, where nothing shrinks them.
  EXPECT_EQ(done->elements * done->element_bytes, static_cast<std::int64_t>(paced::load_of(at_once().speed, setup.config, setup.split[1], 1, true).sum_bytes));
}

TEST(PacedDevice, BulkScaleShrinksWhatAReduceCarries) {
  auto options = at_once();
  options.bulk_scale = 0.1;
  PacedDevice scaled(options), whole(at_once());
  const auto few = scaled.prepare(setup_of(1)), all = whole.prepare(setup_of(1));
  ASSERT_TRUE(few.ok() && all.ok());
  EXPECT_NEAR(static_cast<double>(few->elements), static_cast<double>(all->elements) / 10, 1);
  EXPECT_NE(few->numerics_class, all->numerics_class) << "replicas must cut their sums alike";
}

TEST(PacedDevice, ItsCheckpointIsItsOwn) {
  Device::Setup setup = setup_of(2);
  PacedDevice device(at_once());
  ASSERT_TRUE(device.prepare(setup).ok());
  const auto state = device.run(worker::ExportState{WeightVersion(0)}, monotonic_now());
  ASSERT_TRUE(state.ok());
  EXPECT_EQ(state->state[0].tensor.dtype, base::DType::f32);
  EXPECT_EQ(state->state[0].tensor.shape, (std::vector<std::int64_t>{2}));
  const auto path = std::filesystem::temp_directory_path() / ("paced-" + std::to_string(::getpid()) + ".safetensors");
  ASSERT_TRUE(store::write_safetensors(path, state->state, {}).ok());
  setup.version = WeightVersion(3);
  setup.state_files = {path.string()};
  PacedDevice again(at_once());
  EXPECT_TRUE(again.prepare(setup).ok());
  const auto same = again.run(worker::ExportState{WeightVersion(3)}, monotonic_now());
  ASSERT_TRUE(same.ok());
  EXPECT_TRUE(base::same_bytes(same->state[0].tensor.bytes, state->state[0].tensor.bytes));
  setup.stage = 1;
  const auto other = again.prepare(setup);
  std::filesystem::remove(path);
  ASSERT_FALSE(other.ok());
  EXPECT_THAT(other.error().message, HasSubstr("stage.1.tensor.0"));
}

TEST(PacedDevice, WhatItCannotHoldIsRefused) {
  Device::Setup large = setup_of(1);
  large.config.model.dim = 16384, large.config.model.ffn = 57344;
  PacedDevice device(at_once());
  const auto refused = device.prepare(large);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("bulk_scale = 0."));
  auto options = at_once();
  options.speed.forward.resize(3);
  PacedDevice measured(options);
  const auto times = measured.prepare(setup_of(1));
  ASSERT_FALSE(times.ok());
  EXPECT_THAT(times.error().message, HasSubstr("3 stages"));
}

}  // namespace
}  // namespace stagecoach::world::real
