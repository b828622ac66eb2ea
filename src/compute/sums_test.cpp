// Claims: float sums are the fp32 sum of what was there and the scaled gradient, rounded once; parts are added in fp32 in the order
// given and rounded once at the end, fixed64 modulo 2^64; norms are those of the numbers that the sums hold; what is not finite shows.
#include "compute/sums.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "base/prng.h"
#include "compute/float_bits.h"

namespace stagecoach::compute {
namespace {

using model::FloatKind;
using model::SumKind;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> random_values(std::size_t count, std::uint64_t seed) {
  base::Prng prng(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(std::ldexp(prng.unit() - 0.5, static_cast<int>(prng.below(20)) - 10));
  return values;
}

std::vector<std::uint16_t> narrowed(const std::vector<float>& values) {
  std::vector<std::uint16_t> out;
  for (const float value : values) out.push_back(nearest(value));
  return out;
}

TEST(FloatBits, nearest_is_the_bfloat16_with_the_least_error) {
  EXPECT_EQ(nearest(1.0f), 0x3f80);
  EXPECT_EQ(nearest(1.0f + 0x1p-8f), 0x3f80) << "a tie goes to even";
  EXPECT_EQ(nearest(1.0f + 0x3p-8f), 0x3f82) << "a tie goes to even";
  EXPECT_EQ(nearest(-1.0f - 0x1.8p-8f), 0xbf81);
  EXPECT_EQ(widen(nearest(kInfinity)), kInfinity);
  EXPECT_TRUE(std::isnan(widen(nearest(kNan))));
  EXPECT_EQ(widen(nearest(3.3895e38f)), 3.3895314e38f) << "the largest";
}

TEST(Sums, scale_brings_every_kind_to_a_mean) {
  EXPECT_EQ(sum_scale(SumKind::fixed64, 256), 0x1p36);
  EXPECT_EQ(sum_scale(SumKind::float32, 256), 0x1p-8);
  EXPECT_EQ(sum_scale(SumKind::bfloat16, 257), 0x1p-9);
}

TEST(Sums, float_kinds_add_in_fp32_and_round_once) {
  for (std::size_t count = 1; count < 70; ++count) {
    const std::vector<float> gradient = random_values(count, count), start = random_values(count, 100 + count);
    const std::vector<std::uint16_t> narrow_gradient = narrowed(gradient), narrow_start = narrowed(start);
    for (const bool wide : {true, false}) {
      const FloatPiece piece = wide ? FloatPiece{gradient.data(), FloatKind::float32, static_cast<std::int64_t>(count)}
                                    : FloatPiece{narrow_gradient.data(), FloatKind::bfloat16, static_cast<std::int64_t>(count)};
      std::vector<float> floats = start;
      std::vector<std::uint16_t> halves = narrow_start;
      ASSERT_TRUE(add_gradient(SumKind::float32, piece, 0x1p-3, floats.data()));
      ASSERT_TRUE(add_gradient(SumKind::bfloat16, piece, 0x1p-3, halves.data()));
      for (std::size_t i = 0; i < count; ++i) {
        const float g = wide ? gradient[i] : widen(narrow_gradient[i]);
        EXPECT_EQ(floats[i], start[i] + g * 0x1p-3f);
        EXPECT_EQ(halves[i], nearest(widen(narrow_start[i]) + g * 0x1p-3f));
      }
    }
  }
}

TEST(Sums, what_is_not_finite_shows_wherever_it_stands) {
  for (const float bad : {kNan, kInfinity, -kInfinity}) {
    for (std::size_t place = 0; place < 37; ++place) {
      std::vector<float> gradient(37, 0.5f), floats(37);
      gradient[place] = bad;
      std::vector<std::uint16_t> narrow = narrowed(gradient), halves(37);
      EXPECT_FALSE(add_gradient(SumKind::float32, {gradient.data(), FloatKind::float32, 37}, 1, floats.data()));
      EXPECT_FALSE(add_gradient(SumKind::bfloat16, {narrow.data(), FloatKind::bfloat16, 37}, 1, halves.data()));
      EXPECT_FALSE(all_finite({gradient.data(), FloatKind::float32, 37}));
      EXPECT_FALSE(all_finite({narrow.data(), FloatKind::bfloat16, 37}));
    }
  }
  const std::vector<float> fine(37, 3e38f);
  EXPECT_TRUE(all_finite({fine.data(), FloatKind::float32, 37}));
  std::vector<float> full(37, 3e38f);
  EXPECT_FALSE(add_gradient(SumKind::float32, {fine.data(), FloatKind::float32, 37}, 1, full.data())) << "a sum that overflows";
}

template <class T>
std::vector<T> added(SumKind kind, const std::vector<std::vector<T>>& parts) {
  // One byte off: a part is a message's payload, which lies anywhere.
  std::vector<std::vector<std::byte>> memory;
  std::vector<const std::byte*> pointers;
  for (const auto& part : parts) {
    memory.emplace_back(part.size() * sizeof(T) + 1);
    std::memcpy(memory.back().data() + 1, part.data(), part.size() * sizeof(T));
    pointers.push_back(memory.back().data() + 1);
  }
  std::vector<T> total(parts[0].size());
  add_sums(kind, pointers, static_cast<std::int64_t>(total.size()), total.data());
  return total;
}

TEST(Sums, parts_are_added_in_order_and_rounded_once) {
  constexpr std::size_t kCount = 5'001;  // more than two blocks and a tail
  const auto a = random_values(kCount, 1), b = random_values(kCount, 2), c = random_values(kCount, 3);
  const auto floats = added<float>(SumKind::float32, {a, b, c});
  const auto na = narrowed(a), nb = narrowed(b), nc = narrowed(c);
  const auto halves = added<std::uint16_t>(SumKind::bfloat16, {na, nb, nc});
  for (std::size_t i = 0; i < kCount; ++i) {
    EXPECT_EQ(floats[i], (a[i] + b[i]) + c[i]);
    EXPECT_EQ(halves[i], nearest((widen(na[i]) + widen(nb[i])) + widen(nc[i])));
  }
  EXPECT_EQ(added<float>(SumKind::float32, {{-0.0f, 0.0f}}), (std::vector<float>{-0.0f, 0.0f}));
  EXPECT_TRUE(std::signbit(added<float>(SumKind::float32, {{-0.0f}})[0])) << "one part comes out as it is, in every bit";
}

TEST(Sums, fixed64_parts_are_added_modulo_2_to_the_64) {
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ((added<std::int64_t>(SumKind::fixed64, {{1, most, -5}, {2, 1, 3}})),
            (std::vector<std::int64_t>{3, std::numeric_limits<std::int64_t>::min(), -2}));
}

TEST(Sums, norms_are_of_what_the_sums_hold) {
  const auto values = random_values(1'003, 8);
  const auto narrow = narrowed(values);
  double wide_squares = 0, narrow_squares = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    wide_squares += std::pow(0.25 * static_cast<double>(values[i]), 2);
    narrow_squares += std::pow(0.25 * static_cast<double>(widen(narrow[i])), 2);
  }
  EXPECT_NEAR(sum_of_squares(SumKind::float32, values.data(), 1'003, 0.25) / wide_squares, 1, 1e-13);
  EXPECT_NEAR(sum_of_squares(SumKind::bfloat16, narrow.data(), 1'003, 0.25) / narrow_squares, 1, 1e-13);
}

}  // namespace
}  // namespace stagecoach::compute
