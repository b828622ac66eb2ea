// SplitMix64: small, seeded, the same on every machine.
//
// In:      a seed. Out: 64-bit words, bounded integers, doubles in [0, 1).
// Thread:  any, one object per user.
// Why:     brains and data order must not depend on a standard library's distributions, which differ between platforms.
// Source:  Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (the mixing function).
#pragma once

#include <cstdint>

namespace stagecoach::base {

/// A bijective scramble of 64 bits.
constexpr std::uint64_t mix64(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/// Folds `value` into `hash`; order matters.
constexpr std::uint64_t mix64(std::uint64_t hash, std::uint64_t value) { return mix64(mix64(hash) ^ value); }

class Prng {
 public:
  explicit constexpr Prng(std::uint64_t seed) : state_(seed) {}
  constexpr std::uint64_t next() {
    const std::uint64_t word = mix64(state_);
    state_ += 0x9e3779b97f4a7c15ull;
    return word;
  }
  /// Uniform in [0, bound) without modulo bias (rejection); 0 where bound is 0.
  constexpr std::uint64_t below(std::uint64_t bound) {
    if (bound == 0) return 0;
    const std::uint64_t limit = ~std::uint64_t{0} - (~std::uint64_t{0} % bound + 1) % bound;
    std::uint64_t word = next();
    while (word > limit) word = next();
    return word % bound;
  }
  /// Uniform in [0, 1) with 53 bits.
  constexpr double unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

 private:
  std::uint64_t state_;
};

}  // namespace stagecoach::base
