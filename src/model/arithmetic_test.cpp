// Claims: FLOPs are those of the products that a token passes, counted one by one from their shapes; attention counts what a causal
// mask leaves; microbatches in flight cover the way to the tail and back.
#include "model/arithmetic.h"

#include <gtest/gtest.h>

#include "model/presets.h"

namespace stagecoach::model {
namespace {

/// Multiplies matrices by their shapes alone and counts.
class Counter {
 public:
  /// [rows, inner] × [inner, columns]
  void multiply(std::int64_t rows, std::int64_t inner, std::int64_t columns) { flops_ += 2 * rows * inner * columns; }
  std::int64_t flops() const { return flops_; }

 private:
  std::int64_t flops_ = 0;
};

/// A Llama block on S tokens as its formulas say; position t attends to t + 1 tokens.
void count_block(const ModelConfig& m, std::int64_t tokens, bool sends, bool receives, Counter& counter) {
  const std::int64_t kv = m.kv_heads * m.head_width();
  if (receives) counter.multiply(tokens, m.cut_width, m.dim);
  counter.multiply(tokens, m.dim, m.dim);
  counter.multiply(tokens, m.dim, kv);
  counter.multiply(tokens, m.dim, kv);
  for (std::int64_t position = 0; position < tokens; ++position) {
    for (std::int64_t head = 0; head < m.heads; ++head) {
      counter.multiply(1, m.head_width(), position + 1);
      counter.multiply(1, position + 1, m.head_width());
    }
  }
  counter.multiply(tokens, m.dim, m.dim);
  counter.multiply(tokens, m.dim, m.ffn);
  counter.multiply(tokens, m.dim, m.ffn);
  counter.multiply(tokens, m.ffn, m.dim);
  if (sends) counter.multiply(tokens, m.dim, m.cut_width);
}

TEST(Arithmetic, counts_the_products_of_a_token) {
  ModelConfig model;
  model.cut_after = {1};
  const std::int64_t tokens = 33;
  Counter counter;
  for (std::int64_t layer = 0; layer < 4; ++layer) count_block(model, tokens, layer == 1, layer == 2, counter);
  counter.multiply(tokens, model.dim, model.vocab);
  EXPECT_EQ(token_flops(model, {0, 4}, tokens).forward() * tokens, counter.flops());
  const std::int64_t halves = token_flops(model, {0, 2}, tokens).forward() + token_flops(model, {2, 4}, tokens).forward();
  EXPECT_EQ(halves * tokens, counter.flops()) << "a split changes nothing";
}

TEST(Arithmetic, tables_that_are_looked_up_cost_nothing) {
  ModelConfig model;
  const std::int64_t narrow = token_flops(model, {0, 1}, 8).products;
  model.vocab = 128'256;
  EXPECT_EQ(token_flops(model, {0, 1}, 8).products, narrow);
  model.cut_kind = CutKind::resbm_tokens;
  const ModelConfig plain;
  EXPECT_EQ(token_flops(model, {1, 2}, 8).products - token_flops(plain, {1, 2}, 8).products,
            2 * model.dim * model.token_window * model.token_rank) << "only the convolution multiplies";
}

TEST(Arithmetic, recompute_is_a_forward_more_but_not_at_the_tail) {
  const ModelConfig model;
  const TokenFlops middle = token_flops(model, {1, 2}, 128);
  EXPECT_EQ(middle.train(), 3 * middle.forward());
  EXPECT_EQ(executed_flops(model, {1, 2}, 128, false), 3 * middle.forward());
  EXPECT_EQ(executed_flops(model, {1, 2}, 128, true), 4 * middle.forward());
  EXPECT_EQ(executed_flops(model, {3, 4}, 128, true), 3 * token_flops(model, {3, 4}, 128).forward());
}

TEST(Arithmetic, orions_stage_takes_what_the_reference_says) {
  // reference, orion-iota-resbm §1.3: 6N = 5.977e11 a token with N all parameters, attention +1.3 % at 800 tokens where the mask is
  // not counted: half of that with it.
  const TrainConfig config = train_config(*find_preset("100B"), 16);
  const TokenFlops whole = token_flops(config.model, {0, 90}, 800);
  const double embedding = 6.0 * 128'256 * 9'216;
  EXPECT_NEAR(3.0 * static_cast<double>(whole.products), 5.977e11 - embedding, 0.001 * 5.977e11);
  EXPECT_NEAR(static_cast<double>(3 * whole.attention) / 5.977e11, 0.013 / 2, 0.0005);
}

TEST(Arithmetic, a_chain_without_distance_needs_as_many_as_it_has_stages) {
  TrainConfig config;
  config.model.vocab = 2;  // the head's product is next to nothing: four equal stages
  const Split split = {{0, 1}, {1, 2}, {2, 3}, {3, 4}};
  Assumptions near{.uplink_bytes_per_s = 1e18, .round_trip_s = 0, .recompute = false};
  const Pace alone = pace(config, split, 1, near);
  ASSERT_EQ(alone.stages.size(), 4u);
  EXPECT_EQ(alone.stages[0].in_flight, 4);
  EXPECT_EQ(alone.stages[3].in_flight, 1);
  EXPECT_DOUBLE_EQ(alone.flush, 3.0 / (8 + 3));
  // Three hops of one stage's time each, there and back together: three more.
  near.round_trip_s = alone.slowest_s;
  EXPECT_EQ(pace(config, split, 1, near).stages[0].in_flight, 7);
}

TEST(Arithmetic, transfers_count_there_and_back) {
  TrainConfig config;
  const Split split = {{0, 2}, {2, 4}};
  config.model.cut_after = {1};
  Assumptions slow{.uplink_bytes_per_s = 1e6, .round_trip_s = 0};
  const Pace out = pace(config, split, 2, slow);
  EXPECT_DOUBLE_EQ(out.stages[0].transfer_s, 2 * 128 * 32 * 4 / 1e6);
  EXPECT_EQ(out.stages[1].transfer_s, 0);
  EXPECT_DOUBLE_EQ(out.latency_s, out.stages[0].compute_s + out.stages[1].compute_s + 2 * out.stages[0].transfer_s);
}

}  // namespace
}  // namespace stagecoach::model
