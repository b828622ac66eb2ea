// Claims: a stage that computes in bf16 computes what the fp32 stage does: cosine at least 0.999 of outputs, of the input's gradient
// and of every parameter's gradient (0.998 behind three bottlenecks whose ReLU a rounding can flip); its loss agrees; it says so
// in its numerics class and refuses the other format's bytes.
#include <bit>
#include <map>

#include "compute/test_stages.h"

namespace stagecoach::compute {
namespace {

using base::Attempt;
using base::ErrorCode;
using base::Payload;
using base::Step;
using base::WeightVersion;

std::vector<double> floats_of(const Payload& payload, model::FloatKind kind) {
  std::vector<double> out(payload->size() / static_cast<std::size_t>(model::bytes_of(kind)));
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::uint32_t bits = 0;
    if (kind == model::FloatKind::float32) {
      std::memcpy(&bits, payload->data() + 4 * i, 4);
    } else {
      std::uint16_t upper = 0;
      std::memcpy(&upper, payload->data() + 2 * i, 2);
      bits = static_cast<std::uint32_t>(upper) << 16;
    }
    out[i] = std::bit_cast<float>(bits);
  }
  return out;
}

Payload payload_of(const std::vector<double>& values, model::FloatKind kind) {
  base::ByteWriter writer;
  for (const double value : values) {
    const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
    if (kind == model::FloatKind::float32) {
      writer.u32(bits);
    } else {
      writer.u16(static_cast<std::uint16_t>(bits >> 16));
    }
  }
  return base::make_payload(writer.take());
}

/// Values that bf16 holds exactly, so that both stages are given the same.
std::vector<double> random_values(std::size_t count, std::uint64_t seed, double scale) {
  base::Prng prng(seed);
  std::vector<double> out(count);
  for (double& value : out) value = scale * (std::floor(prng.unit() * 256) - 128) / 128;
  return out;
}

double cosine(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) ab += a[i] * b[i], aa += a[i] * a[i], bb += b[i] * b[i];
  return ab / std::sqrt(aa * bb);
}

/// One backward of one stage, all that came of it as numbers by name.
std::map<std::string, std::vector<double>> run(model::TrainConfig config, model::StageRange range, model::FloatKind kind) {
  config.numbers.compute = kind;
  StageOptions options;
  options.config = config;
  options.range = range;
  const auto stage = value(library().make_stage(options));
  const auto rows = static_cast<std::size_t>(config.batch.tokens_per_microbatch());
  const bool tail = range.last == config.model.layers;
  StageInput input{random_tokens(config, 5), nullptr};
  if (range.first > 0) {
    input.boundary = payload_of(random_values(rows * static_cast<std::size_t>(config.model.boundary_width(range.first - 1)), 1, 1), kind);
  }
  Payload gradient;
  std::map<std::string, std::vector<double>> out;
  if (!tail) {
    gradient = payload_of(random_values(rows * static_cast<std::size_t>(config.model.boundary_width(range.last - 1)), 2, 0.1), kind);
    out["output"] = floats_of(value(stage->forward(WeightVersion(0), input)), kind);
  }
  const BackwardOutput found = value(stage->backward(WeightVersion(0), {Step(1), Attempt(1), {}}, input, gradient));
  if (tail) out["loss"] = {found.loss_sum};
  if (found.input_gradient) out["input's gradient"] = floats_of(found.input_gradient, kind);
  std::int64_t at = 0;
  for (const model::ParameterInfo& info : model::parameters(config.model, range)) {
    const Payload sums = value(stage->read_sum(Step(1), Attempt(1), {at, at + info.elements()}));
    at += info.elements();
    for (std::size_t i = 0; i < sums->size(); i += 8) {
      std::int64_t element = 0;
      std::memcpy(&element, sums->data() + i, 8);
      out[info.name].push_back(static_cast<double>(element));
    }
  }
  return out;
}

struct Closeness {
  model::StageRange range;
  model::CutKind cut = model::CutKind::resbm_tokens;
  double cosine = 0.999;
};

class Bfloat16 : public testing::TestWithParam<Closeness> {};

TEST_P(Bfloat16, is_close_to_float32) {
  model::TrainConfig config = small_config();
  config.batch.tokens = 100;
  config.model.cut_kind = GetParam().cut;
  const auto ours = run(config, GetParam().range, model::FloatKind::bfloat16);
  const auto reference = run(config, GetParam().range, model::FloatKind::float32);
  ASSERT_EQ(ours.size(), reference.size());
  for (const auto& [name, values] : reference) {
    if (name == "loss") {
      EXPECT_NEAR(ours.at(name)[0], values[0], 1e-3 * values[0]);
    } else {
      EXPECT_GE(cosine(ours.at(name), values), GetParam().cosine) << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Stages, Bfloat16,
                         testing::Values(Closeness{{0, 1}}, Closeness{{1, 2}}, Closeness{{3, 4}},
                                         Closeness{{0, 4}, model::CutKind::none},
                                         Closeness{{0, 4}, model::CutKind::resbm_tokens, 0.998}));

TEST(Numbers, are_named_and_other_bytes_refused) {
  model::TrainConfig config = small_config();
  config.numbers.compute = model::FloatKind::bfloat16;
  StageOptions options;
  options.config = config;
  options.range = {1, 2};
  const auto stage = value(library().make_stage(options));
  EXPECT_NE(stage->numerics_class().find("threads 1 bfloat16"), std::string::npos);
  const auto bytes = static_cast<std::size_t>(config.boundary_bytes(0));
  EXPECT_EQ(code_of(stage->forward(WeightVersion(0), {nullptr, base::make_payload(base::Bytes(2 * bytes))})), ErrorCode::invalid_argument);
  base::Bytes not_finite(bytes);
  not_finite[7] = std::byte{0x7f}, not_finite[6] = std::byte{0x80};
  EXPECT_EQ(code_of(stage->forward(WeightVersion(0), {nullptr, base::make_payload(not_finite)})), ErrorCode::not_finite);
}

}  // namespace
}  // namespace stagecoach::compute
