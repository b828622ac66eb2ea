// Pace: how long a named device takes for a stage's work, and how many bytes the work moves.
//
// In:      a device by peak and share or by measured times; a config and a stage of it. Out: a StageLoad, and the time of each request.
// Thread:  any; pure.
// Why:     the planner's devices and the paced ones take the same time by the same arithmetic, or comparing them proves nothing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/time.h"
#include "model/config.h"
#include "worker/compute_requests.h"

namespace stagecoach::world::paced {

/// A device by its time.
struct DeviceSpeed {
  double flops_per_s = 0;             // dense peak; 0 = the times below count
  double mfu = 0.4;                   // FLOPs of three forwards over peak × time, where every forward is computed twice
  std::vector<base::Duration> forward, backward;  // by stage, or one for all
  double memory_bytes_per_s = 0;      // 0 = sums and state take no time
};

/// Those that have a name in the program: "a100", "h100", "rtx4090".
const std::map<std::string, DeviceSpeed>& named_devices();

/// What one stage takes: times of one microbatch, bytes on the wire.
struct StageLoad {
  base::Duration forward;               // at the tail: of an evaluation
  base::Duration backward;              // what it computes again included; at the tail: forward, loss and backward
  std::uint64_t boundary_bytes = 0;     // of the tensor into the next stage, and of its gradient; 0 at the tail
  std::uint64_t token_bytes = 0;        // beside each of them on the way forward
  std::uint64_t sum_bytes = 0;          // of the stage's gradient, as a reduce sends it
  std::uint64_t state_bytes = 0;        // of weights and moments, as a checkpoint sends them
  double memory_bytes_per_s = 0;        // at which sums and state are read and written; 0 = at once
};

/// The load of stage `stage` of a split; `range` is its layers.
///
/// errors: the lists of `device` hold one time, or one for each stage (CHECK)
StageLoad load_of(const DeviceSpeed& device, const model::TrainConfig& config, const model::StageRange& range, std::size_t stage, bool recompute);

/// How long the device takes for the request.
///
/// share: of the stage's sums that a ReadSum or AddParts is about
base::Duration time_of(const StageLoad& load, const worker::ComputeRequest& request, double share);

/// When a device that does one thing after the other begins and ends each.
class Occupied {
 public:
  struct Span { base::Instant began, ended; };
  /// Asked for at `asked`: begins when what was asked before has ended.
  Span next(base::Instant asked, base::Duration takes) {
    const base::Instant began = std::max(free_, asked);
    return {began, free_ = began + takes};
  }
  /// The end was seen at `now`: a machine that stood still has lost that time, one that only woke up late has not.
  void seen(base::Instant now) {
    if (now - free_ > kLate) free_ = now;
  }

 private:
  static constexpr base::Duration kLate = base::Duration::milliseconds(250);
  base::Instant free_;
};

/// True for the work that a slower device takes longer for: forward, backward, evaluation.
bool is_arithmetic(const worker::ComputeRequest& request);

}  // namespace stagecoach::world::paced
