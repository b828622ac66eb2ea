// Claims: with every optimizer, state and kind of sums, a stage's state is what config and stage.h say it is; a state read back goes
// on to the same bits; stages of a split make the bits of the whole; a state of another optimizer or number is refused and named;
// weights that are multiplied with are the state's, rounded.
#include <map>

#include "compute/float_bits.h"
#include "compute/test_stages.h"

namespace stagecoach::compute {
namespace {

using base::Attempt;
using base::ErrorCode;
using base::Step;
using base::WeightVersion;
using model::FloatKind;
using model::OptimizerKind;
using model::SumKind;

constexpr Attempt kAttempt(1);

struct Kind {
  OptimizerKind optimizer;
  FloatKind compute;
  FloatKind state;
  SumKind sums;
  FloatKind muon_float = FloatKind::float32;
};

model::TrainConfig config_of(const Kind& kind) {
  model::TrainConfig config = small_config();
  config.optimizer.kind = kind.optimizer;
  config.optimizer.muon_float = kind.muon_float;
  config.numbers = {kind.compute, kind.state, kind.sums};
  return config;
}

/// The group's sums of a step for the whole model, made up: no forward is needed to ask what a step does with them.
std::vector<float> made_up_sums(const model::TrainConfig& config, std::uint64_t step) {
  base::Prng prng(1'000 + step);
  std::vector<float> sums(static_cast<std::size_t>(model::total_elements(model::parameters(config.model))));
  for (float& sum : sums) sum = static_cast<float>(0.01 * (prng.unit() - 0.5));
  return sums;
}

base::Payload sums_payload(SumKind kind, const float* values, std::int64_t count) {
  base::Bytes bytes(static_cast<std::size_t>(count * model::bytes_of(kind)));
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t fixed = static_cast<std::int64_t>(static_cast<double>(values[i]) * 0x1p44);
    const std::uint16_t narrow = nearest(values[i]);
    const void* from = kind == SumKind::fixed64 ? static_cast<const void*>(&fixed) : kind == SumKind::float32 ? &values[i] : static_cast<const void*>(&narrow);
    std::memcpy(bytes.data() + i * model::bytes_of(kind), from, static_cast<std::size_t>(model::bytes_of(kind)));
  }
  return base::make_payload(std::move(bytes));
}

/// One step of every stage with the sums of `step`; every stage's elements lie in the whole model's order.
void take_step(Fleet& fleet, std::uint64_t step) {
  const std::vector<float> sums = made_up_sums(fleet.config, step);
  std::map<std::uint64_t, double> squares;
  std::int64_t at = 0;
  for (auto& stage : fleet.stages) {
    const std::int64_t count = stage->elements();
    expect_ok(stage->write_reduced(Step(step), kAttempt, {0, count}, sums_payload(fleet.config.numbers.sums, sums.data() + at, count)));
    at += count;
    for (const TensorNorm& norm : value(stage->norms(Step(step), kAttempt))) squares[norm.tensor.value()] = norm.sum_of_squares;
  }
  double total = 0;
  for (const auto& [tensor, square] : squares) total += square;
  for (auto& stage : fleet.stages) expect_ok(stage->apply(Step(step), kAttempt, std::sqrt(total)));
}

std::vector<base::NamedTensor> state_of(Fleet& fleet) {
  std::vector<base::NamedTensor> all;
  for (auto& stage : fleet.stages) {
    for (base::NamedTensor& one : value(stage->export_state())) all.push_back(std::move(one));
  }
  return all;
}

std::map<std::string, base::Bytes> bytes_of(Fleet& fleet) {
  std::map<std::string, base::Bytes> all;
  for (const base::NamedTensor& one : state_of(fleet)) all[one.name] = *one.tensor.bytes;
  return all;
}

class Kinds : public testing::TestWithParam<Kind> {
 protected:
  const model::TrainConfig config = config_of(GetParam());
};

TEST_P(Kinds, keep_what_the_config_says) {
  Fleet whole = make_fleet(config, 1);
  std::map<std::string, std::vector<std::int64_t>> expected;
  for (const model::ParameterInfo& info : model::parameters(config.model)) {
    expected[info.name] = info.shape;
    for (const auto prefix : model::moment_prefixes(model::update_rule(config.optimizer, info))) {
      expected[std::string(prefix) + info.name] = info.shape;
    }
  }
  const auto state = state_of(whole);
  EXPECT_EQ(state.size(), expected.size());
  for (const base::NamedTensor& one : state) {
    EXPECT_EQ(expected.at(one.name), one.tensor.shape) << one.name;
    EXPECT_EQ(one.tensor.dtype, config.numbers.state == FloatKind::bfloat16 ? base::DType::bf16 : base::DType::f32);
    std::int64_t elements = 1;
    for (const std::int64_t extent : one.tensor.shape) elements *= extent;
    EXPECT_EQ(one.tensor.bytes->size(), static_cast<std::size_t>(elements * model::bytes_of(config.numbers.state)));
  }
}

TEST_P(Kinds, splits_make_the_bits_of_the_whole) {
  Fleet whole = make_fleet(config, 1), two = make_fleet(config, 2), four = make_fleet(config, 4);
  const auto start = bytes_of(whole);
  for (std::uint64_t step = 1; step <= 3; ++step) {
    for (Fleet* fleet : {&whole, &two, &four}) take_step(*fleet, step);
  }
  const auto end = bytes_of(whole);
  EXPECT_EQ(end, bytes_of(two));
  EXPECT_EQ(end, bytes_of(four));
  for (const auto& [name, bytes] : start) EXPECT_NE(bytes, end.at(name)) << name << " was to change";
}

TEST_P(Kinds, a_state_read_back_goes_on_to_the_same_bits) {
  Fleet steady = make_fleet(config, 1), resumed = make_fleet(config, 4);
  for (std::uint64_t step = 1; step <= 2; ++step) take_step(steady, step);
  const auto state = state_of(steady);
  for (auto& stage : resumed.stages) {
    expect_ok(stage->import_state(WeightVersion(2), state));
    EXPECT_EQ(stage->version(), WeightVersion(2));
  }
  EXPECT_EQ(bytes_of(resumed), bytes_of(steady));
  for (Fleet* fleet : {&steady, &resumed}) take_step(*fleet, 3);
  EXPECT_EQ(bytes_of(resumed), bytes_of(steady));
}

TEST_P(Kinds, two_versions_kept_change_nothing) {
  Fleet one = make_fleet(config, 1), two = make_fleet(config, 1, 2);
  for (std::uint64_t step = 1; step <= 3; ++step) {
    for (Fleet* fleet : {&one, &two}) take_step(*fleet, step);
  }
  for (Fleet* fleet : {&one, &two}) expect_ok(fleet->stages[0]->apply_nothing(Step(4)));
  EXPECT_EQ(bytes_of(one), bytes_of(two));
}

TEST_P(Kinds, sums_that_overflow_are_refused) {
  Fleet whole = make_fleet(config, 1);
  Stage& stage = *whole.stages[0];
  if (config.numbers.sums == SumKind::fixed64) return;  // integers are always finite
  std::vector<float> sums(static_cast<std::size_t>(stage.elements()), 1.0f);
  sums[5] = std::numeric_limits<float>::infinity();
  expect_ok(stage.write_reduced(Step(1), kAttempt, {0, stage.elements()}, sums_payload(config.numbers.sums, sums.data(), stage.elements())));
  EXPECT_EQ(code_of(stage.norms(Step(1), kAttempt)), ErrorCode::not_finite);
}

TEST_P(Kinds, parts_must_be_whole_sums_of_one_length) {
  Fleet whole = make_fleet(config, 1);
  Stage& stage = *whole.stages[0];
  const SumKind kind = config.numbers.sums;
  const std::vector<float> a = {1, 2, 3}, b = {0.5f, -2, 0.25f}, total = {1.5f, 0, 3.25f};
  const auto payload = [&](const std::vector<float>& v) { return sums_payload(kind, v.data(), static_cast<std::int64_t>(v.size())); };
  EXPECT_EQ(*value(stage.add_parts({payload(a), payload(b)})), *payload(total));
  EXPECT_EQ(*value(stage.add_parts({payload(a)})), *payload(a));
  EXPECT_EQ(code_of(stage.add_parts({})), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(stage.add_parts({payload(a), payload({1, 2})})), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(stage.add_parts({payload(a), nullptr})), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(stage.add_parts({base::make_payload(base::Bytes(7))})), ErrorCode::invalid_argument);
}

constexpr FloatKind f32 = FloatKind::float32, bf16 = FloatKind::bfloat16;
INSTANTIATE_TEST_SUITE_P(
    All, Kinds,
    testing::Values(Kind{OptimizerKind::adamw, f32, f32, SumKind::fixed64}, Kind{OptimizerKind::nadam, f32, f32, SumKind::float32},
                    Kind{OptimizerKind::adamw, f32, f32, SumKind::bfloat16}, Kind{OptimizerKind::muon, f32, f32, SumKind::fixed64},
                    Kind{OptimizerKind::muon, f32, f32, SumKind::fixed64, bf16}, Kind{OptimizerKind::adamw, bf16, f32, SumKind::fixed64},
                    Kind{OptimizerKind::muon, bf16, f32, SumKind::float32, bf16}, Kind{OptimizerKind::adamw, bf16, bf16, SumKind::fixed64},
                    Kind{OptimizerKind::nadam, bf16, bf16, SumKind::bfloat16}, Kind{OptimizerKind::muon, bf16, bf16, SumKind::bfloat16, bf16}));

TEST(State, of_another_number_is_refused_by_the_key_that_differs) {
  Fleet wide = make_fleet(config_of({OptimizerKind::adamw, bf16, f32, SumKind::fixed64}), 1);
  Fleet narrow = make_fleet(config_of({OptimizerKind::adamw, bf16, bf16, SumKind::fixed64}), 1);
  const auto before = bytes_of(narrow);
  const auto refused = narrow.stages[0]->import_state(WeightVersion(1), state_of(wide));
  EXPECT_EQ(code_of(refused), ErrorCode::mismatch);
  EXPECT_NE(refused.error().message.find("numbers.state"), std::string::npos) << refused.error().message;
  EXPECT_EQ(code_of(wide.stages[0]->import_state(WeightVersion(1), state_of(narrow))), ErrorCode::mismatch);
  EXPECT_EQ(bytes_of(narrow), before);
  EXPECT_EQ(narrow.stages[0]->version(), WeightVersion(0));
}

TEST(State, of_another_optimizer_is_refused_by_the_key_that_differs) {
  Fleet adam = make_fleet(config_of({OptimizerKind::adamw, f32, f32, SumKind::fixed64}), 1);
  Fleet muon = make_fleet(config_of({OptimizerKind::muon, f32, f32, SumKind::fixed64}), 1);
  for (auto& [from, to] : {std::pair{&adam, &muon}, std::pair{&muon, &adam}}) {
    const auto refused = to->stages[0]->import_state(WeightVersion(1), state_of(*from));
    EXPECT_EQ(code_of(refused), ErrorCode::not_found);
    EXPECT_NE(refused.error().message.find("optimizer.kind"), std::string::npos) << refused.error().message;
  }
}

TEST(State, bfloat16_nan_is_refused) {
  Fleet narrow = make_fleet(config_of({OptimizerKind::adamw, bf16, bf16, SumKind::fixed64}), 1);
  auto state = state_of(narrow);
  base::Bytes bytes = *state[3].tensor.bytes;
  const std::uint16_t nan = 0x7fc0;
  std::memcpy(bytes.data() + bytes.size() - 2, &nan, 2);
  state[3].tensor.bytes = base::make_payload(bytes);
  EXPECT_EQ(code_of(narrow.stages[0]->import_state(WeightVersion(1), state)), ErrorCode::not_finite);
}

TEST(State, muon_moves_a_matrix_by_its_rate_and_adamw_the_rest) {
  model::TrainConfig config = config_of({OptimizerKind::muon, f32, f32, SumKind::fixed64});
  config.optimizer.weight_decay = 0;
  config.schedule = {model::ScheduleKind::constant, 1e-3, 0.1, 0, 0, 10};
  Fleet whole = make_fleet(config, 1);
  auto before = bytes_of(whole);
  take_step(whole, 1);
  auto after = bytes_of(whole);
  for (const model::ParameterInfo& info : model::parameters(config.model)) {
    const auto count = static_cast<std::size_t>(info.elements());
    std::vector<float> a(count), b(count);
    std::memcpy(a.data(), before[info.name].data(), count * 4);
    std::memcpy(b.data(), after[info.name].data(), count * 4);
    double squares = 0;
    for (std::size_t i = 0; i < count; ++i) squares += std::pow(static_cast<double>(b[i]) - a[i], 2);
    if (model::update_rule(config.optimizer, info) == model::UpdateRule::adam) {
      // The first step of AdamW is the rate, in every element.
      EXPECT_NEAR(std::sqrt(squares / static_cast<double>(count)), 1e-3, 2e-5) << info.name;
      continue;
    }
    // All singular values are near 1: the norm is near the root of their number, times the rate and the factor of the shape.
    const auto rows = static_cast<double>(info.shape[0]), columns = static_cast<double>(info.shape[1]);
    const double near = 1e-3 * config.optimizer.muon_rate * std::sqrt(std::max(1.0, rows / columns)) * std::sqrt(std::min(rows, columns));
    EXPECT_NEAR(std::sqrt(squares) / near, 0.95, 0.25) << info.name;
  }
}

}  // namespace
}  // namespace stagecoach::compute
