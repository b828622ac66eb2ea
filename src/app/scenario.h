// Scenarios: a run, the machines and lines it runs on, and what strikes it (docs/formats/scenario.md).
//
// In:      a TOML file. Out: a Scenario, or every problem at once, each with the place it stands at.
// Thread:  any; plain values.
// Why:     the lab and the planner read the same file; what only the lab can follow is checked here all the same.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "app/settings.h"
#include "base/time.h"
#include "world/paced/pace.h"

namespace stagecoach::app {

struct ScenarioHost {
  std::string name;
  std::size_t site = 0;               // index into Scenario::sites
  double up_bytes_per_s = 0;          // 0 = unshaped
  double down_bytes_per_s = 0;
  std::string device;                 // as written: "cpu", "paced:a100"
  double slowdown = 1;
  bool later = false;                 // started by an event only
};

using ScenarioDevice = world::paced::DeviceSpeed;

/// Two hosts or two sites, or everybody.
struct ScenarioEnds {
  enum class Kind : std::uint8_t { everywhere, sites, hosts };
  Kind kind = Kind::everywhere;
  std::size_t a = 0, b = 0;           // indices of sites, or numbers of hosts (0 = the coordinator)
};

struct ScenarioPath {
  ScenarioEnds ends;
  std::optional<base::Duration> round_trip, jitter;
  std::optional<double> loss;
};

struct ScenarioEvent {
  enum class Kind : std::uint8_t { kill, stop, resume, restart, cut, degrade, move, join };
  Kind kind = Kind::kill;
  base::Duration at;
  std::optional<base::Duration> length;   // none: to the end
  std::optional<std::size_t> host;        // a worker's number, 0 = the coordinator's host
  std::optional<double> up_bytes_per_s, down_bytes_per_s;
  ScenarioPath path;                      // of cut and degrade between two
};

struct ScenarioChurn {
  base::Duration every;
  ScenarioEvent::Kind kind = ScenarioEvent::Kind::kill;
  std::optional<base::Duration> length;
  base::Duration from;
  std::optional<base::Duration> until;
};

struct Scenario {
  std::string name;
  std::string what;
  std::uint64_t seed = 1;
  std::optional<base::Duration> duration;
  std::optional<std::int64_t> steps;
  double bulk_scale = 1;
  std::optional<base::Duration> resume;

  RunSettings settings;

  std::vector<std::string> sites;
  std::vector<std::vector<base::Duration>> round_trips;   // by site, symmetric
  ScenarioHost coordinator;
  std::vector<ScenarioHost> workers;                      // worker n is workers[n − 1]
  base::Duration jitter;
  double loss = 0;
  double burst = 1;
  std::vector<ScenarioPath> paths;
  std::map<std::string, ScenarioDevice> devices;          // those of the file and those built in
  std::vector<ScenarioEvent> events;                      // by time
  std::optional<ScenarioChurn> churn;

  // What only the planner needs.
  double goodput = 0.93;
  std::uint64_t initial_window_bytes = 14'480;
  base::Duration disk = base::Duration::milliseconds(3);
  base::Duration prepare = base::Duration::milliseconds(50);
  double spread = 0;

  /// The table that a host's device is paced by; null where the scenario has none for it.
  const ScenarioDevice* device_of(const ScenarioHost& host) const;
};

/// A scenario, or all that is wrong with it. With problems the scenario is of no use.
struct LoadedScenario {
  Scenario scenario;
  std::vector<std::string> problems;  // each a sentence with its place ("orion.toml:12") in front
  bool ok() const { return problems.empty(); }
};

/// `name` stands for the text in messages.
LoadedScenario parse_scenario(std::string_view text, const std::string& name);
LoadedScenario load_scenario(const std::string& path);

}  // namespace stagecoach::app
