// Plan: a run of stated sizes on stated machines and lines, and what it cost.
//
// In:      a Plan: config, loads of the stages, hosts, paths, events. Out: a Forecast.
// Thread:  one.
// Why:     the tests' simulated world draws its trouble and its network from a seed; a planner is told them. Both run the same brains
//          under the same checks.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "link/link.h"
#include "model/config.h"
#include "observe/accounting.h"
#include "observe/histogram.h"
#include "world/paced/pace.h"
#include "world/sim/lines.h"

namespace stagecoach::world::sim {

using paced::StageLoad;

struct PlannedHost {
  std::string name;
  std::size_t site = 0;
  HostLines lines;          // of frames: what overheads leave of a rate
  double slowdown = 1;
};

/// Properties of all paths that it matches; what is not set stays.
struct PathChange {
  enum class Ends : std::uint8_t { all, sites, hosts };
  Ends ends = Ends::all;
  std::size_t a = 0, b = 0;  // sites or nodes
  std::optional<base::Duration> round_trip, jitter;
  std::optional<double> loss;
  bool matches(Node from, Node to, std::size_t from_site, std::size_t to_site) const;
};

struct PlannedEvent {
  enum class Kind : std::uint8_t { kill, stop, restart, cut, cut_between, degrade_host, degrade_path };
  Kind kind = Kind::kill;
  base::Duration at;                      // after training began
  base::Duration length;                  // of stop, cut and degrade
  Node node = 0;                          // whom it strikes; 0 = the coordinator's host
  std::optional<double> up, down;         // degrade_host
  PathChange path;                        // cut_between and degrade_path
};

/// Events of one kind at a rate, drawn from the seed; they strike workers.
struct Churn {
  base::Duration every;
  PlannedEvent::Kind kind = PlannedEvent::Kind::kill;
  base::Duration length;
  base::Duration from;
  base::Duration until = base::Duration::nanoseconds(std::int64_t{1} << 62);
};

struct Plan {
  std::uint64_t seed = 1;
  model::TrainConfig config;              // schedule.steps ends the run, where the duration does not come first
  model::Split split;
  std::uint64_t replicas = 1;
  std::uint64_t checkpoint_every = 100;
  base::Duration duration = base::Duration::nanoseconds(std::int64_t{1} << 62);
  std::vector<StageLoad> stages;
  std::vector<PlannedHost> hosts;         // [0] the coordinator's; worker n on [n]
  std::vector<std::vector<base::Duration>> round_trips;  // by site
  base::Duration jitter;
  double loss = 0, burst = 1;
  std::vector<PathChange> paths;          // the later one wins
  std::uint64_t initial_window = 10 * kPacketBytes;
  double bulk_scale = 1;
  double spread = 0;                      // of computing times, a share up and down
  base::Duration disk = base::Duration::milliseconds(3);
  base::Duration prepare = base::Duration::milliseconds(50);
  std::vector<PlannedEvent> events;
  std::optional<Churn> churn;
  std::optional<base::Duration> resume;   // until an operator starts a run again that a stage's last worker has left
};

/// What travels, as a reader of the figures tells it apart.
enum class TrafficKind : std::uint8_t { control, gradients, tensors, sums, state };
inline constexpr std::size_t kTrafficKinds = 5;
inline constexpr std::array<const char*, kTrafficKinds> kTrafficNames = {"control", "backward", "forward", "reduce", "checkpoint"};

struct Forecast {
  std::string violation;                  // a check that failed: a bug; empty = none
  std::string ended;                      // why the run ended before duration and steps; empty = it did not
  std::uint64_t log_hash = 0;
  std::uint64_t events = 0;
  base::Duration began;                   // virtual time at which training began
  base::Duration virtual_time;
  observe::AccountTable account;
  struct Traffic {
    observe::Histogram latency;           // from a send to its arrival
    std::uint64_t bytes = 0;              // sent
  };
  std::array<Traffic, kTrafficKinds> traffic;
  std::vector<std::uint64_t> forward_bytes, backward_bytes;    // over each boundary
  std::vector<std::uint64_t> up, down;                         // by node
  std::uint64_t checkpoints = 0;
  std::uint64_t resumes = 0;
  std::uint64_t workers_lost = 0;
};

/// Runs to the end of the plan. Everything is counted from the moment at which training began.
Forecast simulate(const Plan& plan);

}  // namespace stagecoach::world::sim
