// Arithmetic that the kernels' loops are made of: bf16 to and from fp32, lanes, exp.
//
// Why:     a loop vectorises only if everything in it is plain operations; libm's exp is a call. Included by files that are
//          compiled without contraction (clones.h), so that every clone computes the same bits.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "compute/kernels.h"

// GCC inlines a helper into every clone only where it must.
#define STAGECOACH_INLINE inline __attribute__((always_inline))

namespace stagecoach::compute {

STAGECOACH_INLINE float load(float x) { return x; }
STAGECOACH_INLINE float load(BFloat x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }

/// The nearest bfloat16, ties to even, in the upper half of the bits. NaN stays NaN where its lower half is zero, as in every NaN
/// that arithmetic makes by itself or from a bfloat16's.
STAGECOACH_INLINE std::uint32_t rounded_to_bfloat(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  return bits + 0x7fffu + ((bits >> 16) & 1u);
}

STAGECOACH_INLINE void store(float x, float& to) { to = x; }
STAGECOACH_INLINE void store(float x, BFloat& to) { to.bits = static_cast<std::uint16_t>(rounded_to_bfloat(x) >> 16); }

/// The same for numbers that only a product sees: ties go away from zero, which takes half of the operations.
STAGECOACH_INLINE void store_factor(float x, float& to) { to = x; }
STAGECOACH_INLINE void store_factor(float x, BFloat& to) {
  to.bits = static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(x) + 0x8000u) >> 16);
}

inline constexpr std::int64_t kLanes = 16;

/// The lanes' sum, always in this order.
STAGECOACH_INLINE float added(const float (&lanes)[kLanes]) {
  float half[kLanes / 2];
  for (std::int64_t j = 0; j < kLanes / 2; ++j) half[j] = lanes[j] + lanes[j + kLanes / 2];
  return ((half[0] + half[4]) + (half[1] + half[5])) + ((half[2] + half[6]) + (half[3] + half[7]));
}

STAGECOACH_INLINE float larger(float a, float b) { return a > b ? a : b; }

STAGECOACH_INLINE float largest(const float (&lanes)[kLanes]) {
  float out = lanes[0];
  for (std::int64_t j = 1; j < kLanes; ++j) out = larger(lanes[j], out);
  return out;
}

/// e^x to about one unit in the last place where |x| ≤ 64, e^±64 beyond; NaN stays NaN (Cephes' expf: range reduction by ln 2 in two
/// parts, a polynomial of degree 5). Its callers look at sums of such numbers, beside which e^−64 is nothing, and subnormal
/// numbers, which e^−88 would lead to, take a hundred times as long as others.
STAGECOACH_INLINE float exponential(float x) {
  constexpr float kRounder = 12'582'912.0f;  // 1.5·2^23: adding it rounds to an integer
  float bounded = x < -64.0f ? -64.0f : x;
  bounded = bounded > 64.0f ? 64.0f : bounded;
  const float shifted = bounded * 1.44269504f + kRounder;
  const float n = shifted - kRounder;
  const float r = (bounded - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const std::uint32_t power = std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(kRounder);
  return p * std::bit_cast<float>((power + 127u) << 23);
}

inline constexpr float kLog2OfE = 1.44269504f;

/// 2^x where −92 ≤ x ≤ 127, 2^−92 below; NaN stays NaN. For exponents that can be had in this base: half of exponential()'s
/// operations. To two units in the last place where T is float, to a thousandth of a unit where T is BFloat: minimax polynomials
/// of degree 5 and 4 with p(0) = 1.
template <class T>
STAGECOACH_INLINE float power_of_two(float x) {
  constexpr float kRounder = 12'582'912.0f;  // 1.5·2^23: adding it rounds to an integer
  const float bounded = x < -92.0f ? -92.0f : x;
  const float shifted = bounded + kRounder;
  const float r = bounded - (shifted - kRounder);
  float p;
  if constexpr (std::is_same_v<T, float>) {
    p = r * 1.326472731e-3f + 9.671512991e-3f;
    p = p * r + 5.550733581e-2f;
    p = p * r + 2.402224243e-1f;
    p = p * r + 6.931470037e-1f;
  } else {
    p = r * 9.582852945e-3f + 5.590642616e-2f;
    p = p * r + 2.402409911e-1f;
    p = p * r + 6.931241751e-1f;
  }
  p = p * r + 1.0f;
  const std::uint32_t power = std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(kRounder);
  return p * std::bit_cast<float>((power + 127u) << 23);
}

/// 1 / (1 + e^−x), to the accuracy of T.
template <class T>
STAGECOACH_INLINE float sigmoid(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return 1.0f / (1.0f + exponential(-x));
  } else {
    const float exponent = x * -kLog2OfE;
    return 1.0f / (1.0f + power_of_two<T>(exponent > 92.0f ? 92.0f : exponent));
  }
}

}  // namespace stagecoach::compute
