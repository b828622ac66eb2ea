// Plans whose answer is known from arithmetic, and the checks that stay on in all of them.
#include "world/sim/plan.h"

#include <gtest/gtest.h>

namespace stagecoach::world::sim {
namespace {

using base::Duration;
using observe::Parts;

constexpr double kMbit = 1e6 / 8;

/// P stages of R workers with equal times, no network and no reduce.
Plan ideal(std::uint64_t stages, std::uint64_t replicas, std::int64_t microbatches, std::int64_t steps = 3) {
  Plan plan;
  plan.config.model.layers = static_cast<std::int64_t>(stages);
  plan.config.model.cut_kind = model::CutKind::none;
  plan.config.model.cut_after.clear();
  plan.config.schedule.steps = steps;
  plan.config.schedule.warmup_steps = 0;
  plan.config.batch.microbatches = microbatches;
  plan.config.batch.eval_microbatches = 0;
  plan.replicas = replicas;
  plan.checkpoint_every = 0;
  plan.disk = Duration();
  plan.prepare = Duration();
  plan.hosts.push_back({"coordinator", 0, {}, 1});
  for (std::uint64_t s = 0; s < stages; ++s) {
    plan.split.push_back({static_cast<std::int64_t>(s), static_cast<std::int64_t>(s) + 1});
    StageLoad load;
    load.forward = load.backward = Duration::milliseconds(100);
    if (s + 1 == stages) load.backward = load.forward + load.backward;
    plan.stages.push_back(load);
  }
  for (std::uint64_t n = 1; n <= stages * replicas; ++n) plan.hosts.push_back({"w" + std::to_string(n), 0, {}, 1});
  return plan;
}

void expect_sound(const Forecast& forecast) {
  EXPECT_EQ(forecast.violation, "");
  EXPECT_EQ(forecast.ended, "");
  Duration sum;
  for (const Parts& stage : forecast.account.stages) sum = sum + stage.total();
  EXPECT_EQ(sum, forecast.account.all.total());
}

/// Claim: one stage, one worker and no network: the device is busy all the time.
TEST(Plan, OneWorkerAloneIsAlwaysBusy) {
  const Forecast forecast = simulate(ideal(1, 1, 8));
  expect_sound(forecast);
  EXPECT_EQ(forecast.account.all[Parts::busy], Duration::milliseconds(3 * 8 * 200));
  EXPECT_NEAR(forecast.account.all.share(Parts::busy), 1.0, 1e-4);  // the rest: control frames to itself at 10 Gbit/s
}

/// Claim: P equal stages, M microbatches, no delay: the flush is (P − 1) / (M + P − 1) of each stage's time.
TEST(Plan, TheFlushIsItsArithmetic) {
  const struct { std::uint64_t stages; std::int64_t microbatches; } sizes[] = {{2, 4}, {4, 4}, {4, 16}, {8, 32}, {3, 1}};
  for (const auto& [stages, microbatches] : sizes) {
    const Forecast forecast = simulate(ideal(stages, 1, microbatches));
    expect_sound(forecast);
    const double p = static_cast<double>(stages), m = static_cast<double>(microbatches);
    for (const Parts& stage : forecast.account.stages) {
      EXPECT_NEAR(stage.share(Parts::flush), (p - 1) / (m + p - 1), 2e-4) << p << " x " << m;
      EXPECT_NEAR(stage.share(Parts::busy), m / (m + p - 1), 2e-4) << p << " x " << m;
    }
  }
}

/// Claim: a delay between stages that do nothing but wait for one microbatch is the network's, and all of it: on the way there and back
/// 2 (P − 1) delays and twice the transfers.
TEST(Plan, DelaysAreTheNetworks) {
  Plan plan = ideal(4, 1, 1);
  plan.round_trips = {{Duration::milliseconds(80)}};
  for (auto& stage : plan.stages) stage.boundary_bytes = 1'250'000 - 120;  // 100 ms at 100 Mbit/s
  plan.stages.back().boundary_bytes = 0;
  for (auto& host : plan.hosts) host.lines = {100 * kMbit, 100 * kMbit};
  plan.initial_window = 100'000'000;  // no slow start
  const Forecast forecast = simulate(plan);
  expect_sound(forecast);
  // 3 hops there and back in each of 3 steps, at every one of the 4 workers.
  const double expected = 3 * 2 * 3 * (0.040 + 0.100) * 4;
  EXPECT_NEAR(forecast.account.all[Parts::network].seconds_f64(), expected, 0.02 * expected);
}

/// Claim: the reduce of S bytes among R workers takes 2 (R − 1) / R · S over the uplink, and is what a step waits for.
TEST(Plan, AReduceTakesItsBytesOverTheUplink) {
  Plan plan = ideal(1, 3, 3, 2);
  plan.stages[0].sum_bytes = 30'000'000;
  for (auto& host : plan.hosts) host.lines = {80 * kMbit, 160 * kMbit};  // 10 MB/s up
  plan.initial_window = 100'000'000;
  const Forecast forecast = simulate(plan);
  expect_sound(forecast);
  const double reduce_s = 2.0 * 2 / 3 * 30e6 / 10e6;  // 4 s
  EXPECT_NEAR(forecast.account.all[Parts::reduce].seconds_f64(), 2 * 3 * reduce_s, 0.1);
  EXPECT_NEAR(forecast.account.span.seconds_f64(), 2 * (0.2 + reduce_s), 0.1);
  plan.bulk_scale = 0.1;
  EXPECT_NEAR(simulate(plan).account.span.seconds_f64(), 2 * (0.2 + reduce_s / 10), 0.1);
}

/// Claim: a reduce of gigabytes over a slow line, which is longer than any step before it, moves visibly: nobody takes it for stuck.
TEST(Plan, ALongReduceIsNotStuck) {
  Plan plan = ideal(2, 4, 8, 2);
  for (auto& stage : plan.stages) stage.sum_bytes = 15'000'000'000;
  for (auto& host : plan.hosts) host.lines = {100 * kMbit, 200 * kMbit};  // 30 min a step
  const Forecast forecast = simulate(plan);
  expect_sound(forecast);
  EXPECT_EQ(forecast.account.attempts, 1u);
  EXPECT_GT(forecast.virtual_time, Duration::seconds(3000));
}

/// Claim: a stage that is twice as slow holds the others up by what it works longer: that is pace.
TEST(Plan, WhoWaitsForASlowerStageKeepsPaceWithIt) {
  Plan plan = ideal(4, 1, 64);
  plan.hosts[3].slowdown = 2;  // stage 2
  const Forecast forecast = simulate(plan);
  expect_sound(forecast);
  const double step_s = 64 * 0.4;  // of the slow stage
  for (std::uint64_t s : {0, 1, 3}) EXPECT_NEAR(forecast.account.stages[s][Parts::pace].seconds_f64(), 3 * step_s / 2, 0.1) << s;
  EXPECT_EQ(forecast.account.stages[2][Parts::pace], Duration());
  EXPECT_GT(forecast.account.stages[2].share(Parts::busy), 0.95);
}

/// Claim: a killed worker costs the open step and its own share from then on; nothing is lost, nothing counted twice.
TEST(Plan, AKilledWorkerIsRecoveredFrom) {
  Plan plan = ideal(4, 2, 16, 10);
  plan.round_trips = {{Duration::milliseconds(20)}};
  PlannedEvent kill;
  kill.at = Duration::seconds(5);
  kill.node = 3;
  plan.events.push_back(kill);
  const Forecast forecast = simulate(plan);
  expect_sound(forecast);
  EXPECT_EQ(forecast.account.steps, 11u);
  EXPECT_EQ(forecast.workers_lost, 1u);
  ASSERT_EQ(forecast.account.incidents.size(), 1u);
  const observe::Incident& incident = forecast.account.incidents[0];
  EXPECT_EQ(incident.what, "w3 killed");
  ASSERT_TRUE(incident.to_work);
  EXPECT_GT(*incident.to_work, Duration::seconds(10));  // the idle time-out
  EXPECT_LT(*incident.to_work, Duration::seconds(14));
  EXPECT_GT(incident.repeated, Duration());
  EXPECT_GT(forecast.account.all[Parts::recovery], Duration::seconds(10 * 7));
}

/// Claim: a stop shorter than the idle time-out costs no attempt, a longer one its worker.
TEST(Plan, ShortStopsCostNobodyAPlace) {
  for (const std::int64_t seconds : {5, 20}) {
    Plan plan = ideal(2, 2, 16, 10);
    PlannedEvent stop;
    stop.kind = PlannedEvent::Kind::stop;
    stop.at = Duration::seconds(3);
    stop.length = Duration::seconds(seconds);
    stop.node = 2;
    plan.events.push_back(stop);
    const Forecast forecast = simulate(plan);
    expect_sound(forecast);
    EXPECT_EQ(forecast.account.attempts > 1, seconds > 10) << seconds;
    EXPECT_EQ(forecast.workers_lost, seconds > 10 ? 1u : 0u) << seconds;
  }
}

/// Claim: when a stage has lost its last worker, the run ends with that reason; an operator who resumes it gets the undisturbed result.
TEST(Plan, ARunThatLostAStageEndsOrIsResumed) {
  Plan plan = ideal(2, 1, 8, 30);
  plan.checkpoint_every = 5;
  for (auto& stage : plan.stages) stage.state_bytes = 1'000'000;
  PlannedEvent kill;
  kill.at = Duration::seconds(20);
  kill.node = 1;
  plan.events.push_back(kill);
  const Forecast ended = simulate(plan);
  EXPECT_EQ(ended.violation, "");
  EXPECT_NE(ended.ended.find("has lost its last worker"), std::string::npos) << ended.ended;
  plan.resume = Duration::seconds(60);
  const Forecast resumed = simulate(plan);
  expect_sound(resumed);
  EXPECT_EQ(resumed.resumes, 1u);
  EXPECT_EQ(resumed.account.steps, 31u);
  ASSERT_EQ(resumed.account.incidents.size(), 1u);
  EXPECT_GT(*resumed.account.incidents[0].to_work, Duration::seconds(70));
}

/// Claim: a worker whose link breaks while it loads its state loads it over the next one.
TEST(Plan, ACutWhileAWorkerLoads) {
  Plan plan = ideal(2, 1, 8, 30);
  plan.checkpoint_every = 5;
  plan.resume = Duration::seconds(60);
  for (auto& stage : plan.stages) stage.state_bytes = 20'000'000;
  for (auto& host : plan.hosts) host.lines = {8 * kMbit, 80 * kMbit};  // both at once: 40 s
  PlannedEvent kill;
  kill.at = Duration::seconds(60);
  kill.node = 1;
  plan.events.push_back(kill);
  const Forecast undisturbed = simulate(plan);
  expect_sound(undisturbed);
  PlannedEvent cut;
  cut.kind = PlannedEvent::Kind::cut;
  cut.at = Duration::seconds(150);
  cut.length = Duration::seconds(20);
  cut.node = 2;
  plan.events.push_back(cut);
  const Forecast forecast = simulate(plan);
  expect_sound(forecast);
  EXPECT_EQ(forecast.resumes, 1u);
  EXPECT_EQ(forecast.account.steps, 31u);
  ASSERT_FALSE(undisturbed.account.incidents.empty());
  const Duration calm = *undisturbed.account.incidents[0].to_work;
  EXPECT_GT(*forecast.account.incidents.at(0).to_work, calm + Duration::seconds(10)) << "the cut fell into the loading";
}

/// Claim: a seed is a forecast, event for event; another seed draws other troubles.
TEST(Plan, ASeedIsAForecast) {
  Plan plan = ideal(4, 3, 12, 40);
  plan.round_trips = {{Duration::milliseconds(30)}};
  plan.jitter = Duration::milliseconds(2);
  plan.loss = 0.01;
  plan.spread = 0.1;
  plan.duration = Duration::seconds(100);
  Churn churn;
  churn.every = Duration::seconds(20);
  churn.kind = PlannedEvent::Kind::cut;
  churn.length = Duration::seconds(4);
  plan.churn = churn;
  const Forecast first = simulate(plan), again = simulate(plan);
  expect_sound(first);
  EXPECT_EQ(first.log_hash, again.log_hash);
  EXPECT_EQ(first.account.all.total(), again.account.all.total());
  EXPECT_GT(first.account.incidents.size(), 0u);
  EXPECT_GT(first.account.steps, 10u) << "losses and jitter hold control frames up, but in order";
  plan.seed = 2;
  EXPECT_NE(simulate(plan).log_hash, first.log_hash);
}

/// Claim: whatever strikes, no check fails and the parts add up.
TEST(Plan, TroublesOfEveryKind) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    base::Prng pick(seed);
    Plan plan = ideal(2 + pick.below(3), 2 + pick.below(3), 12, 30);
    plan.seed = seed;
    plan.checkpoint_every = 4;
    plan.resume = Duration::seconds(30);
    plan.round_trips = {{Duration::milliseconds(20)}};
    for (auto& host : plan.hosts) host.lines = {50 * kMbit, 100 * kMbit};
    for (auto& stage : plan.stages) stage.boundary_bytes = 200'000, stage.sum_bytes = 2'000'000, stage.state_bytes = 4'000'000;
    plan.config.batch.eval_microbatches = 3;
    plan.config.batch.eval_every = 5;
    Churn churn;
    churn.every = Duration::seconds(15);
    const PlannedEvent::Kind kinds[] = {PlannedEvent::Kind::kill, PlannedEvent::Kind::stop, PlannedEvent::Kind::restart, PlannedEvent::Kind::cut};
    churn.kind = kinds[pick.below(4)];
    churn.length = Duration::seconds(static_cast<std::int64_t>(1 + pick.below(25)));
    churn.until = Duration::seconds(120);
    plan.churn = churn;
    const Forecast forecast = simulate(plan);
    expect_sound(forecast);
    EXPECT_EQ(forecast.account.steps, 31u) << "seed " << seed;
  }
}

}  // namespace
}  // namespace stagecoach::world::sim
