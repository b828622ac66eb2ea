// The command itself: options, exit codes, what is printed where.
#include <CLI/CLI.hpp>
#include <iostream>

#include "app/simulate.h"

namespace stagecoach::app {
namespace {

constexpr int kRefused = 1;
constexpr int kStageLost = 5;
constexpr int kCheckFailed = 8;

}  // namespace

CLI::App* add_simulate_command(CLI::App& app, SimulateOptions& options) {
  CLI::App* command = app.add_subcommand("simulate", "tell what a scenario would come to: the run's own decisions in a simulated world");
  command->add_option("scenario", options.scenario, "a TOML file (docs/formats/scenario.md)")->required();
  command->add_option("--seed", options.seed, "instead of the scenario's");
  command->add_flag("--json", options.json, "one JSON object (docs/SIMULATE.md)");
  command->add_option("--prepare", options.prepare, "simulate nothing: write the run's settings and its paced devices into this folder, for lab/run");
  return command;
}

int run_simulate(const SimulateOptions& options, std::ostream& out, std::ostream& err) {
  LoadedScenario loaded = load_scenario(options.scenario);
  for (const std::string& problem : loaded.problems) err << "stagecoach: " << problem << "\n";
  if (!loaded.ok()) return kRefused;
  Scenario& scenario = loaded.scenario;
  if (options.seed) scenario.seed = *options.seed;
  if (!options.prepare.empty()) {
    const auto written = prepare_scenario(scenario, options.prepare);
    if (!written) err << "stagecoach: " << options.scenario << ": " << written.error().message << "\n";
    return written ? 0 : kRefused;
  }
  const auto plan = plan_of(scenario);
  if (!plan) {
    err << "stagecoach: " << options.scenario << ": " << plan.error().message << "\n";
    return kRefused;
  }
  const world::sim::Forecast forecast = world::sim::simulate(*plan);
  if (!forecast.violation.empty()) {
    err << "stagecoach: a check of the simulated run failed, which is a fault of this program: " << forecast.violation << "\n";
    return kCheckFailed;
  }
  if (forecast.account.steps == 0) {
    err << "stagecoach: " << options.scenario << ": no step was committed in the time; give it a longer duration, or smaller steps"
        << (forecast.ended.empty() ? "" : ". The run ended: " + forecast.ended) << "\n";
    return kRefused;
  }
  const SimulateReport report{scenario, *plan, forecast};
  out << (options.json ? report_json(report) : report_text(report));
  return forecast.ended.empty() ? 0 : kStageLost;
}

}  // namespace stagecoach::app
