// `stagecoach simulate`: what a scenario would come to, from the same brains in the simulated world.
//
// In:      a scenario file, a seed. Out: a table or one JSON object (docs/SIMULATE.md), and an exit code.
// Thread:  main.
// Why:     before machines are rented it should be known what their links, their flush, their reduce and their failures cost.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "app/scenario.h"
#include "base/result.h"
#include "world/sim/plan.h"

namespace CLI {
class App;
}

namespace stagecoach::app {

struct SimulateOptions {
  std::string scenario;
  std::optional<std::uint64_t> seed;
  bool json = false;
  std::string prepare;  // a folder for what the lab needs to run the scenario; empty = simulate it
};

CLI::App* add_simulate_command(CLI::App& app, SimulateOptions& options);
/// Exit codes: 0 simulated · 1 the scenario cannot be read or followed, or nothing was committed in it · 5 it ended for want of workers
/// · 8 a check failed.
int run_simulate(const SimulateOptions& options, std::ostream& out, std::ostream& err);

/// The scenario as the simulated world takes it: times from the model's products, bytes from its shapes.
///
/// errors: invalid_argument  something that the planner cannot follow, with what to change
base::Result<world::sim::Plan> plan_of(const Scenario& scenario);

/// Writes for the lab what the scenario means: config.toml, with the preset spelled out, and devices/HOST.toml for each paced host.
///
/// errors: invalid_argument  hosts of which some are paced and some are not · those of writing files
base::Result<void> prepare_scenario(const Scenario& scenario, const std::filesystem::path& folder);

/// What was simulated and what it came to, beside the arithmetic that it is compared with.
struct SimulateReport {
  const Scenario& scenario;
  const world::sim::Plan& plan;
  const world::sim::Forecast& forecast;

  double tokens_per_s() const;
  /// FLOPs of the committed tokens, nothing computed twice, over peak × time of all workers; none where devices are told by their times.
  std::optional<double> mfu() const;
  /// (P − 1) / (M / R + P − 1)
  double flush_arithmetic() const;
  /// Mean over the workers of what crossed their lines in an hour; `bytes` by node.
  double per_worker_hour(const std::vector<std::uint64_t>& bytes) const;
  /// What a worker sends and receives in the reduce of a step: 2 (R − 1) / R of its sums, of the stage that has most.
  double reduce_bytes() const;
};
std::string report_text(const SimulateReport& report);
std::string report_json(const SimulateReport& report);

}  // namespace stagecoach::app
