// Claims: Newton–Schulz brings all singular values near 1 and keeps the singular vectors, for wide, tall and square matrices; a tall
// one is the transposed wide one; bfloat16 products point where fp32 ones do; equal input gives equal bits.
#include "compute/muon.h"

#include <gtest/gtest.h>

namespace stagecoach::compute {
namespace {

using model::FloatKind;

at::Tensor drawn(std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
  return at::randn({rows, columns}, at::make_generator<at::CPUGeneratorImpl>(seed)) * 0.01;
}

double cosine(const at::Tensor& a, const at::Tensor& b) {
  return ((a * b).sum() / (a.norm() * b.norm())).item<double>();
}

class Shapes : public testing::TestWithParam<std::pair<std::int64_t, std::int64_t>> {};

TEST_P(Shapes, singular_values_go_near_one_and_vectors_stay) {
  const at::Tensor direction = drawn(GetParam().first, GetParam().second, 1);
  const at::Tensor result = orthogonalised(direction, 5, FloatKind::float32);
  ASSERT_EQ(result.sizes(), direction.sizes());
  const auto [u, s, vh] = at::linalg_svd(direction.to(at::kDouble), /*full_matrices=*/false);
  const at::Tensor inside = at::mm(at::mm(u.t(), result.to(at::kDouble)), vh.t());
  const at::Tensor values = at::diagonal(inside);
  EXPECT_LT((inside - at::diag(values)).abs().max().item<double>(), 1e-4) << "the same singular vectors";
  // Five iterations lift what is above a hundredth of the norm; a random matrix has smaller ones where it is square.
  const at::Tensor lifted = values.masked_select(s > 0.01 * s.norm());
  EXPECT_GT(lifted.numel(), values.numel() / 2);
  EXPECT_GT(lifted.min().item<double>(), 0.6);
  EXPECT_LT(values.max().item<double>(), 1.25);
}

TEST_P(Shapes, bfloat16_points_the_same_way) {
  const at::Tensor direction = drawn(GetParam().first, GetParam().second, 2);
  const at::Tensor narrow = orthogonalised(direction, 5, FloatKind::bfloat16);
  EXPECT_EQ(narrow.scalar_type(), at::kFloat);
  EXPECT_GT(cosine(narrow, orthogonalised(direction, 5, FloatKind::float32)), 0.999);
}

TEST_P(Shapes, transposing_commutes) {
  const at::Tensor direction = drawn(GetParam().first, GetParam().second, 3);
  const at::Tensor other = orthogonalised(direction.t().contiguous(), 5, FloatKind::float32).t();
  EXPECT_LT((orthogonalised(direction, 5, FloatKind::float32) - other).abs().max().item<double>(), 1e-4);
}

TEST_P(Shapes, gives_the_same_bits_again) {
  const at::Tensor direction = drawn(GetParam().first, GetParam().second, 4);
  for (const FloatKind number : {FloatKind::float32, FloatKind::bfloat16}) {
    EXPECT_TRUE(at::equal(orthogonalised(direction, 5, number), orthogonalised(direction.clone(), 5, number)));
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Shapes,
                         testing::Values(std::pair(48, 48), std::pair(12, 48), std::pair(48, 12), std::pair(100, 48), std::pair(1, 7)));

TEST(Muon, a_zero_direction_changes_nothing) {
  for (const FloatKind number : {FloatKind::float32, FloatKind::bfloat16}) {
    EXPECT_TRUE(at::equal(orthogonalised(at::zeros({4, 6}), 5, number), at::zeros({4, 6})));
  }
}

TEST(Muon, tall_matrices_have_a_larger_rate) {
  EXPECT_EQ(muon_rate_factor(48, 48), 1.0);
  EXPECT_EQ(muon_rate_factor(12, 48), 1.0);
  EXPECT_EQ(muon_rate_factor(64, 16), 2.0);
}

}  // namespace
}  // namespace stagecoach::compute
