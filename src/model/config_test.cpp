// Claims: the split follows the reference's rule and lies on cuts; schedules and plans are the hand-computed ones; the
// canonical text is one per config and its parser takes nothing else; every wrong key is named at once.
#include "model/config.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stagecoach::model {
namespace {

using base::Step;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::int64_t> sizes(const ModelConfig& model, std::int64_t stages) {
  std::string why;
  std::vector<std::int64_t> out;
  std::int64_t next = 0;
  for (const StageRange& range : balanced_split(model, stages, why)) {
    EXPECT_EQ(range.first, next) << "stages cover the layers without a gap";
    next = range.last;
    out.push_back(range.last - range.first);
  }
  EXPECT_EQ(why, "");
  return out;
}

ModelConfig without_cuts(std::int64_t layers) {
  ModelConfig model;
  model.layers = layers;
  model.cut_kind = CutKind::none;
  model.cut_after.clear();
  return model;
}

TEST(Split, gives_orions_ninety_layers_over_sixteen_stages) {
  EXPECT_THAT(sizes(without_cuts(90), 16), ElementsAre(4, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 5, 5, 4));
}

TEST(Split, gives_small_models_as_the_rule_says) {
  EXPECT_THAT(sizes(without_cuts(4), 1), ElementsAre(4));
  EXPECT_THAT(sizes(without_cuts(4), 2), ElementsAre(2, 2));
  EXPECT_THAT(sizes(without_cuts(5), 2), ElementsAre(3, 2));
  EXPECT_THAT(sizes(without_cuts(4), 4), ElementsAre(1, 1, 1, 1));
  EXPECT_THAT(sizes(without_cuts(5), 4), ElementsAre(1, 2, 1, 1));
  EXPECT_THAT(sizes(without_cuts(12), 4), ElementsAre(2, 4, 4, 2));
}

TEST(Split, moves_edges_to_the_nearest_cuts) {
  ModelConfig model = without_cuts(12);
  model.cut_kind = CutKind::resbm;
  // Balanced edges lie after layers 1, 5 and 9.
  model.cut_after = {1, 5, 9};
  EXPECT_THAT(sizes(model, 4), ElementsAre(2, 4, 4, 2));
  model.cut_after = {0, 4, 6, 10};
  EXPECT_THAT(sizes(model, 4), ElementsAre(1, 4, 6, 1)) << "of two equally near cuts (4, 6) the earlier";
  model.cut_after = {7, 8, 9};
  EXPECT_THAT(sizes(model, 4), ElementsAre(8, 1, 1, 2)) << "the only choice";
  EXPECT_THAT(sizes(model, 2), ElementsAre(8, 4));
}

TEST(Split, says_why_not) {
  ModelConfig model;
  std::string why;
  EXPECT_THAT(balanced_split(model, 5, why), IsEmpty());
  EXPECT_THAT(why, HasSubstr("between 1 and 4"));
  EXPECT_THAT(balanced_split(model, 0, why), IsEmpty());
  model.cut_after = {1};
  EXPECT_THAT(balanced_split(model, 4, why), IsEmpty());
  EXPECT_THAT(why, HasSubstr("4 stages need 3 cuts, but model.cut_after has 1"));
  EXPECT_THAT(why, HasSubstr("at most 2 stages"));
}

TEST(Model, knows_what_crosses_a_boundary) {
  ModelConfig model;
  model.cut_after = {1};
  EXPECT_EQ(model.boundary_width(0), 128);
  EXPECT_EQ(model.boundary_width(1), 32);
  model.cut_width = 128;
  EXPECT_FALSE(model.bottleneck_follows(1)) << "K = D is a plain block";
  EXPECT_EQ(model.boundary_width(1), 128);
  model.cut_width = 32;
  model.cut_kind = CutKind::none;
  EXPECT_EQ(model.boundary_width(1), 128);
}

TEST(Schedule, warms_up_then_follows_its_kind) {
  ScheduleConfig schedule{ScheduleKind::cosine, 1.0, 0.2, 10, 4, 30};
  EXPECT_DOUBLE_EQ(schedule.rate(Step(1)), 0.1);
  EXPECT_DOUBLE_EQ(schedule.rate(Step(5)), 0.5);
  EXPECT_DOUBLE_EQ(schedule.rate(Step(10)), 1.0);
  EXPECT_NEAR(schedule.rate(Step(15)), 0.2 + 0.8 * 0.5 * (1 + std::sqrt(0.5)), 1e-12);  // a quarter: cos 45°
  EXPECT_NEAR(schedule.rate(Step(20)), 0.6, 1e-12);                                      // half: cos 90° = 0
  EXPECT_NEAR(schedule.rate(Step(30)), 0.2, 1e-12);
  EXPECT_NEAR(schedule.rate(Step(31)), 0.2, 1e-12) << "stays at the floor";
  schedule.kind = ScheduleKind::wsd;
  EXPECT_DOUBLE_EQ(schedule.rate(Step(10)), 1.0);
  EXPECT_DOUBLE_EQ(schedule.rate(Step(26)), 1.0);
  EXPECT_DOUBLE_EQ(schedule.rate(Step(28)), 0.6);
  EXPECT_DOUBLE_EQ(schedule.rate(Step(30)), 0.2);
  schedule.kind = ScheduleKind::constant;
  EXPECT_DOUBLE_EQ(schedule.rate(Step(5)), 0.5);
  EXPECT_DOUBLE_EQ(schedule.rate(Step(30)), 1.0);
}

TEST(Schedule, needs_no_warm_up) {
  const ScheduleConfig schedule{ScheduleKind::cosine, 1.0, 0.0, 0, 0, 1};
  EXPECT_DOUBLE_EQ(schedule.rate(Step(1)), 0.0) << "the last step has the floor's rate";
  const ScheduleConfig all_warmup{ScheduleKind::cosine, 1.0, 0.0, 4, 0, 4};
  EXPECT_DOUBLE_EQ(all_warmup.rate(Step(4)), 1.0);
}

TEST(Plan, evaluates_before_the_steps_that_follow_a_multiple_and_after_the_last) {
  TrainConfig config;
  config.schedule.steps = 200;
  config.batch = BatchConfig{2, 128, 8, 3, 100, 1};
  const auto plan = [&config](std::uint64_t step) {
    const StepPlan p = plan_of(config, Step(step));
    return std::pair(p.train, p.eval);
  };
  EXPECT_EQ(plan(0), std::pair(std::int64_t{0}, std::int64_t{0}));
  EXPECT_EQ(plan(1), std::pair(std::int64_t{8}, std::int64_t{3}));
  EXPECT_EQ(plan(2), std::pair(std::int64_t{8}, std::int64_t{0}));
  EXPECT_EQ(plan(101), std::pair(std::int64_t{8}, std::int64_t{3}));
  EXPECT_EQ(plan(200), std::pair(std::int64_t{8}, std::int64_t{0}));
  EXPECT_EQ(plan(201), std::pair(std::int64_t{0}, std::int64_t{3}));
  EXPECT_EQ(plan(202), std::pair(std::int64_t{0}, std::int64_t{0}));
  EXPECT_EQ(final_step(config), Step(201));
  config.batch.eval_every = 0;
  EXPECT_EQ(plan(1), std::pair(std::int64_t{8}, std::int64_t{0}));
  EXPECT_EQ(plan(201), std::pair(std::int64_t{0}, std::int64_t{3}));
}

TEST(Problems, finds_none_in_the_defaults_and_in_orion) {
  TrainConfig config;
  EXPECT_THAT(problems(config), IsEmpty());
  config.model = ModelConfig{.vocab = 128'256, .dim = 9'216, .layers = 90, .heads = 72, .kv_heads = 8, .ffn = 32'256,
                             .cut_width = 144, .cut_after = {3, 9, 15}};
  EXPECT_THAT(problems(config), IsEmpty());
}

TEST(Problems, names_every_wrong_key_at_once) {
  TrainConfig config;
  config.model.vocab = 0;
  config.model.dim = 130;  // 4 heads of 32.5
  config.model.kv_heads = 3;
  config.model.cut_after = {0, 3};
  config.optimizer.beta2 = 1.0;
  config.optimizer.eps = std::nan("");
  config.schedule.warmup_steps = config.schedule.steps + 1;
  config.batch.microbatches = 4'097;
  config.threads = 0;
  EXPECT_THAT(problems(config),
              ElementsAre(HasSubstr("model.vocab must be between 2"), HasSubstr("model.dim must be a multiple"),
                          HasSubstr("model.kv_heads must divide"), HasSubstr("model.cut_after must be ascending"),
                          HasSubstr("optimizer.beta2"), HasSubstr("optimizer.eps"), HasSubstr("schedule.warmup_steps"),
                          HasSubstr("batch.microbatches must be between 1 and 4096, not 4097"), HasSubstr("threads")));
}

TEST(Problems, survives_absurd_numbers) {
  TrainConfig config;
  for (std::int64_t* key : {&config.model.dim, &config.model.heads, &config.batch.sequences, &config.batch.tokens}) {
    *key = std::numeric_limits<std::int64_t>::min();
  }
  EXPECT_EQ(problems(config).size(), 4u);
}

TEST(CanonicalText, is_read_back_exactly) {
  TrainConfig config;
  config.model.norm_eps = 0.1;  // not a finite binary fraction: hexadecimal keeps every bit
  config.model.cut_after = {};
  config.optimizer.kind = OptimizerKind::nadam;
  config.schedule.kind = ScheduleKind::wsd;
  config.batch.data_seed = ~std::uint64_t{0};
  TrainConfig back;
  std::string why;
  ASSERT_TRUE(parse_canonical_text(canonical_text(config), back, why)) << why;
  EXPECT_EQ(back, config);
  EXPECT_THAT(canonical_text(config), HasSubstr("optimizer.weight_decay=1.999999999999ap-4\n"));
  EXPECT_THAT(canonical_text(TrainConfig{}), HasSubstr("model.cut_after=0,1,2\n"));
}

TEST(CanonicalText, differs_for_every_field) {
  const std::string text = canonical_text(TrainConfig{});
  TrainConfig other;
  other.threads = 2;
  EXPECT_NE(canonical_text(other), text);
  other = {};
  other.batch.eval_every = 99;
  EXPECT_NE(canonical_text(other), text);
}

TEST(CanonicalText, of_a_split_lists_its_ranges) {
  EXPECT_EQ(canonical_text(Split{{0, 2}, {2, 4}}), "stages=2\nstage.0=0:2\nstage.1=2:4\n");
}

TEST(CanonicalText, parser_takes_nothing_else) {
  const std::string text = canonical_text(TrainConfig{});
  const auto replaced = [&text](const std::string& from, const std::string& to) {
    std::string changed = text;
    const std::size_t at = changed.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return changed.replace(at, from.size(), to);
  };
  const std::string wrong[] = {
      "", text + "x", text.substr(0, text.size() - 1), text + text, std::string(100'000, 'a'),
      replaced("model.dim=128", "model.dim=0128"), replaced("model.dim=128", "model.dim= 128"),
      replaced("model.dim=128", "model.dim=128x"), replaced("model.dim=128", "model.dim=99999999999999999999"),
      replaced("model.dim=128", "model.dam=128"), replaced("=resbm", "=bottleneck"), replaced("=0,1,2", "=0,1,"),
      replaced("=0,1,2", "=,"), replaced("optimizer.clip_norm=1p+0", "optimizer.clip_norm=inf"),
      replaced("optimizer.clip_norm=1p+0", "optimizer.clip_norm=2p-1"), replaced("threads=1", "threads=99999999999")};
  for (const std::string& bad : wrong) {
    TrainConfig config;
    config.threads = 7;
    std::string why;
    EXPECT_FALSE(parse_canonical_text(bad, config, why)) << bad.substr(0, 100);
    EXPECT_NE(why, "");
    EXPECT_EQ(config.threads, 7) << "nothing was changed";
  }
}

}  // namespace
}  // namespace stagecoach::model
