// Fixed point by one addition: a double near 1.5·2^52 has a unit in the last place of exactly 1, so adding that number rounds
// to an integer (ties to even) and leaves it in the low bits. Vectorises where llrint does not.
#include "compute/fixed64.h"

#include <bit>
#include <cmath>

#include "compute/ahead.h"
#include "compute/clones.h"
#include "compute/float_bits.h"
#include "compute/squares.h"

namespace stagecoach::compute {
namespace {

constexpr double kRounder = 0x1.8p52;
constexpr double kLimit = 0x1.0p51;

inline std::int64_t rounded(double scaled) {
  return std::bit_cast<std::int64_t>(scaled + kRounder) - std::bit_cast<std::int64_t>(kRounder);
}

template <class Gradient>
[[gnu::always_inline]] inline std::int64_t add(const Gradient* __restrict gradient, std::int64_t count, double scale,
                                               std::int64_t* __restrict sums) {
  std::int64_t outside = 0;
  const auto element = [&](std::int64_t i) [[gnu::always_inline]] {
    const double scaled = static_cast<double>(widen(gradient[i])) * scale;
    outside |= std::fabs(scaled) < kLimit ? 0 : 1;  // NaN compares false
    sums[i] += rounded(scaled);
  };
  with_memory_ahead(count, element, gradient, sums);
  return outside;
}

template <class Gradient>
[[gnu::always_inline]] inline void subtract(const Gradient* __restrict gradient, std::int64_t count, double scale,
                                            std::int64_t* __restrict sums) {
  for (std::int64_t i = 0; i < count; ++i) sums[i] -= rounded(static_cast<double>(widen(gradient[i])) * scale);
}

STAGECOACH_CLONES std::int64_t add_f32(const float* gradient, std::int64_t count, double scale, std::int64_t* sums) {
  return add(gradient, count, scale, sums);
}
STAGECOACH_CLONES std::int64_t add_bf16(const std::uint16_t* gradient, std::int64_t count, double scale, std::int64_t* sums) {
  return add(gradient, count, scale, sums);
}
STAGECOACH_CLONES void subtract_f32(const float* gradient, std::int64_t count, double scale, std::int64_t* sums) {
  subtract(gradient, count, scale, sums);
}
STAGECOACH_CLONES void subtract_bf16(const std::uint16_t* gradient, std::int64_t count, double scale, std::int64_t* sums) {
  subtract(gradient, count, scale, sums);
}

STAGECOACH_CLONES double sum_of_squares(const std::int64_t* sums, std::int64_t count, double unit) {
  return squares_of(sums, count, unit, [](std::int64_t sum) { return static_cast<double>(sum); });
}

STAGECOACH_CLONES std::uint32_t any_not_finite(const float* __restrict values, std::int64_t count) {
  std::uint32_t found = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t exponent = std::bit_cast<std::uint32_t>(values[i]) & 0x7f800000u;
    found |= exponent == 0x7f800000u ? 1u : 0u;
  }
  return found;
}

STAGECOACH_CLONES std::uint32_t any_bf16_not_finite(const std::uint16_t* __restrict values, std::int64_t count) {
  std::uint32_t found = 0;
  for (std::int64_t i = 0; i < count; ++i) found |= (values[i] & 0x7f80u) == 0x7f80u ? 1u : 0u;
  return found;
}

}  // namespace

double fixed64_scale(std::int64_t tokens) {
  int log2_ceiling = 0;
  while ((std::int64_t{1} << log2_ceiling) < tokens) ++log2_ceiling;
  return std::ldexp(1.0, 44 - log2_ceiling);
}

bool fixed64_add(const float* gradient, std::int64_t count, double scale, std::int64_t* sums) {
  return add_f32(gradient, count, scale, sums) == 0;
}
bool fixed64_add(const std::uint16_t* gradient, std::int64_t count, double scale, std::int64_t* sums) {
  return add_bf16(gradient, count, scale, sums) == 0;
}

void fixed64_subtract(const float* gradient, std::int64_t count, double scale, std::int64_t* sums) {
  subtract_f32(gradient, count, scale, sums);
}
void fixed64_subtract(const std::uint16_t* gradient, std::int64_t count, double scale, std::int64_t* sums) {
  subtract_bf16(gradient, count, scale, sums);
}

double fixed64_sum_of_squares(const std::int64_t* sums, std::int64_t count, double unit) {
  return sum_of_squares(sums, count, unit);
}

bool all_finite(const float* values, std::int64_t count) { return any_not_finite(values, count) == 0; }
bool all_finite(const std::uint16_t* values, std::int64_t count) { return any_bf16_not_finite(values, count) == 0; }

}  // namespace stagecoach::compute
