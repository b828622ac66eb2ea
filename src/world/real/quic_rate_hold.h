// QuicRateHold: when BBR may think less of a road than before.
//
// In:      one connection's packets sent and lost, with time.
// Out:     whether what it measures now must not lower its estimate of the road's rate.
// Thread:  loop; pure.
// Why:     ngtcp2 0.12 keeps the highest rate of the last two round trips in which it had enough to send, where BBR asks for that of two
//          probing cycles. Two boundary tensors that meet in one uplink, or a receiver that was late, so cost a link most of its rate,
//          and every probe, seconds apart, brings back a quarter.
//          Samples of packets that are marked as limited by the application raise the estimate and never lower it; so packets are
//          marked while the road drops next to nothing. Where it does drop them, the estimate is too high, and BBR does what it does.
// Source:  the two cycles: draft-cardwell-iccrg-bbr-congestion-control-02, the maximum bandwidth filter.
#pragma once

#include <cstdint>

#include "base/time.h"

namespace stagecoach::world::real {

class QuicRateHold {
 public:
  /// Packets since the connection began; time never goes back.
  void observe(base::Instant now, std::uint64_t packets_sent, std::uint64_t packets_lost) {
    if (now < window_end_) return;
    const std::uint64_t sent = packets_sent - sent_, lost = packets_lost - lost_;
    // As many lost packets as BBR itself takes for a full queue (its loss threshold, 2 %); a few are no sign of anything.
    if (lost > kLostMin && lost * 50 > sent) free_until_ = now + kFree;
    holds_ = packets_sent >= kPacketsMin && free_until_ <= now;
    sent_ = packets_sent;
    lost_ = packets_lost;
    window_end_ = now + kWindow;
  }
  bool holds() const { return holds_; }

 private:
  using Duration = base::Duration;
  static constexpr Duration kWindow = Duration::milliseconds(100);
  /// Some round trips of any road: enough for its rate to be measured anew.
  static constexpr Duration kFree = Duration::milliseconds(1000);
  /// BBR's start-up ends on packets that are not marked: time for it. (A link of bursts shorter than a round trip stays in it either way.)
  static constexpr std::uint64_t kPacketsMin = 6000;
  static constexpr std::uint64_t kLostMin = 4;

  base::Instant window_end_;
  base::Instant free_until_;
  std::uint64_t sent_ = 0;
  std::uint64_t lost_ = 0;
  bool holds_ = false;
};

}  // namespace stagecoach::world::real
