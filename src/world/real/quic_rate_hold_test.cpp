// Claim: the estimate is held once start-up is over, let go for a second where the road drops packets, and never on a stray loss.
#include "world/real/quic_rate_hold.h"

#include <gtest/gtest.h>

namespace stagecoach::world::real {
namespace {

using base::Duration;
using base::Instant;

/// A connection that sends 1,000 packets in each tenth of a second.
class Sender {
 public:
  void send(Duration time, std::uint64_t lost_in_a_tenth) {
    for (const Instant end = now_ + time; now_ < end; now_ = now_ + Duration::milliseconds(100)) {
      sent_ += 1000;
      lost_ += lost_in_a_tenth;
      hold_.observe(now_, sent_, lost_);
    }
  }
  bool held() const { return hold_.holds(); }

 private:
  QuicRateHold hold_;
  Instant now_ = Instant() + Duration::seconds(7);
  std::uint64_t sent_ = 0;
  std::uint64_t lost_ = 0;
};

TEST(QuicRateHold, begins_after_start_up) {
  Sender sender;
  sender.send(Duration::milliseconds(400), 0);
  EXPECT_FALSE(sender.held());
  sender.send(Duration::milliseconds(300), 0);
  EXPECT_TRUE(sender.held());
}

TEST(QuicRateHold, lets_go_where_packets_are_dropped_and_takes_hold_again) {
  Sender sender;
  sender.send(Duration::seconds(2), 0);
  sender.send(Duration::milliseconds(100), 21);
  EXPECT_FALSE(sender.held());
  sender.send(Duration::milliseconds(900), 0);
  EXPECT_FALSE(sender.held());
  sender.send(Duration::milliseconds(200), 0);
  EXPECT_TRUE(sender.held());
}

TEST(QuicRateHold, takes_losses_of_the_road_for_what_they_are) {
  Sender sender;
  sender.send(Duration::seconds(2), 0);
  sender.send(Duration::seconds(2), 20);  // 2 %
  EXPECT_TRUE(sender.held());
}

}  // namespace
}  // namespace stagecoach::world::real
