// What the coordinator writes down before it says it: views, evictions, commits.
//
// In/out:  values; the world stores them conditional on the term (PROTOCOL B2, B6, B10): a view's evictions and admissions first,
//          then the view; a commit alone. Nothing is said before all of a record is durable.
// Thread:  loop.
// Why:     these rows are the whole of a run's durable protocol state: a coordinator restarts from them and from nothing else.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "wire/messages.h"

namespace stagecoach::fleet {

struct Eviction {
  base::PeerId peer;
  base::Incarnation incarnation;
  base::StageIndex stage;
  std::string reason;
};

/// A new attempt: all stages' members (which admits their incarnations) and who was evicted on the way.
struct ViewRecord {
  base::Attempt attempt;
  std::vector<wire::StageView> stages;
  std::vector<Eviction> evictions;
  std::string reason;
};

struct StageResult {
  base::ViewNumber view;
  std::uint64_t hash = 0;
};

/// A committed step.
struct CommitRecord {
  base::Step step;
  base::Attempt attempt;
  std::vector<StageResult> stages;
  double global_norm = 0;
  std::vector<double> train_losses;  // summed nats by microbatch
  std::vector<double> eval_losses;
};

}  // namespace stagecoach::fleet
