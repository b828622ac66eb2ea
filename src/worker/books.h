// The worker's books: what it owes and holds for every microbatch of every open step.
//
// In/out:  plain state that the brain's phases read and write.
// Thread:  loop.
// Why:     a microbatch's state is three parts, not one chain (PROTOCOL, "What a worker keeps"): our own work, what the stage below
//          knows of it, and who gave it to us. Local repair changes one without the others.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "model/config.h"
#include "replica/bitmap.h"
#include "replica/reduce.h"
#include "worker/compute_requests.h"

namespace stagecoach::worker {

enum class Work : std::uint8_t { none, queued, done };

struct Microbatch {
  // own: our work and custody
  bool owned = false;
  Input input;
  Work forward = Work::none;
  Work backward = Work::none;           // at the tail: forward and backward in one; of a validation microbatch: its evaluation
  base::Payload output;                 // z in custody until the step commits
  base::Payload output_gradient;        // dz from below
  base::Payload input_gradient;         // dz in custody until the step commits
  double loss_sum = 0;
  // down: what the next stage knows
  struct Down {
    std::optional<base::PeerId> named;
    std::uint32_t number = 0;           // the last naming number used
    bool held = false;                  // accepted
  } down;
  // up: who gave it to us
  struct Up {
    std::optional<base::PeerId> partner;
    std::uint32_t number = 0;
  } up;
};

struct StepBooks {
  model::StepPlan plan;
  std::vector<Microbatch> microbatches;  // by MicrobatchIndex
  replica::Bitmap accumulated;           // ours
  std::unique_ptr<replica::Reduce> reduce;
  bool reduced_written = false;          // the device holds the whole sum
  wire::Prepared prepared;               // what we told, or will tell, the coordinator; step 0 = not prepared
};

/// Keyed by step; several may be open at once in modes other than exact.
using Books = std::map<base::Step, StepBooks>;

/// Microbatches of all open steps by the furthest state they reached here.
struct BookCounts {
  std::uint32_t offered = 0, accepted = 0, forwarded = 0, accumulated = 0;
  std::uint32_t reduced = 0;  // contributions and sums of open reduces
};
BookCounts count(const Books& books);

}  // namespace stagecoach::worker
