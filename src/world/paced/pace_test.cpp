// Claim: a named device takes what its peak and share say, measured times go before that, and sums take their bytes over its memory.
#include "world/paced/pace.h"

#include <gtest/gtest.h>

#include "model/arithmetic.h"
#include "model/presets.h"

namespace stagecoach::world::paced {
namespace {

using base::Duration;

TEST(Pace, OrionsMiddleStageTakesTheTimeOfItsProductsOnAnA100) {
  const model::TrainConfig config = model::train_config(*model::find_preset("100B"), 16);
  std::string why;
  const model::Split split = model::balanced_split(config.model, 16, why);
  ASSERT_EQ(split.size(), 16u) << why;
  const DeviceSpeed a100 = named_devices().at("a100");
  const StageLoad load = load_of(a100, config, split[1], 1, true);
  EXPECT_EQ(load.boundary_bytes, 2'304'000u);  // 8,000 tokens × K = 144 in bf16: 2.197 MiB
  // 312 TFLOP/s × 0.4 for three forwards means 4/3 of that for the four that are executed.
  const double forward = static_cast<double>(model::token_flops(config.model, split[1], config.batch.tokens).forward()) * 8000 / (312e12 * 0.4 * 4 / 3);
  EXPECT_NEAR(load.forward.seconds_f64(), forward, 1e-6);
  EXPECT_NEAR(load.backward.seconds_f64(), 3 * forward, 1e-6);  // the forward again, and twice a forward
  EXPECT_NEAR(load_of(a100, config, split[1], 1, false).backward.seconds_f64(), 2 * forward, 1e-6);
  const StageLoad tail = load_of(a100, config, split[15], 15, true);
  EXPECT_NEAR(tail.backward.seconds_f64(), 3 * tail.forward.seconds_f64(), 1e-6);  // forward, loss and backward in one go
  EXPECT_EQ(tail.boundary_bytes, 0u);
}

TEST(Pace, MeasuredTimesAreTakenAsTheyStand) {
  DeviceSpeed measured;
  measured.forward = {Duration::milliseconds(10), Duration::milliseconds(20)};
  measured.backward = {Duration::milliseconds(33)};
  model::TrainConfig config;
  std::string why;
  const model::Split split = model::balanced_split(config.model, 2, why);
  const StageLoad load = load_of(measured, config, split.at(1), 1, true);
  EXPECT_EQ(load.forward, Duration::milliseconds(20));
  EXPECT_EQ(load.backward, Duration::milliseconds(33));
}

TEST(Pace, SumsAndStateTakeTheirBytesOverTheMemory) {
  StageLoad load;
  load.forward = Duration::milliseconds(7);
  load.backward = Duration::milliseconds(9);
  load.sum_bytes = 4'000'000'000;
  load.state_bytes = 1'000'000'000;
  load.memory_bytes_per_s = 1e9;
  EXPECT_EQ(time_of(load, worker::Forward{}, 0), Duration::milliseconds(7));
  EXPECT_EQ(time_of(load, worker::Evaluate{}, 0), Duration::milliseconds(7));
  EXPECT_EQ(time_of(load, worker::Backward{}, 0), Duration::milliseconds(9));
  EXPECT_EQ(time_of(load, worker::ReadSum{}, 0.25), Duration::seconds(1));
  worker::AddParts add;
  add.parts.resize(3);
  EXPECT_EQ(time_of(load, add, 0.25), Duration::seconds(4));  // three are read, one is written
  worker::WriteReduced write;
  EXPECT_EQ(time_of(load, write, 0), Duration::seconds(4));
  write.sums.resize(2);
  EXPECT_EQ(time_of(load, write, 0), Duration::seconds(8));
  EXPECT_EQ(time_of(load, worker::Apply{}, 0), Duration::seconds(6));
  EXPECT_EQ(time_of(load, worker::ExportState{}, 0), Duration::seconds(1));
  EXPECT_EQ(time_of(load, worker::VoidAttemptsBefore{}, 0), Duration());
  load.memory_bytes_per_s = 0;
  EXPECT_EQ(time_of(load, worker::Apply{}, 0), Duration());
}

TEST(Pace, ADeviceDoesOneThingAfterTheOtherAndCatchesUpOnLateWakingOnly) {
  const auto at = [](std::int64_t ms) { return base::Instant() + Duration::milliseconds(ms); };
  Occupied device;
  EXPECT_EQ(device.next(at(1000), Duration::milliseconds(50)).ended, at(1050));
  const auto second = device.next(at(1010), Duration::milliseconds(50));  // asked for while the first runs
  EXPECT_EQ(second.began, at(1050));
  EXPECT_EQ(second.ended, at(1100));
  device.seen(at(1103));  // three milliseconds late: the third one does not pay for it
  EXPECT_EQ(device.next(at(1060), Duration::milliseconds(50)).ended, at(1150));
  device.seen(at(3000));  // it stood still
  EXPECT_EQ(device.next(at(1070), Duration::milliseconds(50)).began, at(3000));
}

}  // namespace
}  // namespace stagecoach::world::paced
