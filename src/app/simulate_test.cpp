// `stagecoach simulate` from a scenario's text to its report.
#include "app/simulate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

#include "app/account_text.h"
#include "base/prng.h"
#include "model/arithmetic.h"

namespace stagecoach::app {
namespace {

using base::Duration;
using observe::Parts;
using ::testing::HasSubstr;

/// 4 stages of one worker, 12 microbatches a step, no delay, 30 ms of work each.
constexpr const char* kIdeal = R"([scenario]
what = "an ideal pipeline"
steps = 5
[config.layout]
stages = 4
replicas = 1
[config.batch]
microbatches = 12
eval_microbatches = 0
[[hosts]]
name = "w"
count = 4
device = "paced:even"
[devices.even]
forward = ["10ms"]
backward = ["20ms", "20ms", "20ms", "30ms"]
[simulate]
disk = "0"
prepare = "0"
)";

struct Simulated {
  explicit Simulated(const std::string& text) : loaded(parse_scenario(text, "test.toml")) {
    EXPECT_TRUE(loaded.ok()) << (loaded.ok() ? "" : loaded.problems[0]);
    auto made = plan_of(loaded.scenario);
    EXPECT_TRUE(made.ok()) << (made.ok() ? "" : made.error().message);
    plan = std::move(made).value();
    forecast = world::sim::simulate(plan);
    EXPECT_EQ(forecast.violation, "");
  }
  SimulateReport report() const { return {loaded.scenario, plan, forecast}; }
  LoadedScenario loaded;
  world::sim::Plan plan;
  world::sim::Forecast forecast;
};

/// Claim: an ideal pipeline's flush is its arithmetic, 3 / 15, and its pace 12 · 256 tokens in 15 · 30 ms.
TEST(Simulate, AnIdealPipelineIsItsArithmetic) {
  const Simulated run(kIdeal);
  EXPECT_NEAR(run.report().flush_arithmetic(), 0.2, 1e-12);
  EXPECT_NEAR(run.forecast.account.all.share(Parts::flush), 0.2, 0.002);
  EXPECT_NEAR(run.report().tokens_per_s(), 12 * 256 / 0.45, 12 * 256 / 0.45 * 0.01);
  EXPECT_FALSE(run.report().mfu()) << "no peak is known of devices that are told by their times";
}

/// Claim: a device that is told by its peak takes, for forward and backward together, what the model's pace says.
TEST(Simulate, TimesAreThoseOfTheModelsArithmetic) {
  std::string text = kIdeal;
  const auto at = text.find("forward = ");
  text.replace(at, text.find("[simulate]") - at, "flops = \"2T\"\nmfu = 0.5\n");
  const Simulated run(text);
  model::Assumptions assumed;
  assumed.device_flops_per_s = 2e12;
  assumed.mfu = 0.5;
  const auto pace = model::pace(run.plan.config, run.plan.split, 1, assumed);
  for (std::size_t s = 0; s < 4; ++s) {
    const auto& load = run.plan.stages[s];
    const Duration both = s == 3 ? load.backward : load.forward + load.backward;
    EXPECT_NEAR(both.seconds_f64(), pace.stages[s].compute_s, 1e-8) << s;
  }
  ASSERT_TRUE(run.report().mfu());
  EXPECT_LT(*run.report().mfu(), 0.5);
  EXPECT_GT(*run.report().mfu(), 0.2);
}

/// Claim: hundredths of a percent add up to 100 whatever the parts, and none is further off than one.
TEST(Simulate, RoundedPartsAddUp) {
  base::Prng pick(1);
  for (int i = 0; i < 1000; ++i) {
    Parts parts;
    for (auto& part : parts.time) part = Duration::nanoseconds(static_cast<std::int64_t>(pick.next() >> (4 + pick.below(56))));
    const auto rounded = hundredths(parts);
    EXPECT_EQ(std::accumulate(rounded.begin(), rounded.end(), 0), 10'000);
    for (std::size_t p = 0; p < Parts::kCount; ++p)
      EXPECT_NEAR(rounded[p], parts.share(static_cast<Parts::Part>(p)) * 10'000, 1.0);
  }
  EXPECT_EQ(hundredths(Parts{}), std::vector<int>(Parts::kCount, 0));
}

/// Claim: text and JSON tell the same run, and the JSON's parts are the text's.
TEST(Simulate, TextAndJsonAgree) {
  const Simulated run(kIdeal);
  const auto json = nlohmann::json::parse(report_json(run.report()));
  EXPECT_EQ(json["steps"], run.forecast.account.steps);
  EXPECT_EQ(json["stage_device_ns"].size(), 4u);
  std::int64_t sum = 0;
  for (const auto& stage : json["stage_device_ns"])
    for (const auto& part : stage) sum += part.get<std::int64_t>();
  EXPECT_EQ(sum, run.forecast.account.all.total().ns());
  const std::string text = report_text(run.report());
  EXPECT_THAT(text, HasSubstr("an ideal pipeline"));
  EXPECT_THAT(text, HasSubstr("by arithmetic (P − 1) / (M / R + P − 1) = 20.00 %"));
  EXPECT_THAT(text, HasSubstr(json["log_hash"].get<std::string>()));
}

/// Claim: what the planner cannot follow is refused with what to change; a scenario without devices too.
TEST(Simulate, WhatCannotBeFollowedIsRefused) {
  const auto refusal = [](const std::string& text) {
    const LoadedScenario loaded = parse_scenario(text, "test.toml");
    EXPECT_TRUE(loaded.ok());
    const auto plan = plan_of(loaded.scenario);
    return plan.ok() ? std::string("accepted") : plan.error().message;
  };
  EXPECT_THAT(refusal(std::string(kIdeal) + "[[events]]\nat = \"1s\"\ndo = \"join\"\nworker = 1\n"), HasSubstr("leave the event out"));
  std::string real = kIdeal;
  real.replace(real.find("paced:even"), 10, "cpu");
  EXPECT_THAT(refusal(real), HasSubstr("whose speed nobody has told"));
}

/// Claim: a file that is not there, and a scenario in which nothing is committed, end with code 1 and say so.
TEST(Simulate, SaysWhyItCannot) {
  std::ostringstream out, err;
  EXPECT_EQ(run_simulate({"/nowhere/at-all.toml", std::nullopt, false}, out, err), 1);
  EXPECT_THAT(err.str(), HasSubstr("/nowhere/at-all.toml"));
  EXPECT_EQ(out.str(), "");
}

}  // namespace
}  // namespace stagecoach::app
