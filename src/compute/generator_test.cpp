// Claims: with the cache a text's next-token distribution is that of reading the text anew; greedy text is the likeliest token each
// time; a seed gives one text; top-p draws from the likeliest only.
#include <algorithm>

#include "compute/float_bits.h"
#include "compute/local_generator.h"
#include "compute/test_stages.h"

namespace stagecoach::compute {
namespace {

using base::ErrorCode;

/// A model far from its start, so that its distributions have a shape.
std::vector<base::NamedTensor> strong_weights(const model::ModelConfig& model) {
  std::vector<base::NamedTensor> weights;
  base::Prng prng(3);
  for (const model::ParameterInfo& info : model::parameters(model)) {
    std::vector<float> values(static_cast<std::size_t>(info.elements()), 1.0f);
    if (info.decayed) {
      for (float& value : values) value = static_cast<float>((prng.unit() - 0.5) * 0.6);
    }
    weights.push_back({info.name, {base::DType::f32, info.shape, floats(values)}});
  }
  return weights;
}

class GeneratorTest : public testing::TestWithParam<model::CutKind> {
 protected:
  void SetUp() override {
    model.cut_kind = GetParam();
    generator = value(LocalGenerator::make(model, strong_weights(model), 1));
  }
  /// log p of every token after `text`, without a cache.
  std::vector<double> uncached(const std::vector<std::int32_t>& text) {
    std::vector<double> out;
    for (std::int32_t token = 0; token < model.vocab; ++token) {
      auto longer = text;
      longer.push_back(token);
      out.push_back(-value(generator->score(longer)).back());
    }
    return out;
  }

  model::ModelConfig model = small_config().model;
  std::unique_ptr<LocalGenerator> generator;
};

TEST_P(GeneratorTest, cache_changes_no_distribution_and_no_greedy_choice) {
  std::vector<std::int32_t> text = {5, 11, 60, 0, 5};
  expect_ok(generator->start(text, {0.0, 1.0, 0}));
  for (int i = 0; i < 12; ++i) {
    const std::vector<double> cached = generator->next_log_probabilities();
    const std::vector<double> anew = uncached(text);
    for (std::size_t token = 0; token < anew.size(); ++token) {
      EXPECT_NEAR(std::exp(cached[token]), std::exp(anew[token]), 1e-5);
      EXPECT_NEAR(cached[token], anew[token], 1e-4);
    }
    const auto likeliest = std::max_element(anew.begin(), anew.end()) - anew.begin();
    text.push_back(value(generator->next()));
    EXPECT_EQ(text.back(), likeliest);
  }
}

TEST_P(GeneratorTest, text_outgrows_the_first_cache) {
  expect_ok(generator->start({1}, {0.7, 1.0, 9}));
  std::vector<std::int32_t> text = {1};
  for (int i = 0; i < 300; ++i) text.push_back(value(generator->next()));
  const std::vector<double> cached = generator->next_log_probabilities();
  const std::vector<double> anew = uncached(text);
  for (std::size_t token = 0; token < anew.size(); ++token) EXPECT_NEAR(std::exp(cached[token]), std::exp(anew[token]), 1e-5);
}

TEST_P(GeneratorTest, a_seed_gives_one_text) {
  const auto text = [this](std::uint64_t seed) {
    expect_ok(generator->start({7, 8}, {1.0, 0.9, seed}));
    std::vector<std::int32_t> out;
    for (int i = 0; i < 30; ++i) out.push_back(value(generator->next()));
    return out;
  };
  EXPECT_EQ(text(1), text(1));
  EXPECT_NE(text(1), text(2));
}

TEST_P(GeneratorTest, draws_as_the_distribution_says_and_within_top_p) {
  expect_ok(generator->start({7, 8}, {1.0, 1.0, 0}));
  const std::vector<double> log_p = generator->next_log_probabilities();
  std::vector<double> sorted = log_p;
  std::sort(sorted.rbegin(), sorted.rend());
  double reached = 0;
  std::size_t kept = 0;
  while (reached < 0.5) reached += std::exp(sorted[kept++]);
  const int draws = 2'000;
  std::vector<int> seen(log_p.size());
  for (std::uint64_t seed = 0; seed < draws; ++seed) {
    expect_ok(generator->start({7, 8}, {1.0, 0.5, seed}));
    ++seen[static_cast<std::size_t>(value(generator->next()))];
  }
  for (std::size_t token = 0; token < seen.size(); ++token) {
    const double p = log_p[token] >= sorted[kept - 1] ? std::exp(log_p[token]) / reached : 0.0;
    EXPECT_NEAR(seen[token], draws * p, 5 * std::sqrt(draws * p * (1 - p))) << token;
  }
}

TEST_P(GeneratorTest, reads_bfloat16_weights_as_the_numbers_they_are) {
  auto wide = strong_weights(model), narrow = wide;
  for (std::size_t t = 0; t < wide.size(); ++t) {
    std::vector<float> values(wide[t].tensor.bytes->size() / sizeof(float));
    std::memcpy(values.data(), wide[t].tensor.bytes->data(), values.size() * sizeof(float));
    base::Bytes bytes(values.size() * 2);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::uint16_t bits = nearest(values[i]);
      std::memcpy(bytes.data() + 2 * i, &bits, 2);
      values[i] = widen(bits);
    }
    narrow[t].tensor = {base::DType::bf16, wide[t].tensor.shape, base::make_payload(std::move(bytes))};
    wide[t].tensor.bytes = floats(values);
  }
  const std::vector<std::int32_t> text = {5, 11, 60, 0, 5};
  EXPECT_EQ(value(value(LocalGenerator::make(model, narrow, 1))->score(text)),
            value(value(LocalGenerator::make(model, wide, 1))->score(text)));
}

TEST_P(GeneratorTest, refuses_what_it_cannot_read) {
  EXPECT_EQ(code_of(generator->next()), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(generator->start({}, {})), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(generator->start({61}, {})), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(generator->start({1}, {-1.0, 1.0, 0})), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(generator->start({1}, {1.0, 0.0, 0})), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(generator->score({1, -1})), ErrorCode::invalid_argument);
  auto weights = strong_weights(model);
  weights.pop_back();
  EXPECT_EQ(code_of(library().make_generator(model, weights, 1)), ErrorCode::not_found);
}

INSTANTIATE_TEST_SUITE_P(Cuts, GeneratorTest, 
                         testing::Values(model::CutKind::none, model::CutKind::resbm, model::CutKind::resbm_tokens));

}  // namespace
}  // namespace stagecoach::compute
