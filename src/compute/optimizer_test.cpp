// Claims: the first updates are the hand-computed ones; clipping is torch's; NAdam's product of momenta follows from the step alone;
// an element's update does not depend on where in a tensor it stands.
#include "compute/optimizer.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "base/prng.h"

namespace stagecoach::compute {
namespace {

using base::Step;

// One token a step: the mean gradient is the sum, and a sum of 2^44 is a gradient of 1.
model::TrainConfig one_token_config(model::OptimizerKind kind) {
  model::TrainConfig config;
  config.batch.sequences = config.batch.tokens = config.batch.microbatches = 1;
  config.optimizer.kind = kind;
  config.optimizer.eps = 1e-12;
  config.schedule = {model::ScheduleKind::constant, 0.5, 0.1, 0, 0, 1'000};
  return config;
}

struct Element {
  std::int64_t sum = 0;
  float weight = 1, moment = 0, second = 0;
};

void update(Optimizer& optimizer, std::uint64_t step, double norm, bool decayed, Element& e) {
  Optimizer::update(optimizer.factors(Step(step), norm), {1, &e.sum, &e.weight, &e.moment, &e.second, decayed});
}

TEST(Optimizer, mean_gradient_is_the_sum_over_the_tokens) {
  model::TrainConfig config;
  config.batch.sequences = 2;
  config.batch.tokens = 96;  // 192 tokens: fixed64 divides by 256
  config.batch.microbatches = 5;
  const Optimizer optimizer(config);
  EXPECT_DOUBLE_EQ(0x1p44 * optimizer.mean_gradient_unit(), 256.0 / 960.0);
}

TEST(AdamW, first_step_moves_by_the_rate_after_decay) {
  Optimizer optimizer(one_token_config(model::OptimizerKind::adamw));
  Element e{std::int64_t{3} << 44, 1.0f};
  update(optimizer, 1, 0.5, true, e);  // norm 0.5 is under clip_norm 1: the gradient stays 3
  EXPECT_NEAR(e.moment, 0.3, 1e-6);
  EXPECT_NEAR(e.second, 0.45, 1e-6);
  EXPECT_NEAR(e.weight, 1.0 * (1 - 0.5 * 0.1) - 0.5, 1e-6);  // m̂ / sqrt(v̂) = 1
  Element norm{std::int64_t{3} << 44, 1.0f};
  update(optimizer, 1, 0.5, false, norm);
  EXPECT_NEAR(norm.weight, 0.5, 1e-6) << "norms are not decayed";
}

TEST(AdamW, clips_by_the_global_norm) {
  Optimizer optimizer(one_token_config(model::OptimizerKind::adamw));
  Element e{std::int64_t{3} << 44, 1.0f};
  update(optimizer, 1, 4.0, true, e);
  EXPECT_NEAR(e.moment, 0.1 * 3 / (4 + 1e-6), 1e-7);
  model::TrainConfig unclipped = one_token_config(model::OptimizerKind::adamw);
  unclipped.optimizer.clip_norm = 0;
  Optimizer free(unclipped);
  Element f{std::int64_t{3} << 44, 1.0f};
  update(free, 1, 4.0, true, f);
  EXPECT_NEAR(f.moment, 0.3, 1e-6) << "0 = no clipping";
}

TEST(NAdam, first_step_is_the_formulas) {
  Optimizer optimizer(one_token_config(model::OptimizerKind::nadam));
  Element e{std::int64_t{3} << 44, 1.0f};
  update(optimizer, 1, 0.5, true, e);
  const double mu1 = 0.9 * (1 - 0.5 * std::pow(0.96, 0.004)), mu2 = 0.9 * (1 - 0.5 * std::pow(0.96, 0.008));
  const double denominator = 3.0;  // sqrt(v̂)
  const double step = 0.5 * (1 - mu1) / (1 - mu1) * 3 / denominator + 0.5 * mu2 / (1 - mu1 * mu2) * 0.3 / denominator;
  EXPECT_NEAR(e.weight, 0.95 - step, 1e-6);
}

TEST(NAdam, factors_follow_from_the_step_alone) {
  const model::TrainConfig config = one_token_config(model::OptimizerKind::nadam);
  Optimizer steady(config);
  UpdateFactors last;
  for (std::uint64_t t = 1; t <= 40; ++t) last = steady.factors(Step(t), 1.0);
  Optimizer resumed(config);
  const UpdateFactors same = resumed.factors(Step(40), 1.0);
  EXPECT_EQ(last.gradient_step, same.gradient_step);
  EXPECT_EQ(last.moment_step, same.moment_step);
  Optimizer fresh(config);
  EXPECT_EQ(steady.factors(Step(3), 1.0).moment_step, fresh.factors(Step(3), 1.0).moment_step) << "also after going back";
}

TEST(Optimizer, treats_every_place_in_a_tensor_alike) {
  Optimizer optimizer(one_token_config(model::OptimizerKind::nadam));
  const UpdateFactors factors = optimizer.factors(Step(3), 2.0);
  base::Prng prng(5);
  for (int round = 0; round < 200; ++round) {
    const Element one{static_cast<std::int64_t>(prng.next() >> 16) - (std::int64_t{1} << 47), static_cast<float>(prng.unit()),
                      static_cast<float>(prng.unit() - 0.5), static_cast<float>(prng.unit())};
    constexpr std::size_t kCount = 67;  // a vector body and a tail at every width
    const std::vector<std::int64_t> sums(kCount, one.sum);
    std::vector<float> weight(kCount, one.weight), moment(kCount, one.moment), second(kCount, one.second);
    Optimizer::update(factors, {kCount, sums.data(), weight.data(), moment.data(), second.data(), true});
    Element alone = one;
    update(optimizer, 3, 2.0, true, alone);
    EXPECT_EQ(weight, std::vector<float>(kCount, alone.weight));
    EXPECT_EQ(moment, std::vector<float>(kCount, alone.moment));
    EXPECT_EQ(second, std::vector<float>(kCount, alone.second));
  }
}

}  // namespace
}  // namespace stagecoach::compute
