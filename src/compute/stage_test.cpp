// Claims: a stage refuses what is wrong with a code the caller can act on and is left as it was; sums belong to one (step, attempt);
// versions come and go as the mode needs; a state read back goes on to the same bits; the default loss is that of a guess at first.
#include <limits>

#include "compute/test_stages.h"

namespace stagecoach::compute {
namespace {

using base::Attempt;
using base::ErrorCode;
using base::Payload;
using base::Step;
using base::WeightVersion;

base::Bytes sum_of(Stage& stage, std::uint64_t step, std::uint64_t attempt) {
  return *value(stage.read_sum(Step(step), Attempt(attempt), {0, stage.elements()}));
}

/// One microbatch of training on an unsplit stage; returns its loss.
double train_one(Stage& stage, const model::TrainConfig& config, std::uint64_t step, std::uint64_t attempt, std::uint64_t seed) {
  return value(stage.backward(stage.version(), {Step(step), Attempt(attempt), {}}, {random_tokens(config, seed), nullptr}, nullptr)).loss_sum;
}

void close(Stage& stage, std::uint64_t step, std::uint64_t attempt) {
  const ElementRange all{0, stage.elements()};
  expect_ok(stage.write_reduced(Step(step), Attempt(attempt), all, value(stage.read_sum(Step(step), Attempt(attempt), all))));
  double squares = 0;
  for (const TensorNorm& norm : value(stage.norms(Step(step), Attempt(attempt)))) squares += norm.sum_of_squares;
  expect_ok(stage.apply(Step(step), Attempt(attempt), std::sqrt(squares)));
}

std::vector<base::Bytes> bytes_of(Stage& stage) {
  std::vector<base::Bytes> out;
  for (const base::NamedTensor& one : value(stage.export_state())) out.push_back(*one.tensor.bytes);
  return out;
}

class StageTest : public testing::Test {
 protected:
  Stage& middle() { return *four.stages[1]; }
  std::size_t boundary_elements() const {
    return static_cast<std::size_t>(config.batch.sequences * config.batch.tokens * config.model.cut_width);
  }
  Payload boundary(float first) const {
    std::vector<float> values(boundary_elements(), 0.25f);
    values[values.size() / 2] = first;
    return floats(values);
  }

  model::TrainConfig config = small_config();
  Fleet four = make_fleet(config, 4);
  Fleet whole = make_fleet(config, 1);
};

TEST_F(StageTest, a_group_of_one_comes_to_the_bits_of_one_that_moves_its_sums) {
  Fleet other = make_fleet(config, 1);
  for (Stage* stage : {whole.stages[0].get(), other.stages[0].get()}) train_one(*stage, config, 1, 1, 5);
  Stage& alone = *whole.stages[0];
  EXPECT_EQ(code_of(alone.norms(Step(1), Attempt(1))), ErrorCode::invalid_argument);
  expect_ok(alone.reduce_alone(Step(1), Attempt(1)));
  double squares = 0;
  for (const TensorNorm& norm : value(alone.norms(Step(1), Attempt(1)))) squares += norm.sum_of_squares;
  expect_ok(alone.apply(Step(1), Attempt(1), std::sqrt(squares)));
  close(*other.stages[0], 1, 1);
  EXPECT_EQ(bytes_of(alone), bytes_of(*other.stages[0]));
}

TEST_F(StageTest, starts_with_the_loss_of_a_guess) {
  const double loss = value(whole.stages[0]->evaluate(WeightVersion(0), {random_tokens(config, 1), nullptr}));
  EXPECT_NEAR(loss / (3 * 17), std::log(61.0), 0.05) << "weights of 0.02 give nearly equal logits";
}

TEST_F(StageTest, evaluates_to_the_loss_that_backward_reports) {
  const StageInput input{random_tokens(config, 1), nullptr};
  const double loss = value(whole.stages[0]->evaluate(WeightVersion(0), input));
  EXPECT_EQ(value(whole.stages[0]->backward(WeightVersion(0), {Step(1), Attempt(1), {}}, input, nullptr)).loss_sum, loss);
}

TEST_F(StageTest, has_seeded_starts_that_differ_by_tensor_and_seed) {
  const auto state = value(whole.stages[0]->export_state());
  double sum = 0, squares = 0;
  const auto count = static_cast<std::size_t>(config.model.vocab * config.model.dim);
  std::vector<float> embedding(count);
  std::memcpy(embedding.data(), state.front().tensor.bytes->data(), count * sizeof(float));
  for (const float x : embedding) sum += x, squares += static_cast<double>(x) * x;
  EXPECT_NEAR(sum / static_cast<double>(count), 0, 4 * 0.02 / std::sqrt(static_cast<double>(count)));
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(count)), 0.02, 0.001);
  EXPECT_NE(*state[2].tensor.bytes, *state[5].tensor.bytes) << "wq and wo have one shape and two seeds";
  config.model.seed = 43;
  EXPECT_NE(*value(make_fleet(config, 1).stages[0]->export_state()).front().tensor.bytes, *state.front().tensor.bytes);
}

TEST_F(StageTest, refuses_payloads_of_the_wrong_size) {
  const Payload tokens = random_tokens(config, 1);
  EXPECT_EQ(code_of(middle().forward(WeightVersion(0), {nullptr, nullptr})), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(middle().forward(WeightVersion(0), {nullptr, tokens})), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(middle().backward(WeightVersion(0), {Step(1), Attempt(1), {}}, {nullptr, boundary(1)}, nullptr)),
            ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(four.stages[0]->forward(WeightVersion(0), {nullptr, nullptr})), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(four.stages[0]->forward(WeightVersion(0), {tokens, boundary(1)})), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(four.stages[3]->forward(WeightVersion(0), {tokens, boundary(1)})), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(four.stages[0]->evaluate(WeightVersion(0), {tokens, nullptr})), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(middle().forward(WeightVersion(1), {nullptr, boundary(1)})), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(middle().read_sum(Step(1), Attempt(1), {-1, 3})), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(middle().read_sum(Step(1), Attempt(1), {4, 3})), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(middle().read_sum(Step(1), Attempt(1), {0, middle().elements() + 1})), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(middle().write_reduced(Step(1), Attempt(1), {0, 2}, floats({1, 2}))), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(middle().norms(Step(1), Attempt(1))), ErrorCode::invalid_argument);
}

TEST_F(StageTest, refuses_tokens_outside_the_vocabulary) {
  base::Bytes bytes = *random_tokens(config, 1);
  for (const std::int32_t bad : {-1, 61, std::numeric_limits<std::int32_t>::max()}) {
    std::memcpy(bytes.data() + 40, &bad, 4);
    EXPECT_EQ(code_of(whole.stages[0]->evaluate(WeightVersion(0), {base::make_payload(bytes), nullptr})), ErrorCode::invalid_argument);
  }
}

TEST_F(StageTest, refuses_nan_and_infinity_and_accumulates_nothing) {
  const Payload good = boundary(1);
  value(middle().backward(WeightVersion(0), {Step(1), Attempt(1), {}}, {nullptr, good}, good));
  const base::Bytes before = sum_of(middle(), 1, 1);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(code_of(middle().forward(WeightVersion(0), {nullptr, boundary(bad)})), ErrorCode::not_finite);
    EXPECT_EQ(code_of(middle().backward(WeightVersion(0), {Step(1), Attempt(1), {}}, {nullptr, boundary(bad)}, good)), ErrorCode::not_finite);
    EXPECT_EQ(code_of(middle().backward(WeightVersion(0), {Step(1), Attempt(1), {}}, {nullptr, good}, boundary(bad))), ErrorCode::not_finite);
  }
  EXPECT_EQ(sum_of(middle(), 1, 1), before);
}

TEST_F(StageTest, refuses_gradients_beyond_fixed64_and_accumulates_nothing) {
  const Payload good = boundary(1);
  value(middle().backward(WeightVersion(0), {Step(1), Attempt(1), {}}, {nullptr, good}, good));
  const base::Bytes before = sum_of(middle(), 1, 1);
  EXPECT_EQ(code_of(middle().backward(WeightVersion(0), {Step(1), Attempt(1), {}}, {nullptr, good}, boundary(1e9f))), ErrorCode::out_of_range);
  EXPECT_EQ(sum_of(middle(), 1, 1), before);
}

TEST_F(StageTest, keeps_sums_apart_by_step_and_attempt) {
  Stage& stage = *whole.stages[0];
  const base::Bytes zeros(static_cast<std::size_t>(stage.elements()) * 8);
  train_one(stage, config, 1, 1, 5);
  const base::Bytes first = sum_of(stage, 1, 1);
  EXPECT_NE(first, zeros);
  EXPECT_EQ(sum_of(stage, 1, 2), zeros);
  EXPECT_EQ(sum_of(stage, 2, 1), zeros);
  train_one(stage, config, 1, 2, 5);
  EXPECT_EQ(sum_of(stage, 1, 2), first);
  stage.void_attempts_before(Attempt(2));
  EXPECT_EQ(sum_of(stage, 1, 1), zeros);
  EXPECT_EQ(sum_of(stage, 1, 2), first);
}

TEST_F(StageTest, a_voided_attempt_leaves_no_trace) {
  Fleet undisturbed = make_fleet(config, 1);
  train_one(*undisturbed.stages[0], config, 1, 1, 5);
  close(*undisturbed.stages[0], 1, 1);
  Stage& stage = *whole.stages[0];
  train_one(stage, config, 1, 1, 9);
  train_one(stage, config, 1, 1, 5);
  stage.void_attempts_before(Attempt(4));
  train_one(stage, config, 1, 4, 5);
  close(stage, 1, 4);
  EXPECT_EQ(bytes_of(stage), bytes_of(*undisturbed.stages[0]));
}

TEST_F(StageTest, applies_steps_in_order_and_once) {
  Stage& stage = *whole.stages[0];
  train_one(stage, config, 1, 1, 5);
  const auto before = bytes_of(stage);
  EXPECT_EQ(code_of(stage.apply(Step(1), Attempt(1), 1.0)), ErrorCode::invalid_argument) << "nothing is reduced yet";
  const ElementRange half{0, stage.elements() / 2};
  expect_ok(stage.write_reduced(Step(1), Attempt(1), half, value(stage.read_sum(Step(1), Attempt(1), half))));
  EXPECT_EQ(code_of(stage.apply(Step(1), Attempt(1), 1.0)), ErrorCode::invalid_argument) << "half is not all";
  EXPECT_EQ(code_of(stage.apply(Step(2), Attempt(1), 1.0)), ErrorCode::invalid_argument) << "version 1 comes first";
  EXPECT_EQ(code_of(stage.apply(Step(1), Attempt(1), std::nan(""))), ErrorCode::not_finite);
  EXPECT_EQ(bytes_of(stage), before);
  close(stage, 1, 1);
  EXPECT_EQ(stage.version(), WeightVersion(1));
  EXPECT_NE(bytes_of(stage), before);
  EXPECT_EQ(code_of(stage.apply(Step(1), Attempt(1), 1.0)), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(stage.evaluate(WeightVersion(0), {random_tokens(config, 1), nullptr})), ErrorCode::invalid_argument)
      << "one version is kept";
}

TEST_F(StageTest, apply_nothing_only_counts) {
  Stage& stage = *whole.stages[0];
  const auto before = bytes_of(stage);
  EXPECT_EQ(code_of(stage.apply_nothing(Step(2))), ErrorCode::invalid_argument);
  expect_ok(stage.apply_nothing(Step(1)));
  EXPECT_EQ(stage.version(), WeightVersion(1));
  EXPECT_EQ(bytes_of(stage), before);
}

TEST_F(StageTest, keeps_the_version_before_where_asked) {
  Fleet fleet = make_fleet(config, 1, 2);
  Stage& kept = *fleet.stages[0];
  Stage& single = *whole.stages[0];
  const StageInput input{random_tokens(config, 77), nullptr};
  std::vector<double> losses = {value(kept.evaluate(WeightVersion(0), input))};
  for (std::uint64_t step = 1; step <= 3; ++step) {
    EXPECT_EQ(train_one(kept, config, step, 1, step), train_one(single, config, step, 1, step));
    close(kept, step, 1);
    close(single, step, 1);
    losses.push_back(value(kept.evaluate(WeightVersion(step), input)));
    EXPECT_EQ(losses[step], value(single.evaluate(WeightVersion(step), input)));
    EXPECT_EQ(losses[step - 1], value(kept.evaluate(WeightVersion(step - 1), input))) << "the version before is untouched";
    if (step == 1) continue;
    EXPECT_EQ(code_of(kept.evaluate(WeightVersion(step - 2), input)), ErrorCode::invalid_argument) << "two are kept";
  }
  EXPECT_EQ(bytes_of(kept), bytes_of(single));
}

TEST_F(StageTest, a_state_read_back_goes_on_to_the_same_bits_in_another_split) {
  config.optimizer.kind = model::OptimizerKind::nadam;
  Fleet one = make_fleet(config, 1), other = make_fleet(config, 1);
  for (std::uint64_t step = 1; step <= 2; ++step) {
    train_one(*one.stages[0], config, step, 1, step);
    close(*one.stages[0], step, 1);
  }
  const auto state = value(one.stages[0]->export_state());
  expect_ok(other.stages[0]->import_state(WeightVersion(2), state));
  EXPECT_EQ(other.stages[0]->version(), WeightVersion(2));
  for (Fleet* fleet : {&one, &other}) {
    train_one(*fleet->stages[0], config, 3, 1, 3);
    close(*fleet->stages[0], 3, 1);
  }
  EXPECT_EQ(bytes_of(*one.stages[0]), bytes_of(*other.stages[0]));
  expect_ok(middle().import_state(WeightVersion(2), state));
  std::size_t found = 0;
  for (const base::NamedTensor& mine : value(middle().export_state())) {
    for (const base::NamedTensor& theirs : state) {
      if (mine.name == theirs.name) found += *mine.tensor.bytes == *theirs.tensor.bytes ? 1 : 0;
    }
  }
  EXPECT_EQ(found, 3u * 11) << "a middle stage took its 11 tensors and their moments out of the whole";
}

TEST_F(StageTest, refuses_a_state_that_lacks_or_bends_a_tensor_and_changes_nothing) {
  Stage& stage = middle();
  const auto before = bytes_of(stage);
  const auto state = value(stage.export_state());
  auto lacking = state;
  lacking.pop_back();
  EXPECT_EQ(code_of(stage.import_state(WeightVersion(3), lacking)), ErrorCode::not_found);
  auto bent = state;
  bent[1].tensor.shape = {1, 48 * 48};
  EXPECT_EQ(code_of(stage.import_state(WeightVersion(3), bent)), ErrorCode::mismatch);
  auto short_bytes = state;
  short_bytes[1].tensor.bytes = base::make_payload(base::Bytes(8));
  EXPECT_EQ(code_of(stage.import_state(WeightVersion(3), short_bytes)), ErrorCode::mismatch);
  auto broken = state;
  broken[0].tensor.bytes = floats(std::vector<float>(48, std::numeric_limits<float>::quiet_NaN()));
  EXPECT_EQ(code_of(stage.import_state(WeightVersion(3), broken)), ErrorCode::not_finite);
  EXPECT_EQ(bytes_of(stage), before);
  EXPECT_EQ(stage.version(), WeightVersion(0));
}

TEST_F(StageTest, library_refuses_what_cannot_be_a_stage) {
  const auto code = [&](auto&& change) {
    StageOptions options;
    options.config = config;
    options.range = {0, 4};
    change(options);
    return code_of(library().make_stage(options));
  };
  EXPECT_EQ(code([](StageOptions& o) { o.range = {1, 1}; }), ErrorCode::invalid_argument);
  EXPECT_EQ(code([](StageOptions& o) { o.range = {3, 5}; }), ErrorCode::invalid_argument);
  EXPECT_EQ(code([](StageOptions& o) { o.config.model.dim = 47; }), ErrorCode::invalid_argument);
  EXPECT_EQ(code([](StageOptions& o) { o.versions_kept = 3; }), ErrorCode::invalid_argument);
  EXPECT_EQ(code([](StageOptions& o) { o.device = "tpu"; }), ErrorCode::invalid_argument);
  EXPECT_EQ(code([](StageOptions& o) {
              o.config.model.cut_after = {1};
              o.range = {0, 3};
            }),
            ErrorCode::invalid_argument)
      << "an edge that is not on a cut";
}

TEST_F(StageTest, names_what_must_be_equal_for_equal_bits) {
  EXPECT_NE(middle().numerics_class().find("threads 1 float32"), std::string::npos);
  EXPECT_NE(middle().numerics_class().find("torch "), std::string::npos);
}

TEST(OpenLibrary, says_what_is_wrong_with_a_path) {
  EXPECT_EQ(code_of(open_library("/nowhere/libstagecoach_compute.so")), ErrorCode::not_found);
  EXPECT_EQ(code_of(open_library("/proc/self/status")), ErrorCode::io_error);
  EXPECT_EQ(value(open_library(COMPUTE_LIBRARY)), value(open_library(COMPUTE_LIBRARY))) << "one library a process";
}

}  // namespace
}  // namespace stagecoach::compute
