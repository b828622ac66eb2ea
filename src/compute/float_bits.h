// bfloat16 by its bits, and the noise of stochastic rounding.
//
// In/out:  plain values; a bfloat16 is the upper half of a float32, held in 16 bits.
// Thread:  any.
// Why:     the loops over a stage's parameters read and write bfloat16 in the same pass as they compute. Written as integer
//          arithmetic they vectorise everywhere and give the same bits everywhere.
#pragma once

#include <bit>
#include <cstdint>

#include "base/ids.h"
#include "base/prng.h"

namespace stagecoach::compute {

inline float widen(float value) { return value; }
inline float widen(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

/// To the nearest bfloat16, ties to even. Infinity stays infinity, torch's NaN stays NaN.
inline std::uint16_t nearest(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/// To one of the two bfloat16 around `value`, the nearer one the likelier, so that the mean over all `noise` is `value` itself.
///
/// units: noise is uniform in 0 … 65,535
inline std::uint16_t stochastic(float value, std::uint32_t noise) {
  return static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(value) + noise) >> 16);
}

/// What the noise of one tensor in one step depends on; see noise_key().
struct NoiseKey {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
};

/// Noise follows from these and the element alone: a second computation, another replica and another split make the same bits
/// (PROTOCOL B12).
inline NoiseKey noise_key(std::uint64_t seed, base::TensorIndex tensor, base::Step step) {
  const std::uint64_t mixed = base::mix64(base::mix64(seed, tensor.value()), step.value());
  return {static_cast<std::uint32_t>(mixed), static_cast<std::uint32_t>(mixed >> 32)};
}

/// The key of elements 2^32·k …, to which noise() is given the low 32 bits of the element's index.
inline NoiseKey noise_key_at(NoiseKey key, std::int64_t element) {
  return {key.low, key.high ^ (static_cast<std::uint32_t>(static_cast<std::uint64_t>(element) >> 32) * 0x9e3779b9u)};
}

/// 16 random bits. The multipliers are those of "lowbias32" (C. Wellons, hash-prospector), a bijection whose every output bit
/// depends on every input bit; 32 bits wide, because that is what vectorises.
inline std::uint32_t noise(NoiseKey key, std::uint32_t element) {
  std::uint32_t x = element + key.low;
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= key.high;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x >> 16;
}

}  // namespace stagecoach::compute
