// Whole runs in the simulated world: undisturbed, disturbed, and with bugs that must be found.
//
// STAGECOACH_LONG=1 in the environment runs the long doses. A failing seed prints the command that replays it (replay_test.cpp).
#include "world/sim/simulation.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdlib>

#include "world/paced/provenance.h"
#include "world/sim/scenarios.h"
#include "world/sim/world.h"

namespace stagecoach::world::sim {
namespace {

bool long_dose() {
  const char* set = std::getenv("STAGECOACH_LONG");
  return set && std::string(set) == "1";
}

Tally run_family(const char* name, std::uint64_t count) {
  for (const Scenario& scenario : kScenarios)
    if (scenario.name == std::string(name)) return run_seeds(scenario, 1, count);
  ADD_FAILURE() << "no scenario is called " << name;
  return {};
}

std::vector<std::uint64_t> reference_weights(const Options& options) {
  std::vector<std::uint64_t> last;
  for (const auto& versions : paced::undisturbed(config_of(options), options.stages).weights) last.push_back(versions.back());
  return last;
}

/// Claim: a run that nothing disturbs opens one attempt and ends with the weights and losses of one machine doing it all.
TEST(Simulation, AnUndisturbedRunEqualsTheReference) {
  const Options options;
  const Outcome outcome = simulate(options);
  ASSERT_TRUE(outcome.ok) << outcome.violation;
  EXPECT_EQ(outcome.attempts, 1u);
  EXPECT_EQ(outcome.final_weights, reference_weights(options));
  const paced::Reference reference = paced::undisturbed(config_of(options), options.stages);
  ASSERT_EQ(outcome.train_losses.size(), static_cast<std::size_t>(options.steps) + 1);  // and the step that only evaluates
  for (std::size_t i = 0; i < static_cast<std::size_t>(options.steps); ++i) {
    double sum = 0;
    for (double loss : reference.train_losses[i]) sum += loss;
    EXPECT_EQ(outcome.train_losses[i], sum / static_cast<double>(options.microbatches)) << "step " << i + 1;
  }
  EXPECT_TRUE(std::isnan(outcome.train_losses.back()));
}

/// Claim: the same seed gives the same events in the same order, another seed gives others; both give the same weights.
TEST(Simulation, ASeedIsARunBitForBit) {
  const Outcome first = simulate(all_faults(11)), again = simulate(all_faults(11));
  EXPECT_EQ(first.log_hash, again.log_hash);
  EXPECT_EQ(first.events, again.events);
  EXPECT_EQ(first.virtual_time, again.virtual_time);
  Options options = mixed_faults(1);
  const Outcome one = simulate(options);
  options.seed = 2;
  const Outcome other = simulate(options);
  EXPECT_NE(one.log_hash, other.log_hash);
  EXPECT_EQ(one.final_weights, other.final_weights);
  EXPECT_EQ(one.train_losses.size(), other.train_losses.size());
}

/// Claim: 16 stages of 3 replicas, 20 steps of 24 microbatches, with loss, reordering and delay, take seconds of wall time.
TEST(Simulation, OrionsSizeTakesSeconds) {
  const auto began = std::chrono::steady_clock::now();
  const Outcome outcome = simulate(orion(1));
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began);
  EXPECT_TRUE(outcome.ok) << outcome.violation;
  EXPECT_EQ(outcome.final_weights, reference_weights(orion(1)));
  EXPECT_LT(took.count(), 30'000);
  std::printf("16 x 3, 20 steps: %llu events, %.0f virtual seconds, %lld ms of wall time\n", Tally::ull(outcome.events),
              outcome.virtual_time.seconds_f64(), static_cast<long long>(took.count()));
}

/// Claim: one stage alone, one replica alone and their mixtures are runs like any other.
TEST(Simulation, CornerSizes) {
  const std::pair<std::uint64_t, std::uint64_t> sizes[] = {{1, 1}, {1, 3}, {6, 1}, {2, 1}, {3, 4}};
  for (const auto& [stages, replicas] : sizes) {
    for (const std::int64_t eval_microbatches : {0, 2}) {
      for (const std::int64_t eval_every : {0, 1}) {
        Options options;
        options.stages = stages, options.replicas = replicas;
        options.eval_microbatches = eval_microbatches, options.eval_every = eval_every;
        options.microbatches = 3;  // fewer than some groups have members
        const Outcome outcome = simulate(options);
        EXPECT_TRUE(outcome.ok) << stages << " x " << replicas << ": " << outcome.violation;
        EXPECT_EQ(outcome.final_weights, reference_weights(options)) << stages << " x " << replicas;
      }
    }
  }
}

/// Claim: the number of replicas, the seed and the faults leave no trace in the weights.
TEST(Simulation, FinalWeightsDependOnNothingButTheConfig) {
  Options options;
  const auto expected = reference_weights(options);
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    options.seed = seed;
    options.replicas = 1 + seed % 4;
    if (options.replicas > 1) options.faults = {.crashes = 1, .stalls = 1, .link_breaks = 2, .flaps = 1, .returns = 1};
    const Outcome outcome = simulate(options);
    ASSERT_TRUE(outcome.ok) << outcome.violation;
    EXPECT_EQ(outcome.final_weights, expected) << "seed " << seed;
  }
}

/// Claim: whichever worker dies whenever, every loss and weight is that of the undisturbed run.
TEST(Simulation, SingleCrashes) {
  const Tally tally = run_family("single_crash", 60);
  EXPECT_TRUE(tally.violations.empty());
  EXPECT_GT(tally.crashes, 50u);
}

/// Claim: the same at 16 x 3, 20 steps.
TEST(Simulation, SingleCrashesAtOrionsSize) {
  const Tally tally = run_family("orion_crash", long_dose() ? 500 : 5);
  EXPECT_TRUE(tally.violations.empty());
  EXPECT_EQ(tally.crashes, tally.runs);
}

/// Claim: and so it is there with every kind of fault at once.
TEST(Simulation, AllFaultsAtOrionsSize) {
  const Tally tally = run_family("orion_mixed", long_dose() ? 100 : 2);
  EXPECT_TRUE(tally.violations.empty());
}

/// Claim: crashes, stalls and broken links in any mixture lose nothing and count nothing twice, and the rest finishes in time.
TEST(Simulation, MixedFaults) {
  const Tally tally = run_family("mixed_faults", long_dose() ? 5000 : 200);
  EXPECT_TRUE(tally.violations.empty());
  EXPECT_GT(tally.stalls, tally.runs);
  EXPECT_GT(tally.link_breaks, tally.runs);
}

/// Claim: what is over before a time-out notices costs nobody a place: links that flap at a view change, workers that return to the
/// coordinator at once (while they gather too), requests to save that are lost.
TEST(Simulation, QuickFaultsCostNobodyAPlace) {
  const Tally tally = run_family("quick_faults", long_dose() ? 5000 : 200);
  EXPECT_TRUE(tally.violations.empty());
  EXPECT_GT(tally.flaps, tally.runs / 2);
  EXPECT_GT(tally.returns, 2 * tally.runs);
  EXPECT_GT(tally.lost_saves, tally.runs);
}

/// Claim: a device that never answers again is found by what its worker tells, and its worker is evicted.
TEST(Simulation, HangingDevices) {
  const Tally tally = run_family("hangs", long_dose() ? 2000 : 60);
  EXPECT_TRUE(tally.violations.empty());
  EXPECT_GT(tally.hangs, tally.runs);
}

/// Claim: all of these at once.
TEST(Simulation, AllFaultsTogether) {
  const Tally tally = run_family("all_faults", long_dose() ? 5000 : 100);
  EXPECT_TRUE(tally.violations.empty());
}

// ---- planted bugs: each must turn the suite red within a few seeds ----

struct AccumulatesTwice final : worker::Brain {
  using Brain::Brain;
  mutable bool done = false;
  bool accumulates_again(const worker::Microbatch&) const override { return !std::exchange(done, true); }
};
struct TakesOldFrames final : worker::Brain {
  using Brain::Brain;
  bool stale(const wire::Stamps&) const override { return false; }
};
struct CommitsEarly final : fleet::Brain {
  using Brain::Brain;
  bool all_prepared() const override {
    // One member of every stage is enough for it.
    for (const auto& view : views()) {
      bool any = false;
      for (const auto& member : view.members) any |= has_prepared(member.peer);
      if (!any) return false;
    }
    return true;
  }
};

template <class Bug>
auto make_worker() {
  return [](worker::Options options) -> std::unique_ptr<worker::Brain> { return std::make_unique<Bug>(std::move(options)); };
}

/// How many of `seeds` runs of a family show the bug that `plant` puts into their options; prints the first violation.
std::uint64_t found(Options (*family)(std::uint64_t), std::uint64_t seeds, const std::function<void(Options&)>& plant) {
  std::uint64_t red = 0;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    Options options = family(seed);
    options.stages = 2 + seed % 3;
    options.steps = 4;
    options.microbatches = 8;
    plant(options);
    const Outcome outcome = simulate(options);
    if (outcome.ok) continue;
    if (red++ == 0) std::printf("found: %s\n", outcome.violation.c_str());
  }
  std::printf("%llu of %llu seeds are red\n", Tally::ull(red), Tally::ull(seeds));
  return red;
}

/// Claim: without a bug these very runs are green.
TEST(PlantedBugs, NoneIsGreen) {
  EXPECT_EQ(found(small_run, 50, [](Options&) {}), 0u);
  EXPECT_EQ(found(mixed_faults, 100, [](Options&) {}), 0u);
}

/// Claim: undisturbed it shows at once; under faults, which void most first attempts and the bug with them, within 20 seeds.
TEST(PlantedBugs, AMicrobatchAccumulatedTwice) {
  EXPECT_EQ(found(small_run, 20, [](Options& options) { options.make_worker = make_worker<AccumulatesTwice>(); }), 20u);
  EXPECT_GE(found(mixed_faults, 20, [](Options& options) { options.make_worker = make_worker<AccumulatesTwice>(); }), 1u);
}

/// Claim: found within 100 seeds of mixed faults.
TEST(PlantedBugs, AnOldAttemptsFrameAccepted) {
  EXPECT_GE(found(mixed_faults, 100, [](Options& options) { options.make_worker = make_worker<TakesOldFrames>(); }), 1u);
}

/// Claim: found within 20 seeds of mixed faults.
TEST(PlantedBugs, ACommitBeforeAllArePrepared) {
  EXPECT_GE(found(mixed_faults, 20, [](Options& options) {
              options.make_coordinator = [](fleet::Options o) -> std::unique_ptr<fleet::Brain> {
                return std::make_unique<CommitsEarly>(std::move(o));
              };
            }),
            1u);
}

}  // namespace
}  // namespace stagecoach::world::sim
