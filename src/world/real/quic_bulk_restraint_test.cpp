// Claim: bulk fills the road and not the queue before it; it does so whatever the rate, and gives in where the queue is not its own.
#include "world/real/quic_bulk_restraint.h"

#include <gtest/gtest.h>

#include <deque>

#include "base/prng.h"

namespace stagecoach::world::real {
namespace {

using base::Duration;
using base::Instant;

constexpr std::uint64_t kPacketBytes = 1450;

/// A narrowest link with an endless queue, and a sender that has always more and is held back by the restraint alone, up to a window.
class Link {
 public:
  std::uint64_t bytes_per_s = 125'000'000;
  Duration delay = Duration::milliseconds(50);    // of an empty road, there and back
  Duration foreign = Duration();                  // what others keep in the queue
  std::uint64_t window = 12'500'000;
  Duration jitter = Duration();                   // adds 0 to twice this, order kept

  void run(Duration time) {
    const Instant end = now_ + time;
    const std::uint64_t before = delivered_;
    const Instant begin = now_;
    queue_max_ = Duration();
    for (; now_ < end; now_ = now_ + kTurn) turn();
    utilisation_ = static_cast<double>(delivered_ - before) / (static_cast<double>(bytes_per_s) * (end - begin).seconds_f64());
  }
  double utilisation() const { return utilisation_; }
  Duration queue_max() const { return queue_max_; }

 private:
  static constexpr Duration kTurn = Duration::milliseconds(1);
  struct Packet {
    Instant sent;
    Instant acknowledged;
  };
  void turn() {
    while (!flying_.empty() && flying_.front().acknowledged <= now_) {
      latest_ = flying_.front().acknowledged - flying_.front().sent;
      smoothed_ = smoothed_ == Duration() ? latest_ : smoothed_ + (latest_ - smoothed_) / 8;
      flying_.pop_front();
      delivered_ += kPacketBytes;
    }
    restraint_.observe(now_, {latest_, smoothed_, sent_, flying_.size() * kPacketBytes, true});
    const std::uint64_t paced = bytes_per_s / 1000 * 5 / 4;  // a turn's share, at BBR's highest pacing
    for (std::uint64_t written = 0; written < paced && flying_.size() * kPacketBytes < window && restraint_.may_send(written); written += kPacketBytes) {
      free_at_ = std::max(free_at_, now_) + Duration::nanoseconds(static_cast<std::int64_t>(kPacketBytes * 1'000'000'000 / bytes_per_s));
      queue_max_ = std::max(queue_max_, free_at_ - now_);
      const Duration extra = Duration::nanoseconds(static_cast<std::int64_t>(dice_.unit() * 2 * static_cast<double>(jitter.ns())));
      last_ = std::max(last_, free_at_ + delay + foreign + extra);
      flying_.push_back({now_, last_});
      sent_ += kPacketBytes;
    }
  }

  QuicBulkRestraint restraint_;
  base::Prng dice_{1};
  Instant last_;
  Instant now_ = Instant() + Duration::seconds(100);
  Instant free_at_;
  std::deque<Packet> flying_;
  std::uint64_t sent_ = 0;
  std::uint64_t delivered_ = 0;
  Duration latest_;
  Duration smoothed_;
  Duration queue_max_;
  double utilisation_ = 0;
};

TEST(QuicBulkRestraint, fills_the_road_and_not_the_queue) {
  for (const std::uint64_t mbit : {20u, 100u, 1000u}) {
    for (const std::int64_t round_trip_ms : {10, 50, 150}) {
      Link link;
      link.bytes_per_s = mbit * 125'000;
      link.delay = Duration::milliseconds(round_trip_ms);
      link.window = 3 * link.bytes_per_s * static_cast<std::uint64_t>(round_trip_ms) / 1000 + 200'000;
      link.run(Duration::seconds(5));
      link.run(Duration::seconds(5));
      const Duration target = std::max(link.delay / 6, Duration::milliseconds(3));
      EXPECT_GT(link.utilisation(), 0.97) << mbit << " Mbit/s, " << round_trip_ms << " ms";
      // The least bound, 16 KiB, is more than the target at the lowest rates.
      const auto least = Duration::nanoseconds(static_cast<std::int64_t>(16'384'000'000'000 / link.bytes_per_s / 1000));
      EXPECT_LE(link.queue_max().seconds_f64(), 1.5 * std::max(target, least).seconds_f64()) << mbit << " Mbit/s, " << round_trip_ms << " ms";
    }
  }
}

TEST(QuicBulkRestraint, follows_a_road_that_becomes_wider) {
  Link link;
  link.bytes_per_s = 12'500'000;
  link.run(Duration::seconds(5));
  link.bytes_per_s = 125'000'000;
  link.run(Duration::seconds(3));
  link.run(Duration::seconds(3));
  EXPECT_GT(link.utilisation(), 0.95);
}

TEST(QuicBulkRestraint, does_not_starve_behind_somebody_elses_queue) {
  Link link;
  link.run(Duration::seconds(3));
  link.foreign = Duration::milliseconds(90);
  link.window = 125'000 * 145;  // what the road holds with that queue
  link.run(Duration::seconds(3));
  link.run(Duration::seconds(8));
  EXPECT_GT(link.utilisation(), 0.9);
}

/// The trap of a bound that follows its own last rate: each window would be a little slower than the one before.
TEST(QuicBulkRestraint, a_small_foreign_queue_does_not_wear_it_down) {
  for (const std::int64_t foreign_ms : {6, 10, 14}) {  // the target is 8, twice the target is taken for somebody else's
    Link link;
    link.run(Duration::seconds(3));
    link.foreign = Duration::milliseconds(foreign_ms);
    link.run(Duration::seconds(10));
    link.run(Duration::seconds(10));
    EXPECT_GT(link.utilisation(), 0.75) << foreign_ms;
  }
}

TEST(QuicBulkRestraint, jitter_is_no_queue) {
  for (const std::int64_t round_trip_ms : {10, 50}) {
    Link link;
    link.delay = Duration::milliseconds(round_trip_ms);
    link.jitter = Duration::milliseconds(5);
    link.run(Duration::seconds(5));
    link.run(Duration::seconds(10));
    EXPECT_GT(link.utilisation(), 0.9) << round_trip_ms;
  }
}

TEST(QuicBulkRestraint, learns_a_longer_road) {
  Link link;
  link.delay = Duration::milliseconds(10);
  link.run(Duration::seconds(5));
  link.delay = Duration::milliseconds(100);
  link.run(Duration::seconds(25));
  link.run(Duration::seconds(5));
  EXPECT_GT(link.utilisation(), 0.95);
}

TEST(QuicBulkRestraint, says_nothing_before_anything_was_measured) {
  QuicBulkRestraint restraint;
  restraint.observe(Instant() + Duration::seconds(1), {});
  EXPECT_TRUE(restraint.may_send(1u << 30));
}

}  // namespace
}  // namespace stagecoach::world::real
