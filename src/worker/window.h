// WindowPolicy: when does accumulation close, and what does a commit mean?
//
// In:      the config and the newest committed step. Out: which weights a microbatch is computed on, which steps are open.
// Thread:  any; immutable.
// Why:     exact, headstart and async are one engine with three of these (DESIGN §2.2), not three workers.
#pragma once

#include <cstdint>
#include <memory>

#include "base/ids.h"
#include "model/config.h"

namespace stagecoach::worker {

class WindowPolicy {
 public:
  virtual ~WindowPolicy() = default;

  /// The weights that microbatch `m` of `step` is computed on, forward and backward.
  virtual base::WeightVersion version_for(base::Step step, base::MicrobatchIndex m) const = 0;
  /// The newest step whose books may be open while `committed` is the newest committed one.
  virtual base::Step newest_open(base::Step committed) const = 0;
  /// Weight versions a worker must hold at once.
  virtual int versions_kept() const = 0;
  /// How many microbatches the bitmaps of a stage's group must hold together for its accumulation of a step to close.
  virtual std::uint64_t closes_at(const model::StepPlan& plan, bool tail) const = 0;
  /// True where the commit of a step makes new weights, false where it only moves the version on.
  virtual bool commit_applies(const model::StepPlan& plan) const = 0;
};

/// Mode exact: step t is computed on the weights after t − 1, one step is open, a commit applies the whole reduced gradient.
class ExactWindow final : public WindowPolicy {
 public:
  base::WeightVersion version_for(base::Step step, base::MicrobatchIndex) const override {
    return base::WeightVersion(step.value() - 1);
  }
  base::Step newest_open(base::Step committed) const override { return committed.next(); }
  int versions_kept() const override { return 1; }
  /// Validation microbatches end at the tail: only there do they count.
  std::uint64_t closes_at(const model::StepPlan& plan, bool tail) const override {
    return static_cast<std::uint64_t>(tail ? plan.total() : plan.train);
  }
  bool commit_applies(const model::StepPlan& plan) const override { return plan.train > 0; }
};

}  // namespace stagecoach::worker
