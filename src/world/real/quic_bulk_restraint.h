// QuicBulkRestraint: when bulk has filled the road enough.
//
// In:      one connection's round trips, bytes sent and bytes in flight, with time.
// Out:     whether bulk may put more into flight now.
// Thread:  loop; pure.
// Why:     BBR keeps up to twice what the road holds in flight, and half of it waits in the narrowest queue on the way, where no priority
//          reaches: an urgent frame waits behind it. Bulk alone can be asked to fill the road and no more.
// Source:  the bound is that of Vegas (Brakmo, O'Malley, Peterson, SIGCOMM 1994); a queue is told from jitter by the least delay, as CoDel
//          does it (Nichols, Jacobson, 2012); competing where the queue is others' follows Copa (Arun, Balakrishnan, NSDI 2018, 2.2).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "base/time.h"

namespace stagecoach::world::real {

class QuicBulkRestraint {
 public:
  struct Road {
    base::Duration latest_round_trip;
    base::Duration smoothed_round_trip;
    std::uint64_t bytes_sent = 0;       // since the connection began
    std::uint64_t bytes_in_flight = 0;
  };

  /// Takes how the road is at `now`; time never goes back.
  void observe(base::Instant now, const Road& road) {
    if (road.latest_round_trip <= base::Duration()) return;  // nothing was measured yet
    in_flight_ = road.bytes_in_flight;
    observe_base(now, road.latest_round_trip);
    least_ = std::min(least_, road.latest_round_trip);
    const Duration window = now - window_begin_;
    if (window < std::max(base(), kWindowMin)) return;
    // A queue that stands raises the least round trip; jitter raises the others.
    queue_ = least_ - base();
    jitter_ = std::max(Duration(), road.smoothed_round_trip - least_);
    const std::uint64_t delivered = road.bytes_sent - std::min(road.bytes_sent, road.bytes_in_flight);
    const double bytes = static_cast<double>(delivered) - static_cast<double>(window_delivered_);
    rates_[next_rate_++ % rates_.size()] = std::max(0.0, bytes) / window.seconds_f64();
    window_begin_ = now;
    window_delivered_ = delivered;
    least_ = kUnknown;
    decide(now);
  }
  /// Bulk may go, where `written` bytes went since the last observe().
  bool may_send(std::uint64_t written) const { return !restrains_ || in_flight_ + written < bound(); }

  /// The round trip of an empty road, as far as the last 10 to 20 seconds showed it.
  base::Duration base() const { return std::min(base_now_, base_before_); }
  /// How long what we have in the narrowest queue may take to leave it.
  base::Duration target() const { return std::max(base() / 6, kTargetMin); }

 private:
  using Duration = base::Duration;
  using Instant = base::Instant;
  static constexpr Duration kTargetMin = Duration::milliseconds(3);
  static constexpr Duration kBaseWindow = Duration::seconds(10);  // BBR empties its queue every five
  static constexpr Duration kWindowMin = Duration::milliseconds(10);
  static constexpr Duration kUnknown = Duration::seconds(3600);
  static constexpr Duration kPatience = Duration::seconds(2);     // after which the queue is taken for somebody else's
  static constexpr Duration kTruce = Duration::seconds(10);
  /// The queue is empty for a while each time that BBR looks at the empty road; what refills it must be bounded before it is full.
  static constexpr std::int64_t kKeptRoundTrips = 10;
  static constexpr std::uint64_t kBoundMin = 16u << 10;

  void observe_base(Instant now, Duration round_trip) {
    if (base_until_ <= now) {
      base_before_ = base_now_;
      base_now_ = round_trip;
      base_until_ = now + kBaseWindow;
    }
    base_now_ = std::min(base_now_, round_trip);
  }
  void decide(Instant now) {
    // Half of what is allowed: held at its bound, bulk must not look like an empty road.
    if (queue_ > target() / 2) full_until_ = now + base() * kKeptRoundTrips;
    if (queue_ <= target() * 2) crowded_since_ = now;
    if (now - crowded_since_ > kPatience) {
      truce_until_ = now + kTruce;
      crowded_since_ = now;
    }
    restrains_ = full_until_ > now && truce_until_ <= now;
  }
  std::uint64_t bound() const {
    const double rate = *std::max_element(rates_.begin(), rates_.end());
    return std::max(kBoundMin, static_cast<std::uint64_t>(rate * (base() + jitter_ + target()).seconds_f64()));
  }

  Duration base_now_ = kUnknown;
  Duration base_before_ = kUnknown;
  Instant base_until_;
  std::array<double, 8> rates_{};  // bytes a second
  std::size_t next_rate_ = 0;
  Duration least_ = kUnknown;      // round trip of the window that runs
  Duration queue_;                 // the last window's
  Duration jitter_;
  Instant window_begin_;
  std::uint64_t window_delivered_ = 0;
  std::uint64_t in_flight_ = 0;
  Instant crowded_since_;
  Instant full_until_;
  Instant truce_until_;
  bool restrains_ = false;
};

}  // namespace stagecoach::world::real
