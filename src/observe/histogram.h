// Histogram: quantiles of durations in bounded memory.
//
// In:      durations. Out: their number, and any quantile to 1/64 of its value.
// Thread:  any; a value.
// Why:     a day of a run has millions of latencies, and a table asks for two of them.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "base/time.h"

namespace stagecoach::observe {

class Histogram {
 public:
  void add(base::Duration d) {
    ++counts_[index(static_cast<std::uint64_t>(d.ns() < 0 ? 0 : d.ns()))];
    ++count_;
  }
  std::uint64_t count() const { return count_; }

  /// What a share of all does not exceed: quantile(0.99) is p99, rounded up to its bucket's end. Zero where there is nothing.
  base::Duration quantile(double share) const {
    const auto wanted = static_cast<std::uint64_t>(share * static_cast<double>(count_));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < kBuckets; ++i) {
      seen += counts_[i];
      if (seen > wanted || (seen == count_ && count_ > 0)) return base::Duration::nanoseconds(static_cast<std::int64_t>(upper(i)));
    }
    return {};
  }

 private:
  static constexpr unsigned kBits = 6;  // 64 buckets for each power of two
  static constexpr std::uint64_t kFine = std::uint64_t{1} << kBits;
  static constexpr std::size_t kBuckets = (64 - kBits + 1) << kBits;

  static std::size_t index(std::uint64_t value) {
    if (value < kFine) return value;
    const unsigned shift = static_cast<unsigned>(std::bit_width(value)) - kBits - 1;
    return (static_cast<std::size_t>(shift) << kBits) + (value >> shift);
  }
  static std::uint64_t upper(std::size_t i) {
    if (i < kFine) return i;
    const unsigned shift = static_cast<unsigned>(i >> kBits) - 1;
    return (((i & (kFine - 1)) + kFine + 1) << shift) - 1;
  }

  std::array<std::uint64_t, kBuckets> counts_{};
  std::uint64_t count_ = 0;
};

}  // namespace stagecoach::observe
