// Accounting: where the time of a run's devices went.
//
// In:      what happened, in time order: steps that opened, work that a device did, tensors that arrived, commits, losses.
// Out:     a table: device time in parts that add up exactly, tokens, what each event of trouble cost.
// Thread:  one. No clock, no world: fed by the simulated one as it goes, or from a real run's event logs afterwards.
// Why:     whether a run is slow for its links, its flush, its reduce or its troubles is one question with one answer, whoever ran it.
//
// How time is attributed. A worker's time is cut into periods, from the moment at which it may begin a step (its weights are there) to
// the moment at which it may begin the next. In a period:
//   busy      the device ran forwards, backwards or evaluations of the attempt that was committed
//   network   it was idle, and what it waited for was on a link: of the tensor that ended the wait, its own way here and that of all it
//             was made from, as far as they lie within the wait
//   reduce    from the end of the whole run's work on the step to the worker's next period: sums, prepared, commit, apply; and at the
//             start of a period the time until the head that cut the awaited microbatch could begin
//   pace      it waited for other devices' work, up to what the busiest device of the step worked longer than this one
//   flush     the rest of that waiting: a pipeline that fills and drains
//   other     the tensor was here and the device still idle
//   recovery  all of a period whose attempt was voided, or whose step was taken back by a resume; in the attempt after it the time
//             until the head could begin; and devices at work for an attempt that was void already
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/time.h"

namespace stagecoach::observe {

/// Any number that names a worker for as long as the run lasts.
using WorkerNumber = std::uint64_t;

/// What is fed. `worker` is ignored where an event is the run's.
namespace trace {
/// The worker may begin `step`: it holds the weights, and a view of `attempt`.
struct Opened { base::StageIndex stage; base::Step step; base::Attempt attempt; bool after_view = false; };
enum class Kind : std::uint8_t { forward, backward, evaluate };
/// The device has just finished what it began then.
struct Worked { Kind kind = Kind::forward; base::Step step; base::Attempt attempt; base::MicrobatchIndex microbatch; base::Instant began; };
/// A boundary tensor (forward) or its gradient (backward) of the present attempt has just arrived.
struct Arrived { Kind kind = Kind::forward; base::Step step; base::Attempt attempt; base::MicrobatchIndex microbatch; };
/// The worker is dead or was evicted.
struct Gone {};
/// It is there again; until it opens a step its time is recovery.
struct Back { base::StageIndex stage; };
/// Of the run: the step is committed; `tokens` were trained on.
struct Committed { base::Step step; base::Attempt attempt; std::uint64_t tokens = 0; };
/// Of the run: everything up to this step is durable, and no resume goes behind it.
struct Saved { base::Step step; };
/// Of the run: it goes on from the end of this step; later ones are done again.
struct Rewound { base::Step step; };
/// Of the run: trouble, in words.
struct Struck { std::string what; };
}  // namespace trace
using TraceEvent = std::variant<trace::Opened, trace::Worked, trace::Arrived, trace::Gone, trace::Back, trace::Committed, trace::Saved,
                                trace::Rewound, trace::Struck>;

/// Device time by where it went.
struct Parts {
  enum Part : std::uint8_t { busy, flush, pace, network, reduce, recovery, other };
  static constexpr std::size_t kCount = 7;
  static constexpr std::array<const char*, kCount> kNames = {"busy", "flush", "pace", "network", "reduce", "recovery", "other"};

  std::array<base::Duration, kCount> time{};
  base::Duration& operator[](Part part) { return time[part]; }
  base::Duration operator[](Part part) const { return time[part]; }
  Parts& operator+=(const Parts& more);
  base::Duration total() const;
  /// 0 … 1; 0 where there is no time at all.
  double share(Part part) const;
};

/// What one event of trouble cost.
struct Incident {
  base::Instant at;
  std::string what;
  std::uint64_t attempts = 0;              // that were opened between it and the next commit
  std::optional<base::Duration> to_work;   // until a device began with what was then committed; none where no attempt was needed
  std::optional<base::Duration> to_commit; // none: no step was committed after it
  std::optional<base::Duration> to_new;    // until a step was committed that never had been: all that it took back is made up for
  base::Duration repeated;                 // of devices' work, done again
  std::uint64_t repeated_works = 0;        // forwards, backwards and evaluations of it
};

struct AccountTable {
  std::vector<Parts> stages;
  Parts all;
  base::Duration span;           // from the first step's opening to the newest commit
  std::uint64_t steps = 0;       // committed, and not taken back
  std::uint64_t tokens = 0;      // trained on in them
  std::uint64_t attempts = 0;
  std::vector<Incident> incidents;
  base::Duration repeated;       // of all incidents, and of attempts that none explains
};

class Accounting {
 public:
  explicit Accounting(std::uint64_t stages);

  /// Takes the next event. In time order, but that a device's work is told when it ends.
  void feed(base::Instant now, WorkerNumber worker, const TraceEvent& event);

  /// All whole periods of committed steps, and everything before the newest commit that was lost.
  AccountTable table() const;

 private:
  struct Hop {
    base::Instant made = base::Instant::never();  // its tensor, at the sender
    base::Instant here = base::Instant::never();  // at the receiver
  };
  /// A microbatch of one step: when it could begin, and its tensors' ways into each stage.
  struct Journey {
    base::Instant cut = base::Instant::never();
    std::vector<Hop> forward, backward;  // by receiving stage
  };
  struct Item {
    std::uint64_t stage = 0;
    trace::Kind kind = trace::Kind::forward;
    std::uint64_t microbatch = 0;
  };
  struct StepRecord {
    base::Attempt attempt;
    std::vector<Journey> journeys;
    base::Instant last_end;       // of work, anywhere
    std::optional<Item> last;     // that work
    base::Duration busiest;       // the most that one device worked; known at the commit
  };
  struct Worker {
    std::uint64_t stage = 0;
    bool counted = false;         // a period is open
    bool after_view = false;
    base::Step step;
    base::Attempt attempt;
    base::Instant opened;
    base::Instant mark;           // up to which the period is attributed
    Parts parts;                  // of the period; waiting for others' work stands under flush until it closes
    std::uint64_t works = 0;
  };
  struct Waited { base::Duration network, others, before, here; };

  void on(base::Instant now, WorkerNumber worker, const trace::Opened& event);
  void on(base::Instant now, WorkerNumber worker, const trace::Worked& event);
  void on(base::Instant now, WorkerNumber worker, const trace::Arrived& event);
  void on(base::Instant now, WorkerNumber worker, const trace::Gone& event);
  void on(base::Instant now, WorkerNumber worker, const trace::Back& event);
  void on(base::Instant now, WorkerNumber worker, const trace::Committed& event);
  void on(base::Instant now, WorkerNumber worker, const trace::Saved& event);
  void on(base::Instant now, WorkerNumber worker, const trace::Rewound& event);
  void on(base::Instant now, WorkerNumber worker, const trace::Struck& event);

  void worked_in_vain(base::Instant now, Worker& worker, const trace::Worked& event);
  void close(base::Instant now, Worker& worker);
  void lose(base::Instant now, Worker& worker);
  void attempt_opened(base::Attempt attempt);
  void find_cause();
  void in_vain(base::Duration work, std::uint64_t works);
  StepRecord& record(base::Step step, base::Attempt attempt);
  Journey& journey(StepRecord& record, std::uint64_t microbatch);
  /// What the wait from `from` to `to`, which `item` ended, was spent on.
  Waited wait(const StepRecord& record, const Item& item, base::Instant from, base::Instant to) const;
  void add_wait(Worker& worker, const Waited& waited);

  std::uint64_t stages_ = 0;
  std::map<WorkerNumber, Worker> workers_;
  std::map<base::Step, StepRecord> records_;      // of steps that some worker may still have open
  std::vector<Parts> settled_;                    // by stage: for good
  struct Committed { std::uint64_t tokens = 0; std::vector<Parts> parts; };
  std::map<base::Step, Committed> revocable_;     // committed after the newest checkpoint
  std::uint64_t steps_ = 0, tokens_ = 0;          // for good
  std::optional<base::Instant> began_;
  base::Instant newest_commit_;
  base::Attempt newest_attempt_;
  std::uint64_t attempts_ = 0;
  std::vector<Incident> incidents_;
  std::size_t open_incidents_ = 0;                // the last so many wait for a commit
  base::Step furthest_;                           // that was ever committed
  std::size_t behind_ = 0;                        // the last so many incidents wait for a step beyond it
  bool awaits_work_ = false;
  base::Duration repeated_;
};

}  // namespace stagecoach::observe
