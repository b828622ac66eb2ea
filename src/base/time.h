// Instant and Duration: time as the brains see it.
//
// In/out:  64-bit nanoseconds behind a type. An Instant has no meaning but its distance from another one of the same world.
// Thread:  any.
// Why:     brains get time as an argument, from a real clock or a simulated one; a bare integer would hide the unit.
#pragma once

#include <compare>
#include <cstdint>
#include <limits>

namespace stagecoach::base {

class Duration {
 public:
  constexpr Duration() = default;
  static constexpr Duration nanoseconds(std::int64_t n) { return Duration(n); }
  static constexpr Duration microseconds(std::int64_t n) { return Duration(n * 1'000); }
  static constexpr Duration milliseconds(std::int64_t n) { return Duration(n * 1'000'000); }
  static constexpr Duration seconds(std::int64_t n) { return Duration(n * 1'000'000'000); }

  constexpr std::int64_t ns() const { return ns_; }
  constexpr double seconds_f64() const { return static_cast<double>(ns_) * 1e-9; }
  constexpr auto operator<=>(const Duration&) const = default;
  constexpr Duration operator+(Duration other) const { return Duration(ns_ + other.ns_); }
  constexpr Duration operator-(Duration other) const { return Duration(ns_ - other.ns_); }
  constexpr Duration operator*(std::int64_t factor) const { return Duration(ns_ * factor); }
  constexpr Duration operator/(std::int64_t divisor) const { return Duration(ns_ / divisor); }

 private:
  explicit constexpr Duration(std::int64_t n) : ns_(n) {}
  std::int64_t ns_ = 0;
};

class Instant {
 public:
  constexpr Instant() = default;
  static constexpr Instant from_ns(std::int64_t n) { return Instant(n); }
  /// Later than any instant a clock returns: "no deadline".
  static constexpr Instant never() { return Instant(std::numeric_limits<std::int64_t>::max()); }

  constexpr std::int64_t ns() const { return ns_; }
  constexpr auto operator<=>(const Instant&) const = default;
  constexpr Instant operator+(Duration d) const { return Instant(ns_ + d.ns()); }
  constexpr Duration operator-(Instant other) const { return Duration::nanoseconds(ns_ - other.ns_); }

 private:
  explicit constexpr Instant(std::int64_t n) : ns_(n) {}
  std::int64_t ns_ = 0;
};

}  // namespace stagecoach::base
