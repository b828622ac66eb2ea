// Claims: a gradient is rounded once, to even, to 2^−44 of its scaled value; sums come out the same in any order; what does not
// fit is refused and can be taken back.
#include "compute/fixed64.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "base/prng.h"
#include "compute/float_bits.h"

namespace stagecoach::compute {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> random_gradient(std::size_t count, std::uint64_t seed) {
  base::Prng prng(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(std::ldexp(prng.unit() - 0.5, static_cast<int>(prng.below(40)) - 34));
  return values;
}

TEST(Fixed64, scale_is_a_power_of_two_of_at_most_the_mean) {
  EXPECT_EQ(fixed64_scale(1), 0x1p44);
  EXPECT_EQ(fixed64_scale(256), 0x1p36);
  EXPECT_EQ(fixed64_scale(257), 0x1p35);
  EXPECT_EQ(fixed64_scale(8'000), 0x1p31);
}

TEST(Fixed64, rounds_once_to_even) {
  const std::vector<float> gradient = {1.0f, -1.0f, 0x1p-44f, 0x1p-45f, 0x1.8p-44f, -0x1.8p-44f, 0x1.4p-43f, 0.1f, 127.99999f};
  std::vector<std::int64_t> sums(gradient.size(), 7);
  ASSERT_TRUE(fixed64_add(gradient.data(), static_cast<std::int64_t>(gradient.size()), 0x1p44, sums.data()));
  const std::vector<std::int64_t> expected = {std::int64_t{1} << 44, -(std::int64_t{1} << 44), 1, 0, 2, -2, 2,
                                              static_cast<std::int64_t>(std::nearbyint(static_cast<double>(0.1f) * 0x1p44)),
                                              static_cast<std::int64_t>(static_cast<double>(127.99999f) * 0x1p44)};
  for (std::size_t i = 0; i < sums.size(); ++i) EXPECT_EQ(sums[i] - 7, expected[i]) << gradient[i];
}

TEST(Fixed64, agrees_with_nearbyint_at_every_vector_tail) {
  for (std::size_t count = 1; count < 40; ++count) {
    const std::vector<float> gradient = random_gradient(count, count);
    std::vector<std::int64_t> sums(count);
    ASSERT_TRUE(fixed64_add(gradient.data(), static_cast<std::int64_t>(count), 0x1p36, sums.data()));
    for (std::size_t i = 0; i < count; ++i) {
      EXPECT_EQ(sums[i], static_cast<std::int64_t>(std::nearbyint(static_cast<double>(gradient[i]) * 0x1p36)));
    }
  }
}

TEST(Fixed64, refuses_what_does_not_fit_wherever_it_stands) {
  for (const float bad : {128.0f, -128.0f, kNan, kInfinity, -kInfinity, 1e30f}) {
    for (std::size_t place = 0; place < 37; ++place) {
      std::vector<float> gradient(37, 0.5f);
      gradient[place] = bad;
      std::vector<std::int64_t> sums(37, -3);
      EXPECT_FALSE(fixed64_add(gradient.data(), 37, 0x1p44, sums.data())) << bad << " at " << place;
      fixed64_subtract(gradient.data(), 37, 0x1p44, sums.data());
      EXPECT_EQ(sums, std::vector<std::int64_t>(37, -3)) << "undone to the bit";
    }
  }
}

TEST(Fixed64, sum_of_squares_is_the_sum_of_squares) {
  std::vector<std::int64_t> sums(1'003);
  double expected = 0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    sums[i] = static_cast<std::int64_t>(i) - 500;
    expected += std::pow(0.5 * static_cast<double>(sums[i]), 2);
  }
  EXPECT_DOUBLE_EQ(fixed64_sum_of_squares(sums.data(), 1'003, 0.5), expected);
}

TEST(Fixed64, all_finite_sees_every_place) {
  std::vector<float> values(35, 1e38f);
  EXPECT_TRUE(all_finite(values.data(), 35));
  for (std::size_t i = 0; i < values.size(); ++i) {
    for (const float bad : {kNan, kInfinity, -kInfinity}) {
      auto damaged = values;
      damaged[i] = bad;
      EXPECT_FALSE(all_finite(damaged.data(), 35));
    }
  }
}

TEST(Fixed64, adds_bfloat16_gradients_as_the_floats_they_are) {
  const std::vector<float> values = random_gradient(131, 3);
  std::vector<std::uint16_t> narrow(values.size());
  std::vector<float> wide(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) narrow[i] = nearest(values[i]), wide[i] = widen(narrow[i]);
  std::vector<std::int64_t> a(values.size(), 5), b = a;
  ASSERT_TRUE(fixed64_add(narrow.data(), 131, 0x1p36, a.data()));
  ASSERT_TRUE(fixed64_add(wide.data(), 131, 0x1p36, b.data()));
  EXPECT_EQ(a, b);
  fixed64_subtract(narrow.data(), 131, 0x1p36, a.data());
  EXPECT_EQ(a, std::vector<std::int64_t>(values.size(), 5));
}

}  // namespace
}  // namespace stagecoach::compute
