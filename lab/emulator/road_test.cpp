// Claim: rates, queues, losses and delays are those that were asked for: by arithmetic where there is no chance, within its interval
// where there is.
#include "lab/emulator/road.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace stagecoach::lab {
namespace {

using base::Duration;
using base::Instant;
using base::Prng;

constexpr std::size_t kPacketBytes = 1500;

Instant at_us(std::int64_t us) { return Instant() + Duration::microseconds(us); }

TEST(FifoTest, WithoutARateNothingWaits) {
  Fifo fifo;
  EXPECT_EQ(fifo.enter(at_us(5), kPacketBytes), at_us(5));
  EXPECT_EQ(fifo.enter(at_us(5), 60'000), at_us(5));
}

TEST(FifoTest, PacketsLeaveOneAfterTheOther) {
  Fifo fifo;
  fifo.set({100'000'000, 1'000'000});  // 1500 bytes take 120 us
  EXPECT_EQ(fifo.enter(at_us(0), kPacketBytes), at_us(120));
  EXPECT_EQ(fifo.enter(at_us(0), kPacketBytes), at_us(240));
  EXPECT_EQ(fifo.enter(at_us(1000), kPacketBytes), at_us(1120));
}

TEST(FifoTest, RoundingDoesNotAddUp) {
  Fifo fifo;
  fifo.set({7'000'001, 4'000'000'000});
  Instant last;
  constexpr std::int64_t kCount = 100'000;
  for (std::int64_t i = 0; i < kCount; ++i) last = *fifo.enter(Instant(), 1);
  const double exact_ns = static_cast<double>(kCount) * 8e9 / 7'000'001;
  EXPECT_NEAR(static_cast<double>(last.ns()), exact_ns, 1.5);
}

TEST(FifoTest, AFullQueueDropsAtItsTail) {
  Fifo fifo;
  fifo.set({8'000'000, 4 * kPacketBytes});  // 1500 bytes take 1500 us
  int taken = 0;
  for (int i = 0; i < 10; ++i) taken += fifo.enter(at_us(0), kPacketBytes) ? 1 : 0;
  EXPECT_EQ(taken, 4);
  EXPECT_FALSE(fifo.enter(at_us(1499), kPacketBytes));
  EXPECT_TRUE(fifo.enter(at_us(1500), kPacketBytes)) << "the first has left";
}

TEST(FifoTest, AnEmptyQueueTakesAnyPacket) {
  Fifo fifo;
  fifo.set({1'000'000, 100});
  EXPECT_TRUE(fifo.enter(at_us(0), kPacketBytes));
  EXPECT_FALSE(fifo.enter(at_us(0), kPacketBytes));
}

TEST(FifoTest, TheDefaultQueueHolds100Ms) {
  Fifo fifo;
  fifo.set({80'000'000, 0});  // 100 ms are a million bytes
  int taken = 0;
  while (fifo.enter(at_us(0), 1000)) ++taken;
  EXPECT_EQ(taken, 1000);
}

/// Property: whatever comes, output never exceeds the rate, order is kept, and the queue's bound holds.
TEST(FifoTest, NeverFasterThanItsRate) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    Prng dice(seed);
    Fifo fifo;
    const std::uint64_t rate = 1'000'000 + dice.below(1'000'000'000);
    const std::uint64_t queue = 10'000 + dice.below(1'000'000);
    fifo.set({rate, queue});
    Instant now;
    Instant last;
    for (int i = 0; i < 2000; ++i) {
      now = now + Duration::nanoseconds(static_cast<std::int64_t>(dice.below(100'000)));
      const std::size_t bytes = 20 + dice.below(1480);
      const auto leaves = fifo.enter(now, bytes);
      if (!leaves) continue;
      const double own_ns = static_cast<double>(bytes) * 8e9 / static_cast<double>(rate);
      ASSERT_GE(static_cast<double>((*leaves - std::max(last, now)).ns()), own_ns - 1.0) << "seed " << seed;
      ASSERT_LE(static_cast<double>((*leaves - now).ns()) * static_cast<double>(rate) / 8e9, static_cast<double>(std::max<std::uint64_t>(queue, bytes)) + 2) << "seed " << seed;
      last = *leaves;
    }
  }
}

/// Half the width of the 99.9 % interval of a share `p` seen in `count` draws: the seeds are fixed, so one of these is not missed by chance.
double margin(double p, double count) { return 3.3 * std::sqrt(p * (1 - p) / count); }

TEST(RoadTest, LossIsTheShareAskedFor) {
  Road road;
  Road::Settings settings;
  settings.loss = 0.01;
  road.set(settings);
  Prng dice(3);
  constexpr int kCount = 200'000;
  int lost = 0;
  for (int i = 0; i < kCount; ++i) lost += road.lose(dice) == Drop::loss ? 1 : 0;
  EXPECT_NEAR(lost / double{kCount}, 0.01, margin(0.01, kCount));
}

TEST(RoadTest, BurstsHaveTheShareAndTheLengthAskedFor) {
  Road road;
  Road::Settings settings;
  settings.burst_loss = 0.02;
  settings.burst_length = 8;
  road.set(settings);
  Prng dice(4);
  constexpr int kCount = 500'000;
  int lost = 0;
  int bursts = 0;
  bool before = false;
  for (int i = 0; i < kCount; ++i) {
    const bool gone = road.lose(dice) == Drop::burst;
    lost += gone ? 1 : 0;
    bursts += gone && !before ? 1 : 0;
    before = gone;
  }
  // A burst's length is geometric, so that its sum over n bursts varies more than independent losses do: by about sqrt(2 · length).
  EXPECT_NEAR(lost / double{kCount}, 0.02, 4 * margin(0.02, kCount));
  EXPECT_NEAR(lost / double(bursts), 8, 0.8);
}

TEST(RoadTest, ACutRoadLetsNothingThrough) {
  Road road;
  Road::Settings settings;
  settings.cut = true;
  road.set(settings);
  Prng dice(5);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(road.lose(dice), Drop::cut);
  settings.cut = false;
  road.set(settings);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(road.lose(dice), Drop::none);
}

TEST(RoadTest, DelayIsExactWithoutJitter) {
  Road road;
  Road::Settings settings;
  settings.delay = Duration::milliseconds(25);
  road.set(settings);
  Prng dice(6);
  EXPECT_EQ(road.reach(at_us(10), road.draw_jitter(dice), dice), at_us(25'010));
}

TEST(RoadTest, JitterIsABellAroundItsMean) {
  Road road;
  Road::Settings settings;
  settings.jitter = Duration::milliseconds(5);
  road.set(settings);
  Prng dice(7);
  double sum = 0;
  constexpr int kCount = 100'000;
  for (int i = 0; i < kCount; ++i) {
    const double ms = road.draw_jitter(dice).seconds_f64() * 1e3;
    ASSERT_GE(ms, 0);
    ASSERT_LE(ms, 10);
    sum += ms;
  }
  // Four uniform draws in [0, 2.5] ms: a variance of 4 · 2.5² / 12.
  EXPECT_NEAR(sum / kCount, 5, 3.3 * std::sqrt(4 * 2.5 * 2.5 / 12 / kCount));
}

TEST(RoadTest, OrderIsKeptUnlessAskedOtherwise) {
  for (const bool keep : {true, false}) {
    Road road;
    Road::Settings settings;
    settings.jitter = Duration::milliseconds(5);
    settings.keep_order = keep;
    road.set(settings);
    Prng dice(8);
    int overtaken = 0;
    Instant last;
    for (int i = 0; i < 1000; ++i) {
      const Instant due = road.reach(at_us(i * 100), road.draw_jitter(dice), dice);
      overtaken += due < last ? 1 : 0;
      last = std::max(last, due);
    }
    EXPECT_EQ(overtaken > 0, !keep);
  }
}

TEST(RoadTest, ReorderedPacketsAreTheShareAskedFor) {
  Road road;
  Road::Settings settings;
  settings.delay = Duration::milliseconds(10);
  settings.reorder = 0.05;
  settings.reorder_by = Duration::milliseconds(3);
  road.set(settings);
  Prng dice(9);
  constexpr int kCount = 100'000;
  int held = 0;
  for (int i = 0; i < kCount; ++i) {
    const Instant due = road.reach(at_us(i), Duration(), dice);
    const Duration extra = due - at_us(i + 10'000);
    ASSERT_TRUE(extra == Duration() || extra == settings.reorder_by);
    held += extra != Duration() ? 1 : 0;
  }
  EXPECT_NEAR(held / double{kCount}, 0.05, margin(0.05, kCount));
}

TEST(RoadTest, OneSeedIsOneFate) {
  const auto fates = [](std::uint64_t seed) {
    Road road;
    Road::Settings settings;
    settings.loss = 0.2;
    settings.jitter = Duration::milliseconds(3);
    road.set(settings);
    Prng dice(seed);
    std::vector<std::int64_t> seen;
    for (int i = 0; i < 200; ++i) seen.push_back(road.lose(dice) == Drop::none ? road.reach(at_us(i), road.draw_jitter(dice), dice).ns() : -1);
    return seen;
  };
  EXPECT_EQ(fates(1), fates(1));
  EXPECT_NE(fates(1), fates(2));
}

}  // namespace
}  // namespace stagecoach::lab
