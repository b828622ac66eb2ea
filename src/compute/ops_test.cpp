// Claims: each fused operation's CPU kernel computes what plain ATen operators compute, forward and backward, fp32 to rounding and
// bf16 to one rounding of its own, at odd sizes too; NaN is not lost; threads share the work, and how many they are does not show.
#include <cmath>
#include <mutex>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "compute/device.h"
#include "compute/ops.h"

namespace stagecoach::compute {
namespace {

class Ops : public testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    use_threads(2);
    at::manual_seed(7);
  }
  at::Tensor random(at::IntArrayRef shape, double scale = 1.0) const { return (at::randn(shape) * scale).to(GetParam()); }

  /// The largest difference against the largest value: rounding twice in bf16, a handful of roundings in fp32.
  void near(const at::Tensor& ours, const at::Tensor& theirs, const char* what) const {
    ASSERT_EQ(ours.sizes(), theirs.sizes()) << what;
    const at::Tensor a = ours.to(at::kDouble), b = theirs.to(at::kDouble);
    const double largest = b.abs().max().item<double>();
    EXPECT_GT(largest, 0) << what;
    EXPECT_LE((a - b).abs().max().item<double>() / largest, GetParam() == at::kFloat ? 4e-6 : 1.0 / 128) << what;
  }
};

TEST_P(Ops, norm_forward_and_backward) {
  for (const auto& [rows, width] : {std::pair{1, 3}, std::pair{67, 48}, std::pair{300, 129}}) {
    const at::Tensor x = random({rows, width}), weight = random({width}), dy = random({rows, width});
    const NormOutput ours = rms_norm(x, weight, 1e-5), theirs = rms_norm(x, weight, 1e-5, Way::aten);
    near(ours.y_TD, theirs.y_TD, "y");
    near(ours.rstd_T, theirs.rstd_T, "rstd");
    for (const at::Tensor& skip : {at::Tensor(), random({rows, width}), random({rows, 2})}) {
      const NormGradients a = rms_norm_backward(x, weight, ours.rstd_T, dy, skip);
      const NormGradients b = rms_norm_backward(x, weight, ours.rstd_T, dy, skip, Way::aten);
      near(a.x_TD, b.x_TD, "dx");
      near(a.weight_D, b.weight_D, "dweight");
    }
  }
}

TEST_P(Ops, rotation_turns_and_turns_back) {
  const AttentionShape shape{2, 19, 6, 2, 10};
  const at::Tensor angles = at::arange(19).unsqueeze(1) * at::rand({1, 5});
  const Rotation rotation{angles.cos(), angles.sin()};
  const at::Tensor start = random({38, shape.row()});
  at::Tensor ours = start.clone(), theirs = start.clone();
  rotate(shape, rotation, Turn::forward, ours);
  rotate(shape, rotation, Turn::forward, theirs, Way::aten);
  near(ours, theirs, "turned");
  rotate(shape, rotation, Turn::back, ours);
  near(ours, start, "turned back");
}

TEST_P(Ops, gate_and_silu_forward_and_backward) {
  const at::Tensor dy = random({33, 100}), x = random({33, 100}, 6);
  at::Tensor ours = random({33, 200}, 6), theirs = ours.clone();
  near(gate(ours), gate(theirs, Way::aten), "gate");
  near(gate_backward(ours, dy), gate_backward(theirs, dy, Way::aten), "gate again");
  near(ours, theirs, "its gradient");
  near(silu_forward(x), silu_forward(x, Way::aten), "silu");
  ours = dy.clone(), theirs = dy.clone();
  near(silu_backward(x, ours), silu_backward(x, theirs, Way::aten), "silu again");
  near(ours, theirs, "its gradient");
}

TEST_P(Ops, cross_entropy_and_its_gradient) {
  for (const std::int64_t vocab : {5, 61, 256, 5'000}) {
    const at::Tensor labels = at::randint(vocab, {23});
    at::Tensor ours = random({23, vocab}, 3), theirs = ours.clone();
    const double loss = cross_entropy(ours, labels, false);
    EXPECT_EQ(cross_entropy(ours, labels, true), loss);
    EXPECT_NEAR(loss, cross_entropy(theirs, labels, true, Way::aten), 1e-5 * loss);
    near(ours, theirs, "dlogits");
  }
}

TEST_P(Ops, weight_gradient_is_the_product_of_transposed_rows) {
  for (const auto& [rows, from, to] : {std::tuple{8, 8, 8}, std::tuple{51, 48, 100}, std::tuple{130, 33, 7}}) {
    const at::Tensor dy = random({rows, to}), x = random({rows, from});
    near(weight_gradient(dy, x), weight_gradient(dy, x, Way::aten), "dweight");
    near(weight_gradient(dy, x), at::mm(dy.to(at::kFloat).t(), x.to(at::kFloat)), "dweight in fp32");
  }
}

TEST_P(Ops, products_are_the_same_matrices_however_threads_share_them) {
  for (const int threads : {1, 2, 3}) {
    use_threads(threads);
    for (const auto& [rows, from, to] : {std::tuple{5, 40, 24}, std::tuple{701, 300, 130}, std::tuple{520, 64, 333},
                                         std::tuple{300, 640, 1'850}, std::tuple{128, 36, 30'001}}) {
      const at::Tensor x = random({rows, from}), weight = random({to, from}), dy = random({rows, to});
      const at::Tensor onto = random({rows, to + 3}).narrow(1, 0, to);
      const at::Tensor wide_x = x.to(at::kFloat), wide_weight = weight.to(at::kFloat), wide_dy = dy.to(at::kFloat);
      near(product(x, weight), at::mm(wide_x, wide_weight.t()), "x·weightᵀ");
      near(product(x, weight, onto), at::mm(wide_x, wide_weight.t()) + onto.to(at::kFloat), "onto + x·weightᵀ");
      near(input_gradient(dy, weight), at::mm(wide_dy, wide_weight), "dy·weight");
      near(input_gradient(dy, weight, x), at::mm(wide_dy, wide_weight) + wide_x, "x + dy·weight");
      near(weight_gradient(dy, x), at::mm(wide_dy.t(), wide_x), "dyᵀ·x");
    }
  }
  use_threads(1);
}

TEST_P(Ops, attention_forward_and_backward) {
  // Head widths from one pair to beyond a tile, sequences shorter, as long and longer than a tile and than a stretch of tiles.
  const AttentionShape shapes[] = {{1, 1, 1, 1, 2},    {3, 17, 6, 2, 8},   {1, 64, 2, 2, 16},
                                   {2, 65, 4, 1, 32},  {1, 200, 2, 1, 66}, {1, 130, 2, 2, 128},
                                   {1, 640, 2, 1, 16}, {1, 33, 3, 3, 10}};
  for (const AttentionShape& shape : shapes) {
    const at::Tensor qkv = random({shape.sequences * shape.tokens, shape.row()});
    const at::Tensor gradient = random({shape.sequences * shape.tokens, shape.heads * shape.width});
    const AttentionKept ours = attention_forward(shape, qkv), theirs = attention_forward_by_aten(shape, qkv);
    near(ours.out_TD, theirs.out_TD, "out");
    if (shape.tokens > 1) near(ours.lse_BHS, theirs.lse_BHS, "lse");
    near(attention_backward(shape, qkv, ours, gradient), attention_backward_by_aten(shape, qkv, ours, gradient), "dqkv");
  }
}

TEST_P(Ops, nan_stays_nan) {
  // A device makes NaN with its sign set as well as without.
  for (const double nan : {std::nan(""), std::copysign(std::nan(""), -1.0)}) {
    const AttentionShape shape{1, 70, 2, 1, 16};
    at::Tensor x = random({70, 64});
    x[69][3] = nan;
    const auto found = [](const at::Tensor& y) { return y.isnan().any().item<bool>(); };
    const NormOutput normed = rms_norm(x, at::ones({64}).to(GetParam()), 1e-5);
    EXPECT_TRUE(found(normed.y_TD));
    EXPECT_TRUE(found(gate(x)));
    EXPECT_TRUE(found(silu_forward(x)));
    const AttentionKept attended = attention_forward(shape, x);
    EXPECT_TRUE(found(attended.out_TD[69]));
    EXPECT_FALSE(found(attended.out_TD[68]));
    EXPECT_TRUE(found(attention_backward(shape, x, attended, random({70, 32}))));
    at::Tensor turned = x.clone(), logits = x.clone(), spoiled = x.clone();
    rotate(shape, {at::ones({70, 8}), at::ones({70, 8})}, Turn::forward, turned);
    EXPECT_TRUE(found(turned));
    EXPECT_TRUE(std::isnan(cross_entropy(logits, at::zeros({70}, at::kLong), true)));
    EXPECT_TRUE(found(logits));
    gate_backward(spoiled, random({70, 32}));
    EXPECT_TRUE(found(spoiled));
  }
}

/// Every operation once but products, which are torch's own; at sizes that are shared out among threads.
std::vector<at::Tensor> everything(const AttentionShape& shape, const at::Tensor& qkv, const at::Tensor& gradient,
                                   const at::Tensor& ab, const at::Tensor& weight) {
  const std::int64_t rows = qkv.size(0);
  at::Tensor turned = qkv.clone(), gated_gradient = ab.clone(), logits = ab.clone(), silu_gradient = gradient.clone();
  const at::Tensor angles = at::arange(shape.tokens).unsqueeze(1) * at::ones({1, shape.width / 2});
  rotate(shape, {angles.cos(), angles.sin()}, Turn::forward, turned);
  const AttentionKept attended = attention_forward(shape, turned);
  const NormOutput normed = rms_norm(attended.out_TD, weight, 1e-5);
  const NormGradients gradients = rms_norm_backward(attended.out_TD, weight, normed.rstd_T, gradient, gradient);
  const at::Tensor gated = gate(ab), gated_again = gate_backward(gated_gradient, gated);
  const at::Tensor silu = silu_forward(gradient), silu_again = silu_backward(gradient, silu_gradient);
  const double loss = cross_entropy(logits, at::arange(rows).remainder(ab.size(1)), true);
  return {turned, attended.out_TD, attended.lse_BHS, attention_backward(shape, turned, attended, gradient),
          normed.y_TD, normed.rstd_T, gradients.x_TD, gradients.weight_D, gated, gated_gradient, gated_again, silu, silu_gradient,
          silu_again, logits, at::full({1}, loss, at::kDouble)};
}

TEST_P(Ops, do_not_depend_on_the_number_of_threads) {
  for (const AttentionShape& shape : {AttentionShape{4, 100, 4, 2, 32}, AttentionShape{1, 700, 4, 1, 32}}) {
    const std::int64_t rows = shape.sequences * shape.tokens;
    const at::Tensor qkv = random({rows, shape.row()}), gradient = random({rows, 128}), ab = random({rows, 600}, 3);
    const at::Tensor weight = random({128});
    std::vector<at::Tensor> found[3];
    for (const int threads : {1, 2, 3}) {
      use_threads(threads);
      found[threads - 1] = everything(shape, qkv, gradient, ab, weight);
    }
    use_threads(1);
    for (std::size_t i = 0; i < found[0].size(); ++i) {
      EXPECT_TRUE(at::equal(found[0][i], found[1][i])) << i;
      EXPECT_TRUE(at::equal(found[0][i], found[2][i])) << i;
    }
  }
}

TEST(Threads, share_what_is_parallel) {
  // at::parallel_for is a loop in torch's header: it runs on one thread without a word where our compiler does not know OpenMP.
  use_threads(2);
  std::mutex lock;
  std::set<std::thread::id> seen;
  std::int64_t elements = 0;
  at::parallel_for(0, 2, 1, [&](std::int64_t first, std::int64_t last) {
    const std::lock_guard<std::mutex> held(lock);
    seen.insert(std::this_thread::get_id());
    elements += last - first;
  });
  use_threads(1);
  EXPECT_EQ(elements, 2);
  EXPECT_EQ(seen.size(), 2u);
}

INSTANTIATE_TEST_SUITE_P(Numbers, Ops, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return std::string(at::toString(info.param)); });

}  // namespace
}  // namespace stagecoach::compute
