// Claim: the unsplit model, two stages and four stages are one model: losses, boundary tensors' gradients, gradient sums and final
// weights are equal in every bit, in fp32 and bf16, without cuts and with bottlenecks, whatever the order of microbatches and the
// thread that works, and whether a backward takes what its forward kept or runs it again.
#include <algorithm>
#include <map>
#include <memory>
#include <thread>

#include <gtest/gtest.h>

#include "compute/test_stages.h"

namespace stagecoach::compute {
namespace {

using base::Attempt;
using base::Payload;
using base::Step;
using base::WeightVersion;

struct Trace {
  std::vector<double> losses;                 // by step and microbatch, then the evaluations
  std::map<std::string, base::Bytes> state;   // final weights and moments by name
  std::map<std::string, base::Bytes> sums;    // gradient sums of every step, by step and tensor
  std::map<std::string, base::Bytes> boundaries;  // z and dz after each layer that had an edge there
};

/// Sends one microbatch up and down the stages; returns the loss.
double run_microbatch(Fleet& fleet, const MicrobatchName& name, const Payload& tokens, const std::string& label, Trace& trace) {
  std::vector<StageInput> inputs;
  StageInput input{tokens, nullptr};
  for (std::size_t i = 0; i + 1 < fleet.stages.size(); ++i) {
    inputs.push_back(input);
    input.boundary = value(fleet.stages[i]->forward(fleet.stages[i]->version(), input, name));
    trace.boundaries[label + " z " + std::to_string(fleet.split[i].last)] = *input.boundary;
  }
  inputs.push_back(input);
  Payload gradient;
  double loss = 0;
  for (std::size_t i = fleet.stages.size(); i-- > 0;) {
    const BackwardOutput output = value(fleet.stages[i]->backward(fleet.stages[i]->version(), name, inputs[i], gradient));
    if (i + 1 == fleet.stages.size()) loss = output.loss_sum;
    gradient = output.input_gradient;
    if (gradient) trace.boundaries[label + " dz " + std::to_string(fleet.split[i].first)] = *gradient;
  }
  return loss;
}

/// Closes a step: every stage's sum is its group's (one replica), written back in two slices; norms are added in tensor order.
void close_step(Fleet& fleet, Step step, Attempt attempt, Trace& trace) {
  double squares = 0;
  for (std::size_t s = 0; s < fleet.stages.size(); ++s) {
    Stage& stage = *fleet.stages[s];
    const std::int64_t middle = stage.elements() / 3;
    for (const ElementRange range : {ElementRange{middle, stage.elements()}, ElementRange{0, middle}}) {
      expect_ok(stage.write_reduced(step, attempt, range, value(stage.read_sum(step, attempt, range))));
    }
    std::int64_t at = 0;
    for (const model::ParameterInfo& info : model::parameters(fleet.config.model, fleet.split[s])) {
      trace.sums[std::to_string(step.value()) + info.name] =
          *value(stage.read_sum(step, attempt, {at, at + info.elements()}));
      at += info.elements();
    }
    for (const TensorNorm& norm : value(stage.norms(step, attempt))) squares += norm.sum_of_squares;
  }
  for (auto& stage : fleet.stages) expect_ok(stage->apply(step, attempt, std::sqrt(squares)));
}

enum class Order : std::uint8_t { as_planned, reversed };

Trace train(const model::TrainConfig& config, std::int64_t stages, Order order = Order::as_planned,
            Recompute recompute = Recompute::automatic) {
  Fleet fleet = make_fleet(config, stages, 1, recompute);
  Trace trace;
  for (std::uint64_t t = 1; t <= 4; ++t) {
    std::vector<double> losses(static_cast<std::size_t>(config.batch.microbatches));
    for (std::size_t i = 0; i < losses.size(); ++i) {
      const std::size_t m = order == Order::reversed ? losses.size() - 1 - i : i;
      const std::string label = std::to_string(t) + "." + std::to_string(m);
      losses[m] = run_microbatch(fleet, {Step(t), Attempt(t), base::MicrobatchIndex(static_cast<std::uint32_t>(m))},
                                 random_tokens(config, 100 * t + m), label, trace);
    }
    trace.losses.insert(trace.losses.end(), losses.begin(), losses.end());
    close_step(fleet, Step(t), Attempt(t), trace);
  }
  StageInput input{random_tokens(config, 7), nullptr};
  for (std::size_t i = 0; i + 1 < fleet.stages.size(); ++i) {
    input.boundary = value(fleet.stages[i]->forward(WeightVersion(4), input));
  }
  trace.losses.push_back(value(fleet.stages.back()->evaluate(WeightVersion(4), input)));
  for (auto& stage : fleet.stages) {
    for (const base::NamedTensor& one : value(stage->export_state())) trace.state[one.name] = *one.tensor.bytes;
  }
  return trace;
}

void expect_equal(const Trace& a, const Trace& b) {
  EXPECT_EQ(a.losses, b.losses);
  EXPECT_EQ(a.sums, b.sums);
  EXPECT_EQ(a.state, b.state);
  for (const auto& [label, bytes] : a.boundaries) {
    const auto other = b.boundaries.find(label);
    if (other != b.boundaries.end()) {
      EXPECT_EQ(bytes, other->second) << label;
    }
  }
}

class Splits : public testing::TestWithParam<model::TrainConfig> {};

TEST_P(Splits, are_equal_in_every_bit) {
  const Trace unsplit = train(GetParam(), 1);
  const Trace four = train(GetParam(), 4);
  expect_equal(unsplit, train(GetParam(), 2));
  expect_equal(unsplit, four);
  expect_equal(four, train(GetParam(), 2));
  EXPECT_EQ(four.boundaries.size(), 4u * 3 * 3 * 2) << "steps × microbatches × boundaries × directions were compared";
  EXPECT_LT(unsplit.losses[9], unsplit.losses[0]) << "it learns: the steps did something";
}

TEST_P(Splits, do_not_depend_on_the_order_of_microbatches) { expect_equal(train(GetParam(), 2), train(GetParam(), 4, Order::reversed)); }

TEST_P(Splits, do_not_depend_on_what_is_kept) {
  const Trace kept = train(GetParam(), 4, Order::as_planned, Recompute::never);
  expect_equal(kept, train(GetParam(), 4, Order::as_planned, Recompute::always));
  expect_equal(kept, train(GetParam(), 2, Order::reversed, Recompute::automatic));
}

model::TrainConfig kind(model::CutKind cut, model::OptimizerKind optimizer, std::int64_t tokens) {
  model::TrainConfig config = small_config();
  config.model.cut_kind = cut;
  config.optimizer.kind = optimizer;
  config.batch.tokens = tokens;
  return config;
}

model::TrainConfig in_bf16(model::TrainConfig config) {
  config.numbers.compute = model::FloatKind::bfloat16;
  return config;
}

INSTANTIATE_TEST_SUITE_P(Kinds, Splits,
                         testing::Values(kind(model::CutKind::none, model::OptimizerKind::adamw, 17),
                                         kind(model::CutKind::resbm, model::OptimizerKind::adamw, 17),
                                         kind(model::CutKind::resbm, model::OptimizerKind::nadam, 64),
                                         kind(model::CutKind::resbm_tokens, model::OptimizerKind::adamw, 17),
                                         kind(model::CutKind::resbm_tokens, model::OptimizerKind::nadam, 128),
                                         kind(model::CutKind::none, model::OptimizerKind::nadam, 128),
                                         in_bf16(kind(model::CutKind::none, model::OptimizerKind::adamw, 17)),
                                         in_bf16(kind(model::CutKind::resbm, model::OptimizerKind::adamw, 128)),
                                         in_bf16(kind(model::CutKind::resbm_tokens, model::OptimizerKind::muon, 64))));

TEST(TwoThreads, split_to_equal_bits_too) {
  model::TrainConfig config = small_config();
  config.threads = 2;
  expect_equal(train(config, 1), train(config, 4));
  expect_equal(train(in_bf16(config), 1), train(in_bf16(config), 4));
}

TEST(OtherThread, gives_the_bits_of_this_one) {
  const Trace here = train(small_config(), 2);
  Trace there;
  std::thread([&there] { there = train(small_config(), 2); }).join();
  expect_equal(here, there);
}

TEST(LaptopDefault, splits_are_equal_in_every_bit) {
  model::TrainConfig config;
  config.schedule.warmup_steps = 2;
  config.batch.microbatches = 2;
  expect_equal(train(config, 1), train(config, 4));
}

}  // namespace
}  // namespace stagecoach::compute
