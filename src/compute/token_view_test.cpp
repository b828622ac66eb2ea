// Claims: the view is the sum of the formula in token_view.h, place by place; a row's start is a start; seen from the last places
// of a longer past it is the same; its gradients are those that a change of each weight shows. A stage with such a cut in front of
// one of its layers wants the tokens, and its output depends on them; other stages want none.
#include "compute/token_view.h"

#include <gtest/gtest.h>

#include "base/prng.h"
#include "compute/test_stages.h"

namespace stagecoach::compute {
namespace {

struct Sizes {
  std::int64_t rows, places, vocab, rank, window, width;
};

struct Case {
  Sizes sizes;
  TokenPast past;
  at::Tensor embed_Vr, mix_DM;
};

at::Tensor drawn(base::Prng& prng, std::int64_t rows, std::int64_t columns) {
  at::Tensor out = at::empty({rows, columns});
  float* values = out.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < out.numel(); ++i) values[i] = static_cast<float>(prng.unit() - 0.5);
  return out;
}

Case make(const Sizes& sizes) {
  base::Prng prng(11);
  at::Tensor tokens = at::empty({sizes.rows, sizes.places}, at::kLong);
  for (std::int64_t i = 0; i < tokens.numel(); ++i) {
    tokens.mutable_data_ptr<std::int64_t>()[i] = static_cast<std::int64_t>(prng.below(static_cast<std::uint64_t>(sizes.vocab)));
  }
  at::Tensor embed = drawn(prng, sizes.vocab, sizes.rank);
  return {sizes, {tokens, sizes.places}, embed, drawn(prng, sizes.width, sizes.window * sizes.rank)};
}

double at_place(const at::Tensor& matrix, std::int64_t row, std::int64_t column) {
  return matrix.const_data_ptr<float>()[row * matrix.size(1) + column];
}

/// The formula, in fp64.
double formula(const Case& one, std::int64_t row, std::int64_t place, std::int64_t channel) {
  double sum = 0;
  for (std::int64_t back = 0; back < one.sizes.window && back <= place; ++back) {
    const std::int64_t token = one.past.tokens_BN.const_data_ptr<std::int64_t>()[row * one.sizes.places + place - back];
    for (std::int64_t i = 0; i < one.sizes.rank; ++i) {
      sum += at_place(one.mix_DM, channel, back * one.sizes.rank + i) * at_place(one.embed_Vr, token, i);
    }
  }
  return sum;
}

class TokenView : public testing::TestWithParam<Sizes> {};

TEST_P(TokenView, is_the_formula) {
  const Case one = make(GetParam());
  const at::Tensor view = token_view(one.past, one.embed_Vr, one.mix_DM);
  ASSERT_EQ(view.size(0), one.sizes.rows * one.sizes.places);
  for (std::int64_t row = 0; row < one.sizes.rows; ++row) {
    for (std::int64_t place = 0; place < one.sizes.places; ++place) {
      for (std::int64_t channel = 0; channel < one.sizes.width; ++channel) {
        EXPECT_NEAR(at_place(view, row * one.sizes.places + place, channel), formula(one, row, place, channel), 1e-5);
      }
    }
  }
}

TEST_P(TokenView, from_the_last_places_is_the_end_of_the_whole) {
  Case one = make(GetParam());
  const at::Tensor whole =
      token_view(one.past, one.embed_Vr, one.mix_DM).view({one.sizes.rows, one.sizes.places, one.sizes.width});
  for (std::int64_t seen = 1; seen < one.sizes.places; ++seen) {
    const std::int64_t needed = std::min(one.sizes.places, seen + one.sizes.window - 1);
    const TokenPast past{one.past.tokens_BN.narrow(1, one.sizes.places - needed, needed), seen};
    const at::Tensor end = token_view(past, one.embed_Vr, one.mix_DM).view({one.sizes.rows, seen, one.sizes.width});
    EXPECT_TRUE(at::allclose(end, whole.narrow(1, one.sizes.places - seen, seen), 1e-5, 1e-6)) << seen;
  }
}

TEST_P(TokenView, gradients_are_what_a_change_of_each_weight_shows) {
  const Case one = make(GetParam());
  base::Prng prng(12);
  const at::Tensor gradient = drawn(prng, one.sizes.rows * one.sizes.places, one.sizes.width);
  const TokenViewGradients found = token_view_backward(one.past, one.embed_Vr, one.mix_DM, gradient);
  // The view is linear in each of its weights, so a difference of 1 in one of them shows its gradient exactly.
  const auto weighted = [&] {
    return (token_view(one.past, one.embed_Vr, one.mix_DM).to(at::kDouble) * gradient).sum().item<double>();
  };
  const double before = weighted();
  for (const auto& [weight, shown] : {std::pair{one.embed_Vr, found.embed_Vr}, std::pair{one.mix_DM, found.mix_DM}}) {
    ASSERT_EQ(weight.sizes(), shown.sizes());
    float* values = weight.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < weight.numel(); ++i) {
      const float kept = values[i];
      values[i] += 1.0f;
      EXPECT_NEAR(shown.const_data_ptr<float>()[i], weighted() - before, 1e-4) << i;
      values[i] = kept;
    }
  }
}

TEST_P(TokenView, in_bfloat16_is_near_and_its_embeddings_gradient_is_summed_in_float32) {
  const Case one = make(GetParam());
  base::Prng prng(13);
  const at::Tensor gradient = drawn(prng, one.sizes.rows * one.sizes.places, one.sizes.width).to(at::kBFloat16);
  const at::Tensor embed = one.embed_Vr.to(at::kBFloat16), mix = one.mix_DM.to(at::kBFloat16);
  const at::Tensor exact = token_view(one.past, embed.to(at::kFloat), mix.to(at::kFloat));
  const TokenViewGradients expected =
      token_view_backward(one.past, embed.to(at::kFloat), mix.to(at::kFloat), gradient.to(at::kFloat));
  const at::Tensor view = token_view(one.past, embed, mix);
  const TokenViewGradients found = token_view_backward(one.past, embed, mix, gradient);
  EXPECT_EQ(view.scalar_type(), at::kBFloat16);
  EXPECT_EQ(found.embed_Vr.scalar_type(), at::kFloat);
  const auto near = [](const at::Tensor& ours, const at::Tensor& theirs) {
    return ((ours.to(at::kFloat) - theirs).norm() / theirs.norm()).item<double>() < 1.0 / 128;  // bfloat16's spacing at 1
  };
  EXPECT_TRUE(near(view, exact));
  EXPECT_TRUE(near(found.embed_Vr, expected.embed_Vr));
  EXPECT_TRUE(near(found.mix_DM, expected.mix_DM));
}

INSTANTIATE_TEST_SUITE_P(Sizes, TokenView,
                         testing::Values(Sizes{2, 9, 5, 3, 4, 6},     // the plain case, tokens repeat
                                         Sizes{1, 1, 4, 2, 4, 3},     // one token, a window longer than the text
                                         Sizes{3, 3, 7, 2, 5, 4},     // a window longer than every row
                                         Sizes{2, 6, 5, 4, 1, 3}));   // each token sees itself alone

std::unique_ptr<Stage> middle_stage(const model::TrainConfig& config) {
  StageOptions options;
  options.config = config;
  options.range = {1, 2};
  return value(library().make_stage(options));
}

TEST(StageAtACut, wants_tokens_where_it_sees_them) {
  model::TrainConfig config = small_config();
  const auto count = static_cast<std::size_t>(config.batch.tokens_per_microbatch() * config.model.cut_width);
  const base::Payload boundary = floats(std::vector<float>(count, 0.5f));
  const auto output = [&](Stage& stage, std::uint64_t seed) {
    return *value(stage.forward(base::WeightVersion(0), {random_tokens(config, seed), boundary}));
  };
  const auto without_view = middle_stage(config);
  EXPECT_TRUE(without_view->forward(base::WeightVersion(0), {nullptr, boundary}).ok());
  EXPECT_EQ(output(*without_view, 1), output(*without_view, 2));

  config.model.cut_kind = model::CutKind::resbm_tokens;
  const auto with_view = middle_stage(config);
  EXPECT_EQ(code_of(with_view->forward(base::WeightVersion(0), {nullptr, boundary})), base::ErrorCode::invalid_argument);
  EXPECT_NE(output(*with_view, 1), output(*with_view, 2));
}

}  // namespace
}  // namespace stagecoach::compute
