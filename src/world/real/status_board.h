// StatusBoard: what people see of a run, made from what its coordinator's brain knows and what has happened.
//
// In:      happenings, the brain's state, the time. Out: an observe::RunStatus; event log lines.
// Thread:  loop.
// Why:     curves, rates and remaining time need a memory that no decision needs: it stays out of the brain.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/time.h"
#include "fleet/brain.h"
#include "observe/event.h"
#include "observe/progress.h"
#include "observe/run_status.h"

namespace stagecoach::world::real {

class StatusBoard {
 public:
  StatusBoard(const fleet::Options& options, std::string name, base::Instant now, std::int64_t unix_ms);

  /// Remembers it and returns the lines it means for the event log.
  std::vector<observe::Event> on(const fleet::Happening& happening, const fleet::Brain& brain, base::Instant now, std::int64_t unix_ms);

  /// A line among the events that people see.
  void note(const std::string& line) { observe::add_event(status_, line); }
  /// The newest complete checkpoint, where the run is resumed from one.
  void on_checkpoint(observe::CheckpointStatus checkpoint) { status_.checkpoint = std::move(checkpoint); }
  /// What the road measures; nothing where there is no link to the peer.
  using RoundTrip = std::function<std::optional<base::Duration>(const base::PeerId&)>;
  observe::RunStatus status(const fleet::Brain& brain, const RoundTrip& round_trip, base::Instant now) const;

  std::int64_t tokens() const { return static_cast<std::int64_t>(status_.tokens); }

 private:
  void on_committed(const fleet::StepCommitted& step, base::Instant now);
  observe::MemberStatus member(const wire::Member& member, const fleet::Brain& brain, const RoundTrip& round_trip) const;

  observe::RunStatus status_;   // what does not follow from the brain
  observe::Progress progress_;
  base::Instant started_;
  bool ended_ = false;
};

}  // namespace stagecoach::world::real
