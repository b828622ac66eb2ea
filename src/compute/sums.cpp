// One microbatch or one slice at a time, in loops that vectorise. See sums.h.
#include "compute/sums.h"

#include <cmath>
#include <cstring>

#include "base/check.h"
#include "compute/clones.h"
#include "compute/fixed64.h"
#include "compute/float_bits.h"
#include "compute/squares.h"

namespace stagecoach::compute {
namespace {

inline void store(float value, float& to) { to = value; }
inline void store(float value, std::uint16_t& to) { to = nearest(value); }

/// Returns whether a sum came out NaN or infinite.
template <class Gradient, class Sum>
[[gnu::always_inline]] inline std::uint32_t add_floats(const Gradient* __restrict gradient, std::int64_t count, float scale,
                                                       Sum* __restrict sums) {
  std::uint32_t broken = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const float sum = widen(sums[i]) + widen(gradient[i]) * scale;
    broken |= (std::bit_cast<std::uint32_t>(sum) & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
    store(sum, sums[i]);
  }
  return broken;
}

STAGECOACH_CLONES std::uint32_t add_f32_f32(const float* g, std::int64_t count, float scale, float* sums) {
  return add_floats(g, count, scale, sums);
}
STAGECOACH_CLONES std::uint32_t add_bf16_f32(const std::uint16_t* g, std::int64_t count, float scale, float* sums) {
  return add_floats(g, count, scale, sums);
}
STAGECOACH_CLONES std::uint32_t add_f32_bf16(const float* g, std::int64_t count, float scale, std::uint16_t* sums) {
  return add_floats(g, count, scale, sums);
}
STAGECOACH_CLONES std::uint32_t add_bf16_bf16(const std::uint16_t* g, std::int64_t count, float scale, std::uint16_t* sums) {
  return add_floats(g, count, scale, sums);
}

STAGECOACH_CLONES double squares_f32(const float* sums, std::int64_t count, double unit) {
  return squares_of(sums, count, unit, [](float sum) { return static_cast<double>(sum); });
}
STAGECOACH_CLONES double squares_bf16(const std::uint16_t* sums, std::int64_t count, double unit) {
  return squares_of(sums, count, unit, [](std::uint16_t sum) { return static_cast<double>(widen(sum)); });
}

template <class Sum>
[[gnu::always_inline]] inline void accumulate(const Sum* __restrict part, std::int64_t count, float* __restrict total) {
  for (std::int64_t i = 0; i < count; ++i) total[i] += widen(part[i]);
}
STAGECOACH_CLONES void accumulate_f32(const float* part, std::int64_t count, float* total) { accumulate(part, count, total); }
STAGECOACH_CLONES void accumulate_bf16(const std::uint16_t* part, std::int64_t count, float* total) {
  accumulate(part, count, total);
}
STAGECOACH_CLONES void round_bf16(const float* __restrict from, std::int64_t count, std::uint16_t* __restrict to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = nearest(from[i]);
}

constexpr std::int64_t kBlock = 2'048;  // of a slice: stays in the nearest cache with its fp32 total

void add_fixed64_parts(std::span<const std::byte* const> parts, std::int64_t count, std::int64_t* total) {
  std::uint64_t sums[kBlock], part[kBlock];
  for (std::int64_t at = 0; at < count; at += kBlock) {
    const std::int64_t n = std::min(kBlock, count - at);
    const auto bytes = static_cast<std::size_t>(n) * sizeof(std::uint64_t);
    std::memcpy(sums, parts[0] + at * 8, bytes);
    for (const std::byte* one : parts.subspan(1)) {
      std::memcpy(part, one + at * 8, bytes);
      for (std::int64_t i = 0; i < n; ++i) sums[i] += part[i];
    }
    std::memcpy(total + at, sums, bytes);
  }
}

template <class Sum>
void add_float_parts(std::span<const std::byte* const> parts, std::int64_t count, Sum* total) {
  Sum part[kBlock];
  float sums[kBlock];
  for (std::int64_t at = 0; at < count; at += kBlock) {
    const std::int64_t n = std::min(kBlock, count - at);
    std::fill_n(sums, n, -0.0f);  // the one number that leaves every other as it is
    for (const std::byte* one : parts) {
      std::memcpy(part, one + at * static_cast<std::int64_t>(sizeof(Sum)), static_cast<std::size_t>(n) * sizeof(Sum));
      if constexpr (sizeof(Sum) == sizeof(float)) accumulate_f32(part, n, sums);
      else accumulate_bf16(part, n, sums);
    }
    if constexpr (sizeof(Sum) == sizeof(float)) std::memcpy(total + at, sums, static_cast<std::size_t>(n) * sizeof(float));
    else round_bf16(sums, n, total + at);
  }
}

const float* as_f32(const void* values) { return static_cast<const float*>(values); }
const std::uint16_t* as_bf16(const void* values) { return static_cast<const std::uint16_t*>(values); }

}  // namespace

double sum_scale(model::SumKind kind, std::int64_t tokens) {
  return kind == model::SumKind::fixed64 ? fixed64_scale(tokens) : std::ldexp(fixed64_scale(tokens), -44);
}

bool add_gradient(model::SumKind kind, const FloatPiece& gradient, double scale, void* sums) {
  const bool wide = gradient.kind == model::FloatKind::float32;
  const void* values = gradient.values;
  const std::int64_t count = gradient.count;
  if (kind == model::SumKind::fixed64) {
    auto* fixed = static_cast<std::int64_t*>(sums);
    return wide ? fixed64_add(as_f32(values), count, scale, fixed) : fixed64_add(as_bf16(values), count, scale, fixed);
  }
  const auto factor = static_cast<float>(scale);
  if (kind == model::SumKind::float32) {
    auto* floats = static_cast<float*>(sums);
    return (wide ? add_f32_f32(as_f32(values), count, factor, floats) : add_bf16_f32(as_bf16(values), count, factor, floats)) == 0;
  }
  auto* halves = static_cast<std::uint16_t*>(sums);
  return (wide ? add_f32_bf16(as_f32(values), count, factor, halves) : add_bf16_bf16(as_bf16(values), count, factor, halves)) == 0;
}

void subtract_gradient(const FloatPiece& gradient, double scale, std::int64_t* sums) {
  if (gradient.kind == model::FloatKind::float32) fixed64_subtract(as_f32(gradient.values), gradient.count, scale, sums);
  else fixed64_subtract(as_bf16(gradient.values), gradient.count, scale, sums);
}

bool all_finite(const FloatPiece& piece) {
  return piece.kind == model::FloatKind::float32 ? all_finite(as_f32(piece.values), piece.count)
                                                 : all_finite(as_bf16(piece.values), piece.count);
}

void add_sums(model::SumKind kind, std::span<const std::byte* const> parts, std::int64_t count, void* total) {
  CHECK(!parts.empty(), "a sum has at least one part");
  if (kind == model::SumKind::fixed64) add_fixed64_parts(parts, count, static_cast<std::int64_t*>(total));
  else if (kind == model::SumKind::float32) add_float_parts(parts, count, static_cast<float*>(total));
  else add_float_parts(parts, count, static_cast<std::uint16_t*>(total));
}

double sum_of_squares(model::SumKind kind, const void* sums, std::int64_t count, double unit) {
  if (kind == model::SumKind::fixed64) return fixed64_sum_of_squares(static_cast<const std::int64_t*>(sums), count, unit);
  return kind == model::SumKind::float32 ? squares_f32(as_f32(sums), count, unit) : squares_bf16(as_bf16(sums), count, unit);
}

}  // namespace stagecoach::compute
