// Σ (x · unit)², the loop of every norm.
//
// Why:     one core reads a single stream of memory at half the rate of four, since its prefetcher begins anew on every page; and a
//          norm is nothing but reading. Included by files that are compiled without contraction (clones.h).
#pragma once

#include <cstdint>

#include "compute/ahead.h"

namespace stagecoach::compute {

/// `wide` makes a double of an element. In fp64, in an order that depends on `count` alone.
template <class Sum, class Wide>
[[gnu::always_inline]] inline double squares_of(const Sum* __restrict sums, std::int64_t count, double unit, Wide wide) {
  constexpr std::int64_t kStreams = 4, kLanes = 16;
  double lanes[kStreams][kLanes] = {};
  const std::int64_t stream = count / (kStreams * kLanes) * kLanes;
  for (std::int64_t i = 0; i < stream; i += kLanes) {
    for (std::int64_t k = 0; k < kStreams; ++k) {
      fetch_ahead<kLanes>(sums + k * stream + i);
      for (std::int64_t j = 0; j < kLanes; ++j) {
        const double value = wide(sums[k * stream + i + j]) * unit;
        lanes[k][j] += value * value;
      }
    }
  }
  for (std::int64_t i = kStreams * stream; i < count; ++i) {
    const double value = wide(sums[i]) * unit;
    lanes[0][i % kLanes] += value * value;
  }
  double total = 0;
  for (const auto& one : lanes) {
    for (const double lane : one) total += lane;
  }
  return total;
}

}  // namespace stagecoach::compute
