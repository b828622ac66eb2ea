// Tracer: what one worker did, in the words of the accounts (observe/accounting.h).
//
// In:      its brain after each turn, the requests that its device is given, the messages that arrive.
// Out:     trace events. No time but that at which a piece of work began.
// Thread:  loop. Looks at the brain, never touches it.
// Why:     a simulated worker and a real one tell the accounts the same, so that their tables can be compared.
#pragma once

#include <optional>

#include "observe/accounting.h"
#include "worker/brain.h"

namespace stagecoach::worker {

class Tracer {
 public:
  /// After a turn of the brain: the step, or the attempt, that the worker may begin since then.
  std::optional<observe::trace::Opened> stepped(const Brain& brain, base::StageIndex stage);
  /// When the device is given a request.
  void begins(const ComputeRequest& request);
  /// The work that the request is; none for what is no work on a microbatch. An evaluation is found in the books: ask while they hold it.
  std::optional<observe::trace::Worked> work(const Brain& brain, const ComputeRequest& request, base::Instant began) const;
  /// The tensor that has arrived with the message.
  static std::optional<observe::trace::Arrived> arrival(const wire::Message& message);
  /// The worker is gone, or another incarnation from now on: what it opens next is not what it had open.
  void gone() { gone_ = true; }
  bool is_gone() const { return gone_; }

 private:
  base::MicrobatchIndex evaluated(const Brain& brain, const Evaluate& request) const;

  base::Step step_;
  base::Attempt attempt_;
  bool applying_ = false;
  bool gone_ = true;
};

}  // namespace stagecoach::worker
