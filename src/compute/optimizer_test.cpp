// Claims: the first updates are the hand-computed ones; clipping is torch's; NAdam's product of momenta follows from the step alone;
// an element's update does not depend on where in a tensor it stands, nor on the pieces the tensor is given in; bfloat16 state is
// the float32 update of the same numbers, rounded: moments to the nearest, weights stochastically, without bias.
#include "compute/optimizer.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "base/prng.h"
#include "compute/float_bits.h"

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

StatePiece piece_of(std::int64_t count, const std::int64_t* sums, float* weight, float* moment, float* second) {
  StatePiece piece;
  piece.count = count;
  piece.sums = sums;
  piece.weight = weight;
  piece.moment = moment;
  piece.second_moment = second;
  return piece;
}

void update(Optimizer& optimizer, std::uint64_t step, double norm, bool decayed, Element& e) {
  StatePiece piece = piece_of(1, &e.sum, &e.weight, &e.moment, &e.second);
  piece.decayed = decayed;
  Optimizer::update(optimizer.factors(Step(step), norm), piece);
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
    Optimizer::update(factors, piece_of(kCount, sums.data(), weight.data(), moment.data(), second.data()));
    Element alone = one;
    update(optimizer, 3, 2.0, true, alone);
    EXPECT_EQ(weight, std::vector<float>(kCount, alone.weight));
    EXPECT_EQ(moment, std::vector<float>(kCount, alone.moment));
    EXPECT_EQ(second, std::vector<float>(kCount, alone.second));
  }
}

TEST(Optimizer, mean_gradient_of_float_sums_has_no_fixed_point) {
  model::TrainConfig config;
  config.batch.sequences = 2;
  config.batch.tokens = 96;
  config.batch.microbatches = 5;
  config.numbers.sums = model::SumKind::bfloat16;
  EXPECT_DOUBLE_EQ(Optimizer(config).mean_gradient_unit(), 256.0 / 960.0);
}

TEST(Optimizer, float_sums_give_the_update_of_the_same_integers) {
  model::TrainConfig config = one_token_config(model::OptimizerKind::adamw);
  Optimizer fixed(config);
  config.numbers.sums = model::SumKind::float32;
  Optimizer floats(config);
  const std::vector<float> sums = {3.0f, -0.25f, 0x1p-20f, 0.0f};
  for (const float sum : sums) {
    Element a{static_cast<std::int64_t>(static_cast<double>(sum) * 0x1p44), 1.0f, 0.5f, 0.25f}, b = a, c = a;
    update(fixed, 2, 0.5, true, a);
    StatePiece piece = piece_of(1, nullptr, &b.weight, &b.moment, &b.second);
    piece.sums = &sum;
    piece.sum_kind = model::SumKind::float32;
    Optimizer::update(floats.factors(Step(2), 0.5), piece);
    const std::uint16_t narrow = nearest(sum);
    piece = piece_of(1, nullptr, &c.weight, &c.moment, &c.second);
    piece.sums = &narrow;
    piece.sum_kind = model::SumKind::bfloat16;
    Optimizer::update(floats.factors(Step(2), 0.5), piece);
    for (const Element& one : {b, c}) {
      EXPECT_EQ(one.weight, a.weight);
      EXPECT_EQ(one.moment, a.moment);
      EXPECT_EQ(one.second, a.second);
    }
  }
}

/// A tensor of `count` elements in float32 and, rounded, in bfloat16.
struct BothStates {
  explicit BothStates(std::size_t count) : sums(count), weight(count), moment(count), second(count), copy(count) {
    base::Prng prng(11);
    for (std::size_t i = 0; i < count; ++i) {
      sums[i] = static_cast<std::int64_t>(prng.next() >> 18) - (std::int64_t{1} << 45);
      for (auto* values : {&weight, &moment}) (*values)[i] = widen(nearest(static_cast<float>(prng.unit() - 0.5)));
      second[i] = widen(nearest(static_cast<float>(prng.unit())));
    }
    for (const float x : weight) narrow_weight.push_back(nearest(x));
    for (const float x : moment) narrow_moment.push_back(nearest(x));
    for (const float x : second) narrow_second.push_back(nearest(x));
  }
  StatePiece wide() { return piece_of(static_cast<std::int64_t>(sums.size()), sums.data(), weight.data(), moment.data(), second.data()); }
  StatePiece narrow(std::int64_t first, std::int64_t count) {
    StatePiece piece;
    piece.first = first;
    piece.count = count;
    piece.sums = sums.data() + first;
    piece.state_kind = model::FloatKind::bfloat16;
    piece.weight = narrow_weight.data() + first;
    piece.moment = narrow_moment.data() + first;
    piece.second_moment = narrow_second.data() + first;
    piece.noise = noise_key(42, base::TensorIndex(7), Step(3));
    return piece;
  }
  std::vector<std::int64_t> sums;
  std::vector<float> weight, moment, second;
  std::vector<std::uint16_t> copy, narrow_weight, narrow_moment, narrow_second;
};

TEST(BfloatState, is_the_float_update_rounded) {
  for (const auto kind : {model::OptimizerKind::adamw, model::OptimizerKind::nadam}) {
    constexpr std::size_t kCount = 1'003;
    BothStates both(kCount);
    Optimizer optimizer(one_token_config(kind));
    const UpdateFactors factors = optimizer.factors(Step(3), 2.0);
    StatePiece wide = both.wide();
    wide.copy = both.copy.data();
    Optimizer::update(factors, both.narrow(0, kCount));
    Optimizer::update(factors, wide);
    const NoiseKey key = noise_key(42, base::TensorIndex(7), Step(3));
    std::size_t up = 0;
    for (std::size_t i = 0; i < kCount; ++i) {
      EXPECT_EQ(both.narrow_moment[i], nearest(both.moment[i]));
      EXPECT_EQ(both.narrow_second[i], nearest(both.second[i]));
      EXPECT_EQ(both.copy[i], nearest(both.weight[i])) << "a float32 weight's copy is its nearest bfloat16";
      EXPECT_EQ(both.narrow_weight[i], stochastic(both.weight[i], noise(key, static_cast<std::uint32_t>(i))));
      up += both.narrow_weight[i] != both.copy[i] ? 1 : 0;
    }
    EXPECT_GT(up, kCount / 10) << "not all went to the nearest";
  }
}

TEST(BfloatState, does_not_depend_on_pieces) {
  BothStates whole(777), cut(777);
  Optimizer optimizer(one_token_config(model::OptimizerKind::adamw));
  const UpdateFactors factors = optimizer.factors(Step(3), 2.0);
  Optimizer::update(factors, whole.narrow(0, 777));
  for (const auto& [first, count] : {std::pair{500, 277}, {0, 1}, {1, 499}}) Optimizer::update(factors, cut.narrow(first, count));
  EXPECT_EQ(whole.narrow_weight, cut.narrow_weight);
  EXPECT_EQ(whole.narrow_moment, cut.narrow_moment);
}

TEST(StochasticRounding, goes_to_a_neighbour_and_is_right_on_average) {
  const float below = 1.0f, step = 0x1p-7f;  // of bfloat16 near 1
  for (const float part : {0.1f, 0.5f, 0.9f}) {
    const float value = below + part * step;
    double sum = 0;
    constexpr int kTimes = 100'000;
    for (int i = 0; i < kTimes; ++i) {
      const float rounded = widen(stochastic(value, noise(noise_key(1, base::TensorIndex(2), Step(static_cast<std::uint64_t>(i))), 9)));
      ASSERT_TRUE(rounded == below || rounded == below + step);
      sum += rounded;
    }
    // Five standard deviations of a mean of kTimes coin throws.
    EXPECT_NEAR(sum / kTimes, value, 5 * step * std::sqrt(part * (1 - part) / kTimes));
  }
  for (const float exact : {0.0f, 1.0f, -3.5f}) EXPECT_EQ(widen(stochastic(exact, 0xffff)), exact) << "what is a bfloat16 stays";
}

TEST(StochasticRounding, noise_is_even_over_elements_tensors_and_steps) {
  // 2^16 draws in 256 bins: a chi-square of 255 degrees of freedom is below 380 with probability 1 − 1e-6.
  const auto chi_square = [](auto&& draw) {
    std::vector<double> bins(256);
    for (std::uint32_t i = 0; i < 1u << 16; ++i) bins[draw(i) >> 8] += 1;
    double total = 0;
    for (const double bin : bins) total += (bin - 256) * (bin - 256) / 256;
    return total;
  };
  const NoiseKey key = noise_key(42, base::TensorIndex(3), Step(5));
  EXPECT_LT(chi_square([&](std::uint32_t i) { return noise(key, i); }), 380);
  EXPECT_LT(chi_square([](std::uint32_t i) { return noise(noise_key(42, base::TensorIndex(3), Step(i)), 5); }), 380);
  EXPECT_LT(chi_square([](std::uint32_t i) { return noise(noise_key(42, base::TensorIndex(i), Step(5)), 5); }), 380);
  // Neighbours and steps are not alike: the mean product of centred draws is within 6 deviations of zero.
  double neighbours = 0, steps = 0;
  const NoiseKey next = noise_key(42, base::TensorIndex(3), Step(6));
  for (std::uint32_t i = 0; i < 1u << 16; ++i) {
    const auto centred = [](std::uint32_t x) { return static_cast<double>(x) / 65'536 - 0.5; };
    neighbours += centred(noise(key, i)) * centred(noise(key, i + 1));
    steps += centred(noise(key, i)) * centred(noise(next, i));
  }
  EXPECT_LT(std::fabs(neighbours), 6 * 256 / 12.0);
  EXPECT_LT(std::fabs(steps), 6 * 256 / 12.0);
  EXPECT_NE(noise_key_at(key, std::int64_t{1} << 32).high, key.high) << "elements beyond 2^32 do not repeat the first";
}

}  // namespace
}  // namespace stagecoach::compute
