// A whole run in a simulated world: real brains, a virtual network, clock, disk and devices, all from one seed.
//
// In:      options and a seed. Out: whether every check held, the hash of the event log, what it took.
// Thread:  one.
// Why:     thousands of failure schedules an hour that replay bit for bit; the checkers compare integers, never tolerances.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/time.h"
#include "fleet/brain.h"
#include "model/config.h"
#include "worker/brain.h"

namespace stagecoach::world::sim {

struct NetworkOptions {
  base::Duration delay_min = base::Duration::milliseconds(5);   // one way, per ordered pair, drawn once
  base::Duration delay_max = base::Duration::milliseconds(40);
  base::Duration jitter = base::Duration::milliseconds(3);      // per frame, uniform: frames of other classes overtake each other
  double bytes_per_s = 100e6;
  double loss = 0.001;                                          // per frame: costs one more round trip, as a retransmission does
  base::Duration idle_timeout = base::Duration::seconds(6);
};

/// How often each kind of fault strikes during a run, at random moments.
struct FaultOptions {
  int crashes = 0;       // a worker process dies without a word; never the last of its stage
  int stalls = 0;        // a worker stands still for 0.1 to 12 s (beyond the idle time-out it is dead to the others)
  int link_breaks = 0;   // a link between two live workers, or a worker and the coordinator, dies; frames under way are lost
  int hangs = 0;         // a worker's device never answers again, its process lives on; never the last of its stage
  int flaps = 0;         // as a view is decided, a link between two workers is lost and dialled anew by both ends within milliseconds
  int returns = 0;       // a worker loses its link to the coordinator and dials anew at once, also while workers gather
  int lost_saves = 0;    // a request to save is lost with the link that carries it, and the worker dials anew at once
};

struct Options {
  std::uint64_t seed = 1;
  std::uint64_t stages = 4;
  std::uint64_t replicas = 2;
  std::int64_t steps = 5;
  std::int64_t microbatches = 8;
  std::int64_t eval_microbatches = 2;
  std::int64_t eval_every = 3;
  std::uint64_t checkpoint_every = 2;
  std::size_t boundary_bytes = 2'300'000;                        // what a boundary tensor weighs on the virtual wire
  base::Duration forward_time = base::Duration::milliseconds(60);
  base::Duration backward_time = base::Duration::milliseconds(150);
  base::Duration disk_time_max = base::Duration::milliseconds(3);  // of a durable write, uniform
  NetworkOptions network;
  FaultOptions faults;
  base::Duration time_limit = base::Duration::seconds(4 * 3600); // virtual: a run that is not done by then is stuck
  bool trace = false;                                            // print every event
  /// Broken variants for the tests that prove the checkers; null = the real brains.
  std::function<std::unique_ptr<worker::Brain>(worker::Options)> make_worker;
  std::function<std::unique_ptr<fleet::Brain>(fleet::Options)> make_coordinator;
};

struct Outcome {
  bool ok = false;
  std::string violation;             // the first check that failed, with time and place; empty = none
  std::uint64_t log_hash = 0;        // of every event delivered, in order
  std::vector<std::uint64_t> final_weights;  // per stage
  std::vector<double> train_losses;  // nats per token by step, as committed
  std::uint64_t events = 0;
  std::uint64_t attempts = 0;
  std::uint64_t crashes = 0, stalls = 0, link_breaks = 0, hangs = 0, flaps = 0, returns = 0, lost_saves = 0;  // that struck
  base::Duration after_last_fault;   // how long the healthy core took to the end
  std::uint64_t checkpoints = 0;
  base::Duration virtual_time;
};

/// Runs to the end, to a violation or to the time limit.
Outcome simulate(const Options& options);

}  // namespace stagecoach::world::sim
