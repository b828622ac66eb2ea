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
#include <cstdint>
#include <utility>

#include "base/time.h"

namespace stagecoach::world::real {

class QuicBulkRestraint {
 public:
  struct Road {
    base::Duration latest_round_trip;
    base::Duration smoothed_round_trip;
    std::uint64_t bytes_sent = 0;       // since the connection began
    std::uint64_t bytes_in_flight = 0;
    bool bulk_waits = false;            // there is bulk to send, and somebody whom it could delay
  };

  /// Takes how the road is at `now`; time never goes back.
  void observe(base::Instant now, const Road& road) {
    if (road.latest_round_trip <= base::Duration()) return;  // nothing was measured yet
    in_flight_ = road.bytes_in_flight;
    observe_base(now, road.latest_round_trip);
    least_ = std::min(least_, road.latest_round_trip);
    busy_ = busy_ && road.bulk_waits;
    const Duration window = now - window_begin_;
    if (window < std::max(base() * 2, kWindowMin)) return;
    const std::uint64_t delivered = road.bytes_sent - std::min(road.bytes_sent, road.bytes_in_flight);
    end_window(now, window, delivered, road.smoothed_round_trip);
    least_ = kUnknown;
    busy_ = road.bulk_waits;
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
  /// Two round trips: acknowledgements that come in heaps make a shorter window look faster than the road.
  static constexpr Duration kWindowMin = Duration::milliseconds(20);
  static constexpr Duration kRateWindow = Duration::seconds(10);
  static constexpr std::int64_t kBusyWindows = 4;                 // by then slow start has found the road's rate
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
  void end_window(Instant now, Duration window, std::uint64_t delivered, Duration smoothed) {
    // A queue that stands raises the least round trip; jitter raises the others.
    queue_ = least_ - base();
    jitter_ = std::max(Duration(), smoothed - least_);
    busy_windows_ = busy_ ? busy_windows_ + 1 : 0;
    if (busy_) observe_rate(now, (static_cast<double>(delivered) - static_cast<double>(window_delivered_)) / window.seconds_f64());
    window_begin_ = now;
    window_delivered_ = delivered;
    decide(now);
  }
  void observe_rate(Instant now, double rate) {
    if (rate_until_ <= now) {
      rate_before_ = std::exchange(rate_now_, 0);
      rate_until_ = now + kRateWindow;
    }
    rate_now_ = std::max(rate_now_, rate);
  }
  void decide(Instant now) {
    // Half of what is allowed: held at its bound, bulk must not look like an empty road.
    if (queue_ > target() / 2) full_until_ = now + base() * kKeptRoundTrips;
    if (queue_ <= target() * 2) crowded_since_ = now;
    if (now - crowded_since_ > kPatience) {
      truce_until_ = now + kTruce;
      crowded_since_ = now;
    }
    restrains_ = busy_windows_ >= kBusyWindows && full_until_ > now && truce_until_ <= now;
  }
  std::uint64_t bound() const {
    const double seconds = (base() + jitter_ + target()).seconds_f64();
    return std::max(kBoundMin, static_cast<std::uint64_t>(std::max(rate_now_, rate_before_) * seconds));
  }

  Duration base_now_ = kUnknown;
  Duration base_before_ = kUnknown;
  Instant base_until_;
  // The highest rate that bulk had: of the last windows alone it would fall with each of them where a queue is not our own.
  double rate_now_ = 0;            // bytes a second
  double rate_before_ = 0;
  Instant rate_until_;
  bool busy_ = false;              // bulk waited all through the window that runs
  std::int64_t busy_windows_ = 0;
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
