// Claims: a microbatch is added whole or not at all, or, where it cannot be taken back, the sums say so; fixed64 sums come out the same
// in any order and on any device path; a group of one has no second array; slices of a reduced sum count as whole only when they cover
// everything, and writing them never changes what is read.
#include "compute/accumulator.h"

#include <cmath>
#include <cstring>
#include <limits>

#include <gtest/gtest.h>

#include "base/prng.h"
#include "compute/fixed64.h"
#include "compute/sums.h"

namespace stagecoach::compute {
namespace {

using base::ErrorCode;
using model::SumKind;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

at::Tensor random_gradient(std::int64_t count, std::uint64_t seed) {
  base::Prng prng(seed);
  const at::Tensor values = at::empty({count});
  for (std::int64_t i = 0; i < count; ++i) {
    values.data_ptr<float>()[i] = static_cast<float>(std::ldexp(prng.unit() - 0.5, static_cast<int>(prng.below(40)) - 34));
  }
  return values;
}

Accumulator::Options options(std::int64_t elements, SumKind kind = SumKind::fixed64, const StateMath& math = host_math()) {
  Accumulator::Options out;
  out.elements = elements;
  out.kind = kind;
  out.scale = sum_scale(kind, 1);
  out.math = &math;
  return out;
}

/// Adds tensors at their offsets as one microbatch.
base::Result<void> add(Accumulator& sums, const std::vector<std::pair<std::int64_t, at::Tensor>>& gradients) {
  auto microbatch = sums.begin();
  if (!microbatch.ok()) return microbatch.error();
  for (const auto& [offset, gradient] : gradients) RETURN_IF_ERROR(microbatch->add(offset, gradient));
  microbatch->finish();
  return {};
}

template <class T>
std::vector<T> own(const Accumulator& sums, ElementRange range) {
  const auto bytes = sums.read(range);
  EXPECT_TRUE(bytes.ok());
  std::vector<T> out((*bytes)->size() / sizeof(T));
  std::memcpy(out.data(), (*bytes)->data(), (*bytes)->size());
  return out;
}

void write(Accumulator& sums, ElementRange range, const std::int64_t* values) {
  sums.write_reduced(range, reinterpret_cast<const std::byte*>(values));
}

TEST(Accumulator, sums_do_not_depend_on_order_or_path) {
  const std::int64_t count = 1'000;
  std::vector<at::Tensor> microbatches;
  for (std::uint64_t seed = 0; seed < 9; ++seed) microbatches.push_back(random_gradient(count, seed));
  Accumulator forwards(options(count)), backwards(options(count)), in_torch(options(count, SumKind::fixed64, device_math()));
  for (std::size_t i = 0; i < 9; ++i) {
    ASSERT_TRUE(add(forwards, {{0, microbatches[i]}}).ok());
    ASSERT_TRUE(add(backwards, {{400, microbatches[8 - i].narrow(0, 400, 600)}, {0, microbatches[8 - i].narrow(0, 0, 400)}}).ok());
    ASSERT_TRUE(add(in_torch, {{0, microbatches[(i * 5) % 9]}}).ok());
  }
  EXPECT_EQ(own<std::int64_t>(forwards, {0, count}), own<std::int64_t>(backwards, {0, count}));
  EXPECT_EQ(own<std::int64_t>(forwards, {0, count}), own<std::int64_t>(in_torch, {0, count}));
}

TEST(Accumulator, begins_with_zeros_in_memory_that_another_left) {
  at::Tensor spare;
  Accumulator::Options sharing = options(5);
  sharing.spare = &spare;
  {
    Accumulator first(sharing);
    ASSERT_TRUE(add(first, {{0, random_gradient(5, 1)}}).ok());
  }
  ASSERT_TRUE(spare.defined());
  const void* const memory = spare.data_ptr();
  Accumulator second(sharing);
  ASSERT_TRUE(second.reduce_alone().ok());
  EXPECT_FALSE(spare.defined()) << "one owner at a time";
  EXPECT_EQ(second.reduced(0, 5).data_ptr(), memory);
  EXPECT_TRUE(at::equal(second.reduced(0, 5), at::zeros({5}, at::kLong)));
}

TEST(Accumulator, takes_bfloat16_gradients_of_any_shape) {
  Accumulator sums(options(6));
  ASSERT_TRUE(add(sums, {{2, at::full({2, 2}, 0.5, at::kBFloat16).t()}}).ok());
  const std::int64_t half = std::int64_t{1} << 43;
  EXPECT_EQ(own<std::int64_t>(sums, {0, 6}), (std::vector<std::int64_t>{0, 0, half, half, half, half}));
}

TEST(Accumulator, adds_a_fixed64_microbatch_whole_or_not_at_all) {
  for (const StateMath* math : {&host_math(), &device_math()}) {
    Accumulator sums(options(6, SumKind::fixed64, *math));
    const at::Tensor good = at::tensor({1.0f, 2.0f, 3.0f});
    const at::Tensor large = at::tensor({1.0f, 200.0f, 3.0f});
    const at::Tensor broken = at::tensor({1.0f, 2.0f, kNan});
    ASSERT_TRUE(add(sums, {{0, good}, {3, good}}).ok());
    const auto before = own<std::int64_t>(sums, {0, 6});
    EXPECT_EQ(add(sums, {{0, good}, {3, large}}).error().code, ErrorCode::out_of_range);
    EXPECT_EQ(add(sums, {{0, good}, {3, broken}}).error().code, ErrorCode::not_finite);
    {
      auto abandoned = sums.begin();
      ASSERT_TRUE(abandoned->add(0, good).ok());
      auto moved = std::move(abandoned).value();
      ASSERT_TRUE(moved.add(3, good).ok());
    }
    EXPECT_EQ(own<std::int64_t>(sums, {0, 6}), before);
    ASSERT_TRUE(add(sums, {{0, good}}).ok()) << "and goes on";
  }
}

TEST(Accumulator, float_sums_that_cannot_be_taken_back_are_spoiled) {
  for (const SumKind kind : {SumKind::float32, SumKind::bfloat16}) {
    for (const StateMath* math : {&host_math(), &device_math()}) {
      Accumulator sums(options(6, kind, *math));
      const at::Tensor good = at::tensor({1.0f, 2.0f, 3.0f});
      const at::Tensor broken = at::tensor({1.0f, kNan, 3.0f});
      ASSERT_TRUE(add(sums, {{0, good}, {3, good}}).ok());
      static_cast<void>(sums.begin());
      EXPECT_TRUE(sums.read({0, 6}).ok()) << "a microbatch of which nothing was added harms nothing";
      EXPECT_EQ(add(sums, {{0, good}, {3, broken}}).error().code, ErrorCode::not_finite);
      EXPECT_EQ(sums.read({0, 6}).error().code, ErrorCode::not_finite);
      EXPECT_EQ(add(sums, {{0, good}}).error().code, ErrorCode::not_finite);
    }
  }
}

TEST(Accumulator, float_sums_hold_the_scaled_gradient) {
  Accumulator::Options of_float = options(2, SumKind::float32);
  of_float.scale = sum_scale(SumKind::float32, 256);
  Accumulator sums(of_float);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(add(sums, {{0, at::tensor({256.0f, -64.0f})}}).ok());
  EXPECT_EQ(own<float>(sums, {0, 2}), (std::vector<float>{3.0f, -0.75f}));
}

TEST(Accumulator, holds_at_most_4096_microbatches_of_the_largest_gradients) {
  Accumulator sums(options(1));
  const float largest = std::nextafter(128.0f, 0.0f);
  for (int i = 0; i < kMicrobatchesPerSumMax; ++i) ASSERT_TRUE(add(sums, {{0, at::tensor({largest})}}).ok());
  EXPECT_EQ(add(sums, {{0, at::tensor({largest})}}).error().code, ErrorCode::out_of_range);
  EXPECT_EQ(static_cast<double>(own<std::int64_t>(sums, {0, 1})[0]), 4096.0 * static_cast<double>(largest) * 0x1p44)
      << "no wrap-around";
}

TEST(Accumulator, is_reduced_when_slices_cover_everything) {
  Accumulator sums(options(10));
  const std::vector<std::int64_t> values = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  EXPECT_FALSE(sums.reduced_whole());
  for (const ElementRange range : {ElementRange{4, 6}, {0, 2}, {8, 10}, {1, 3}, {5, 5}}) {
    write(sums, range, values.data() + range.first);
    EXPECT_FALSE(sums.reduced_whole());
  }
  write(sums, {3, 9}, values.data() + 3);
  EXPECT_TRUE(sums.reduced_whole());
  EXPECT_TRUE(at::equal(sums.reduced(0, 10), at::arange(10)));
  EXPECT_EQ(own<std::int64_t>(sums, {0, 10}), std::vector<std::int64_t>(10)) << "this worker's own sum stays as it was";
}

TEST(Accumulator, a_group_of_one_has_one_array) {
  Accumulator sums(options(10));
  ASSERT_TRUE(add(sums, {{0, random_gradient(10, 1)}}).ok());
  const auto mine = own<std::int64_t>(sums, {0, 10});
  EXPECT_FALSE(sums.reduced_whole());
  ASSERT_TRUE(sums.reduce_alone().ok());
  EXPECT_TRUE(sums.reduced_whole());
  EXPECT_FALSE(sums.reduced_is_stored());
  EXPECT_EQ(sums.reduced(3, 7).data_ptr<std::int64_t>()[0], mine[3]);
  ASSERT_TRUE(add(sums, {{0, random_gradient(10, 2)}}).ok());
  EXPECT_TRUE(sums.reduced_is_stored()) << "what was reduced does not follow what is added later";
  EXPECT_EQ(std::memcmp(sums.reduced(0, 10).data_ptr(), mine.data(), 80), 0);
}

TEST(Accumulator, a_group_of_one_that_added_nothing_has_zeros_and_a_spoiled_one_has_no_sum) {
  Accumulator nothing(options(3));
  ASSERT_TRUE(nothing.reduce_alone().ok());
  EXPECT_TRUE(at::equal(nothing.reduced(0, 3), at::zeros({3}, at::kLong)));
  Accumulator spoiled(options(3, SumKind::float32));
  EXPECT_FALSE(add(spoiled, {{0, at::tensor({1.0f, kNan, 3.0f})}}).ok());
  EXPECT_EQ(spoiled.reduce_alone().error().code, ErrorCode::not_finite);
}

TEST(Accumulator, other_members_sums_get_memory_of_their_own) {
  Accumulator sums(options(10));
  ASSERT_TRUE(add(sums, {{0, random_gradient(10, 1)}}).ok());
  const auto mine = own<std::int64_t>(sums, {0, 10});
  write(sums, {0, 4}, mine.data());
  auto theirs = mine;
  theirs[9] += 1;
  write(sums, {4, 10}, theirs.data() + 4);
  EXPECT_TRUE(sums.reduced_is_stored());
  EXPECT_EQ(std::memcmp(sums.reduced(0, 10).data_ptr(), theirs.data(), 80), 0);
  EXPECT_EQ(own<std::int64_t>(sums, {0, 10}), mine);
}

}  // namespace
}  // namespace stagecoach::compute
