// Replays what another test names: STAGECOACH_SCENARIO and STAGECOACH_SEED, with every event printed; or, with STAGECOACH_SEEDS, runs
// that many seeds from there on and prints violations only.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "world/sim/scenarios.h"

namespace stagecoach::world::sim {
namespace {

/// Claim: the seed that is named runs without a violation.
TEST(Replay, TheSeedThatIsNamed) {
  const char* name = std::getenv("STAGECOACH_SCENARIO");
  const char* seed = std::getenv("STAGECOACH_SEED");
  if (!name || !seed) GTEST_SKIP() << "set STAGECOACH_SCENARIO and STAGECOACH_SEED to what a failing test printed";
  for (const Scenario& scenario : kScenarios) {
    if (scenario.name != std::string(name)) continue;
    const std::uint64_t first = std::strtoull(seed, nullptr, 10);
    if (const char* count = std::getenv("STAGECOACH_SEEDS")) {
      EXPECT_TRUE(run_seeds(scenario, first, std::strtoull(count, nullptr, 10)).violations.empty());
      return;
    }
    Options options = scenario.make(first);
    options.trace = true;
    const Outcome outcome = simulate(options);
    EXPECT_TRUE(outcome.ok) << outcome.violation;
    return;
  }
  FAIL() << "no scenario is called " << name;
}

}  // namespace
}  // namespace stagecoach::world::sim
