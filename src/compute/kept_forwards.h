// What named forwards left for their backwards, within a bound of memory.
//
// In:      the layers' kept tensors of a microbatch, by its name. Out: the same, once.
// Thread:  compute.
// Why:     a forward that is kept need not be run again; what that costs in memory is counted here and nowhere else.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "compute/layers.h"
#include "compute/stage.h"

namespace stagecoach::compute {

/// One microbatch's forward through a stage that is not the tail.
struct KeptForward {
  base::WeightVersion version;
  StageInput input;  // what it was made from
  std::vector<LayerKept> layers;
};

class KeptForwards {
 public:
  /// `bytes_max`: of all together, with Recompute::automatic.
  KeptForwards(Recompute recompute, std::int64_t bytes_max) : recompute_(recompute), bytes_max_(bytes_max) {}

  /// Whether the next forward should keep what it makes: the size of the last one is the guess for it.
  bool has_room() const {
    return recompute_ == Recompute::never || (recompute_ == Recompute::automatic && bytes_ + last_bytes_ <= bytes_max_);
  }

  /// Keeps it, or drops it where it does not fit.
  void put(const MicrobatchName& name, KeptForward forward);

  /// The forward of this name, if it was kept and was of this version and this input.
  std::optional<KeptForward> take(const MicrobatchName& name, base::WeightVersion version, const StageInput& input);

  void drop_attempts_before(base::Attempt attempt);
  /// Drops those of steps up to `step`, and all of weight versions before `oldest`, whose memory newer ones may have taken.
  void drop_steps_to(base::Step step, base::WeightVersion oldest);
  void clear();

  /// Storage bytes of all kept tensors; one that several layers share counts once.
  std::int64_t bytes() const { return bytes_; }

 private:
  struct Entry {
    KeptForward forward;
    std::int64_t bytes = 0;
  };
  using Entries = std::map<MicrobatchName, Entry>;
  Entries::iterator erase(Entries::iterator entry);

  const Recompute recompute_;
  const std::int64_t bytes_max_;
  std::int64_t bytes_ = 0;
  std::int64_t last_bytes_ = 0;
  Entries entries_;
};

/// A share of what is free where `device` keeps its tensors: the default for KeptForwards' bound. 0 where this torch cannot say.
std::int64_t default_kept_bytes(const at::Device& device);

}  // namespace stagecoach::compute
