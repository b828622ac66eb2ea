// Scenarios: named families of simulated runs, each a function from a seed to options. For tests.
//
// In:      a name and a seed. Out: options for simulate(); or the violations of many seeds, each with the command that replays it.
// Thread:  one.
// Why:     a seed picks every option, so that a name and a number say all about a failure.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "base/prng.h"
#include "world/sim/simulation.h"

namespace stagecoach::world::sim {

struct Scenario {
  const char* name;
  Options (*make)(std::uint64_t seed);
};

/// A small run whose sizes the seed picks: 1 to 5 stages of 1 to 3 replicas.
inline Options small_run(std::uint64_t seed) {
  base::Prng pick(base::mix64(seed, 77));
  Options options;
  options.seed = seed;
  options.stages = 1 + pick.below(5);
  options.replicas = 1 + pick.below(3);
  options.steps = 1 + static_cast<std::int64_t>(pick.below(6));
  options.microbatches = 1 + static_cast<std::int64_t>(pick.below(10));
  options.eval_microbatches = static_cast<std::int64_t>(pick.below(4));
  options.eval_every = static_cast<std::int64_t>(pick.below(4));
  options.checkpoint_every = pick.below(4);
  // Most disks are quick; some are so slow that a step's every event meets an unfinished write.
  const std::int64_t disks_ms[] = {0, 3, 3, 300, 9000};
  options.disk_time_max = base::Duration::milliseconds(disks_ms[pick.below(5)]);
  options.network.loss = static_cast<double>(pick.below(3)) * 0.01;
  options.network.jitter = base::Duration::milliseconds(static_cast<std::int64_t>(1 + pick.below(60)));
  return options;
}

inline Options single_crash(std::uint64_t seed) {
  Options options = small_run(seed);
  options.replicas = 2 + seed % 2;
  options.faults.crashes = 1;
  return options;
}

/// Crashes, stalls and broken links together.
inline Options mixed_faults(std::uint64_t seed) {
  Options options = small_run(seed);
  options.replicas = 2 + seed % 2;
  options.faults = {.crashes = 3, .stalls = 3, .link_breaks = 4};
  return options;
}

/// Faults that are over before a time-out notices: links that flap at a view change, returns, lost requests to save.
inline Options quick_faults(std::uint64_t seed) {
  Options options = small_run(seed);
  options.checkpoint_every = 1 + seed % 2;
  options.faults = {.flaps = 4, .returns = 4, .lost_saves = 3};
  return options;
}

inline Options all_faults(std::uint64_t seed) {
  Options options = small_run(seed);
  options.replicas = 2 + seed % 2;
  options.checkpoint_every = 1 + seed % 3;
  options.faults = {.crashes = 2, .stalls = 2, .link_breaks = 3, .hangs = 1, .flaps = 3, .returns = 3, .lost_saves = 2};
  return options;
}

inline Options hangs(std::uint64_t seed) {
  Options options = small_run(seed);
  options.replicas = 2 + seed % 2;
  options.faults = {.link_breaks = 1, .hangs = 2};
  return options;
}

/// 16 stages of 3 replicas, 20 steps of 24 microbatches over a network that delays, reorders and loses.
inline Options orion(std::uint64_t seed) {
  Options options;
  options.seed = seed;
  options.stages = 16;
  options.replicas = 3;
  options.steps = 20;
  options.microbatches = 24;
  options.eval_microbatches = 4;
  options.eval_every = 10;
  options.checkpoint_every = 10;
  options.network.loss = 0.01;
  options.network.jitter = base::Duration::milliseconds(20);
  return options;
}

inline Options orion_crash(std::uint64_t seed) {
  Options options = orion(seed);
  options.faults.crashes = 1;
  return options;
}

/// Everything at once at Orion's size.
inline Options orion_mixed(std::uint64_t seed) {
  Options options = orion(seed);
  options.faults = {.crashes = 5, .stalls = 5, .link_breaks = 10, .hangs = 1, .flaps = 6, .returns = 6, .lost_saves = 2};
  return options;
}

inline constexpr Scenario kScenarios[] = {
    {"small_run", small_run},       {"single_crash", single_crash}, {"mixed_faults", mixed_faults}, {"quick_faults", quick_faults},
    {"all_faults", all_faults},     {"hangs", hangs},               {"orion", orion},               {"orion_crash", orion_crash},
    {"orion_mixed", orion_mixed},
};

/// What types of fault struck, in all the runs of a family.
struct Tally {
  std::uint64_t runs = 0, crashes = 0, stalls = 0, link_breaks = 0, hangs = 0, flaps = 0, returns = 0, lost_saves = 0;
  std::uint64_t attempts = 0, checkpoints = 0, events = 0;
  std::vector<std::string> violations;  // each with the command that replays it
  void add(const Scenario& scenario, std::uint64_t seed, const Outcome& outcome) {
    ++runs;
    crashes += outcome.crashes, stalls += outcome.stalls, link_breaks += outcome.link_breaks, hangs += outcome.hangs;
    flaps += outcome.flaps, returns += outcome.returns, lost_saves += outcome.lost_saves;
    attempts += outcome.attempts, checkpoints += outcome.checkpoints, events += outcome.events;
    if (outcome.ok) return;
    violations.push_back(outcome.violation + "\n  replay: STAGECOACH_SCENARIO=" + scenario.name + " STAGECOACH_SEED=" +
                         std::to_string(seed) + " $STAGECOACH_BUILD_DIR/src/world_sim_test --gtest_filter=Replay.*");
    std::printf("%s\n", violations.back().c_str());
  }
  void print(const char* name) const {
    std::printf("%s: %llu runs, %llu events, %llu attempts, %llu checkpoints; struck: %llu crashes, %llu stalls, %llu breaks, "
                "%llu hangs, %llu flaps, %llu returns, %llu lost saves\n",
                name, ull(runs), ull(events), ull(attempts), ull(checkpoints), ull(crashes), ull(stalls), ull(link_breaks),
                ull(hangs), ull(flaps), ull(returns), ull(lost_saves));
  }
  static unsigned long long ull(std::uint64_t n) { return n; }
};

/// Runs seeds [first, first + count) of a family.
inline Tally run_seeds(const Scenario& scenario, std::uint64_t first, std::uint64_t count) {
  Tally tally;
  for (std::uint64_t seed = first; seed < first + count; ++seed) tally.add(scenario, seed, simulate(scenario.make(seed)));
  tally.print(scenario.name);
  return tally;
}

}  // namespace stagecoach::world::sim
