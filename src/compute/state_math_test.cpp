// Claim: the loops over memory and torch's operators are one arithmetic: fixed64 sums and stochastic noise equal in every bit, all
// else within the rounding of a few fp32 operations, for every kind of sums and state, across chunks and threads.
#include "compute/state_math.h"

#include <cmath>

#include <gtest/gtest.h>

#include "compute/device.h"

namespace stagecoach::compute {
namespace {

using base::Step;
using model::FloatKind;
using model::OptimizerKind;
using model::SumKind;

constexpr std::int64_t kCount = 70'001;  // more than one piece, and a tail

at::Tensor drawn(std::uint64_t seed, double size) {
  return at::randn({kCount}, at::make_generator<at::CPUGeneratorImpl>(seed)) * size;
}

struct Case {
  OptimizerKind optimizer;
  SumKind sums;
  FloatKind state;
  bool copied = false;
};

TensorState state_of(const Case& one) {
  TensorState state;
  const at::Tensor gradient = drawn(1, 0.02);
  state.sums = one.sums == SumKind::fixed64 ? (gradient.to(at::kDouble) * 0x1p44).round().to(at::kLong) : gradient.to(scalar_type(one.sums));
  state.weight = drawn(2, 0.5).to(scalar_type(one.state));
  if (one.copied) state.copy = at::empty({kCount}, at::kBFloat16);
  state.moment = drawn(3, 0.02).to(scalar_type(one.state));
  if (one.optimizer != OptimizerKind::muon) state.second_moment = drawn(4, 0.02).square().to(scalar_type(one.state));
  state.noise = noise_key(1, base::TensorIndex(2), Step(3));
  return state;
}

UpdateFactors factors_of(const Case& one) {
  model::TrainConfig config;
  config.optimizer.kind = one.optimizer;
  config.numbers.sums = one.sums;
  config.batch.sequences = config.batch.tokens = config.batch.microbatches = 1;
  return Optimizer(config).factors(Step(3), 2.0);
}

/// Holds that two tensors differ by at most `tolerance` in units of the larger one of the two, or of `least`; where they do not, names
/// the element.
void expect_close(const char* what, const at::Tensor& host, const at::Tensor& device, double least, double tolerance) {
  const at::Tensor x = host.to(at::kDouble), y = device.to(at::kDouble);
  const at::Tensor difference = (x - y).abs() / at::maximum(x.abs(), y.abs()).clamp_min(least);
  const std::int64_t worst = difference.argmax().item<std::int64_t>();
  EXPECT_LE(difference[worst].item<double>(), tolerance)
      << what << '[' << worst << "]: " << std::hexfloat << x[worst].item<double>() << " by the loops, " << y[worst].item<double>()
      << " by torch; " << at::gt(difference, tolerance).sum().item<std::int64_t>() << " elements differ so much";
}

void step(const StateMath& math, const UpdateFactors& factors, const TensorState& state, at::Tensor* direction) {
  if (state.second_moment.defined()) return math.update(factors, state);
  *direction = math.muon_momentum(factors, state);
  math.muon_weight(factors, state, 0.02f, *direction);
}

class Paths : public testing::TestWithParam<Case> {
 protected:
  Paths() { use_threads(2); }
};

TEST_P(Paths, differ_by_rounding_only) {
  const UpdateFactors factors = factors_of(GetParam());
  const TensorState host = state_of(GetParam()), device = state_of(GetParam());
  at::Tensor host_direction, device_direction;
  step(host_math(), factors, host, &host_direction);
  step(device_math(), factors, device, &device_direction);
  const bool narrow = GetParam().state == FloatKind::bfloat16;
  // One bfloat16 apart where a rounding fell the other way; a few fp32 roundings else. Cancellation near zero is not counted.
  const double tolerance = narrow ? 0x1p-7 : 1e-5;
  expect_close("weight", host.weight, device.weight, 1e-2, tolerance);
  expect_close("moment", host.moment, device.moment, 1e-3, tolerance);
  if (host.second_moment.defined()) {
    expect_close("second moment", host.second_moment, device.second_moment, 1e-6, tolerance);
  } else {
    expect_close("direction", host_direction, device_direction, 1e-3, 1e-5);
  }
  if (narrow) {
    const double equal = host.weight.eq(device.weight).to(at::kDouble).mean().item<double>();
    EXPECT_GT(equal, 0.999) << "the noise is the same: only a rounding at the very edge can differ";
  }
  if (host.copy.defined()) {
    EXPECT_TRUE(at::equal(host.copy, host.weight.to(at::kBFloat16)));
    EXPECT_TRUE(at::equal(device.copy, device.weight.to(at::kBFloat16)));
  }
  EXPECT_NEAR(host_math().sums_of_squares({host.sums}, 0.5)[0] / device_math().sums_of_squares({host.sums}, 0.5)[0], 1, 1e-12);
}

TEST_P(Paths, do_not_depend_on_threads) {
  const UpdateFactors factors = factors_of(GetParam());
  const TensorState one = state_of(GetParam()), two = state_of(GetParam());
  at::Tensor unused;
  use_threads(1);
  step(host_math(), factors, one, &unused);
  const at::Tensor part = one.sums.narrow(0, 0, 100);
  const std::vector<double> squares = host_math().sums_of_squares({one.sums, part}, 0.5);
  use_threads(2);
  step(host_math(), factors, two, &unused);
  EXPECT_EQ(host_math().sums_of_squares({two.sums, part}, 0.5), squares);
  EXPECT_TRUE(at::equal(one.weight, two.weight));
  EXPECT_TRUE(at::equal(one.moment, two.moment));
}

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const OptimizerKind optimizer : {OptimizerKind::adamw, OptimizerKind::nadam, OptimizerKind::muon}) {
    for (const SumKind sums : {SumKind::fixed64, SumKind::float32, SumKind::bfloat16}) {
      out.push_back({optimizer, sums, FloatKind::float32});
      out.push_back({optimizer, sums, FloatKind::float32, true});
      out.push_back({optimizer, sums, FloatKind::bfloat16});
    }
  }
  return out;
}

INSTANTIATE_TEST_SUITE_P(Kinds, Paths, testing::ValuesIn(cases()));

TEST(StateMath, add_alike) {
  for (const at::ScalarType gradient_type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor gradient = drawn(5, 1).to(gradient_type);
    const at::Tensor a = at::full({kCount}, 3, at::kLong), b = a.clone();
    EXPECT_TRUE(host_math().add_gradient(gradient, 0x1p36, a));
    EXPECT_TRUE(device_math().add_gradient(gradient, 0x1p36, b));
    EXPECT_TRUE(at::equal(a, b));
    host_math().subtract_gradient(gradient, 0x1p36, a);
    device_math().subtract_gradient(gradient, 0x1p36, b);
    EXPECT_TRUE(at::equal(a, at::full({kCount}, 3, at::kLong)));
    EXPECT_TRUE(at::equal(b, a));
    for (const SumKind kind : {SumKind::float32, SumKind::bfloat16}) {
      // A power of two as the scale: whether a device fuses the multiplication makes no difference.
      const at::Tensor c = drawn(6, 1).to(scalar_type(kind)), d = c.clone();
      EXPECT_TRUE(host_math().add_gradient(gradient, 0x1p-8, c));
      EXPECT_TRUE(device_math().add_gradient(gradient, 0x1p-8, d));
      EXPECT_TRUE(at::equal(c, d));
    }
  }
}

TEST(StateMath, refuse_alike) {
  for (const StateMath* math : {&host_math(), &device_math()}) {
    for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
      const at::Tensor gradient = drawn(5, 1);
      gradient[kCount - 3] = bad;
      for (const SumKind kind : {SumKind::fixed64, SumKind::float32, SumKind::bfloat16}) {
        EXPECT_FALSE(math->add_gradient(gradient, 1, at::zeros({kCount}, scalar_type(kind))));
      }
    }
    EXPECT_FALSE(math->add_gradient(at::full({1}, 128.0f), 0x1p44, at::zeros({1}, at::kLong)));
    EXPECT_TRUE(math->add_gradient(at::full({1}, std::nextafter(128.0f, 0.0f)), 0x1p44, at::zeros({1}, at::kLong)));
  }
}

}  // namespace
}  // namespace stagecoach::compute
