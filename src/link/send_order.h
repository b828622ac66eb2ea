// SendOrder, BulkFloor, TokenBucket: who is next, what bulk may have meanwhile, and how fast the process may send at all.
//
// In:      priorities, deadlines, byte counts, time. Out: an order, permissions.
// Thread:  loop; pure.
// Why:     the order of frames on the road is the same for every road, and its rules are few enough to be tested alone.
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>

#include "base/time.h"
#include "link/link.h"

namespace stagecoach::link {

/// Orders waiting frames: class, then the earliest deadline, then first come.
struct SendOrder {
  Priority priority = Priority::control;
  base::Instant deadline = base::Instant::never();
  std::uint64_t sequence = 0;
  auto operator<=>(const SendOrder&) const = default;
};

/// Bulk's share while something urgent waits: 1 byte in 20. Without it a long stretch of urgent work would starve a joiner's weights.
class BulkFloor {
 public:
  void urgent_sent(std::uint64_t bytes) { credit_ = std::min(credit_ + static_cast<std::int64_t>(bytes), kCreditMax); }
  /// Bulk may send now though urgent frames wait.
  bool bulk_is_due() const { return credit_ >= kUrgentPerBulk * kQuantumBytes; }
  /// Called for bulk that went while urgent frames waited.
  void bulk_sent(std::uint64_t bytes) { credit_ -= kUrgentPerBulk * static_cast<std::int64_t>(bytes); }

 private:
  static constexpr std::int64_t kUrgentPerBulk = 19;
  static constexpr std::int64_t kQuantumBytes = 1500;
  static constexpr std::int64_t kCreditMax = kUrgentPerBulk * 64 * 1024;
  std::int64_t credit_ = 0;
};

/// The process's uplink cap. A send may overdraw the bucket; then nothing goes until it is positive again.
class TokenBucket {
 public:
  /// units: bytes a second; 0 = no cap.
  explicit TokenBucket(std::uint64_t bytes_per_s) : rate_(static_cast<std::int64_t>(bytes_per_s)) {}

  void advance(base::Instant now) {
    if (rate_ == 0) return;
    const double seconds = started_ ? std::min((now - filled_at_).seconds_f64(), kStepSecondsMax) : kStepSecondsMax;
    const std::int64_t added = static_cast<std::int64_t>(static_cast<double>(rate_) * seconds);
    if (started_ && added == 0) return;  // keeps the fraction by not moving filled_at_
    tokens_ = std::min(tokens_ + added, burst());
    filled_at_ = now;
    started_ = true;
  }
  /// What one sender should take at once, so that others get their turn; no bound without a cap.
  std::uint64_t share_bytes() const { return rate_ == 0 ? ~std::uint64_t{0} : static_cast<std::uint64_t>(burst()); }
  bool may_send() const { return rate_ == 0 || tokens_ > 0; }
  void sent(std::uint64_t bytes) {
    if (rate_ != 0) tokens_ -= static_cast<std::int64_t>(bytes);
  }
  /// When may_send() turns true; never() where it is true now.
  base::Instant ready_at() const {
    if (may_send()) return base::Instant::never();
    const double missing = static_cast<double>(1 - tokens_);
    return filled_at_ + base::Duration::nanoseconds(static_cast<std::int64_t>(missing / static_cast<double>(rate_) * 1e9) + 1);
  }

 private:
  static constexpr double kStepSecondsMax = 60;  // bounds the product of rate and time
  /// What may go at once: 10 ms of the rate, and never less than two full datagrams.
  std::int64_t burst() const { return std::max<std::int64_t>(rate_ / 100, 3000); }
  std::int64_t rate_;
  std::int64_t tokens_ = 0;
  base::Instant filled_at_;
  bool started_ = false;
};

}  // namespace stagecoach::link
