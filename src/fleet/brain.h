// The coordinator's brain: membership, views, leases and commits, as a pure state machine (DESIGN §3).
//
// In:      events (links, messages, finished writes, the user's wish to stop) and the time.
// Out:     effects in order (messages, writes, checkpoint steps, happenings for log and view, exit), and the next deadline.
// Thread:  loop. No socket, clock, thread, file or torch inside.
// Why:     the run's only decider is small, replays bit for bit from a seed, and never touches a tensor.
//
// The phases have a file each: gather.cpp (hello, seats, losses), views.cpp (attempts, trouble), steps.cpp (leases, prepared,
// commit, the end), save.cpp (checkpoints).
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "base/time.h"
#include "fleet/pieces.h"
#include "fleet/records.h"
#include "model/config.h"
#include "wire/peer_events.h"

namespace stagecoach::fleet {

// ---- events, beside wire::LinkIsUp, LinkIsDown and MessageArrived ----
struct StoreDone {
  base::OpId op;
  std::optional<base::Error> error;
};
struct CheckpointDone {
  base::WeightVersion version;
  std::string path;
  std::optional<base::Error> error;
};
/// The launcher saw a worker process of its own end.
struct PeerExited {
  base::PeerId peer;
  std::string text;
};
/// The user wants the run to stop after the present step, with a checkpoint.
struct StopRequested {};
struct Tick {};
using Event = std::variant<wire::LinkIsUp, wire::PeerMoved, wire::LinkIsDown, wire::MessageArrived, StoreDone, CheckpointDone,
                           PeerExited, StopRequested, Tick>;

// ---- effects, beside wire::Send, CloseLink and Exit ----
struct StoreView {
  base::OpId op;
  ViewRecord record;
};
struct StoreCommit {
  base::OpId op;
  CommitRecord record;
};
struct CheckpointBegin {
  base::WeightVersion version;
  std::uint64_t stages = 0;
};
struct CheckpointChunk {
  base::StageIndex stage;
  wire::StateChunk chunk;
};
/// All chunks of all stages were given: commit it, then CheckpointDone.
struct CheckpointFinish {
  base::WeightVersion version;
};
struct CheckpointAbandon {
  base::WeightVersion version;
  std::string reason;
};

/// What happened, for the event log and the live view.
struct WorkerJoined { base::PeerId peer; base::StageIndex stage; std::string numerics_class; };
struct WorkerLost { base::PeerId peer; base::StageIndex stage; std::string reason; };
struct AttemptOpened { base::Attempt attempt; base::Step step; std::string reason; };
struct StepCommitted {
  base::Step step;
  base::Attempt attempt;
  double train_loss = 0;             // nats per token; NaN where the step trained nothing
  std::optional<double> eval_loss;   // nats per token, of the weights before the step
  double global_norm = 0;
};
struct CheckpointWritten { base::WeightVersion version; std::string path; };
struct CheckpointFailed { base::WeightVersion version; std::string reason; };
struct RunFinished { base::Step step; std::string reason; };
using Happening = std::variant<WorkerJoined, WorkerLost, AttemptOpened, StepCommitted, CheckpointWritten, CheckpointFailed, RunFinished>;

using Effect = std::variant<wire::Send, wire::CloseLink, wire::Exit, StoreView, StoreCommit, CheckpointBegin, CheckpointChunk,
                            CheckpointFinish, CheckpointAbandon, Happening>;
using Effects = std::vector<Effect>;

/// What the numerics class of a device that only takes its time begins with.
inline constexpr std::string_view kPacedClass = "paced";

struct Options {
  model::TrainConfig config;
  model::Split split;
  std::uint64_t replicas = 1;                  // seats per stage
  base::RunId run;
  base::ConfigId config_id;
  base::Sha256 layout_id;
  std::string config_text;
  base::Term term;
  base::Attempt last_attempt;                  // the highest ever written: never used again
  std::vector<base::ViewNumber> last_views;    // per stage; empty in a new run
  base::Step committed;                        // to go on from: 0, or the step of the checkpoint that was loaded
  std::uint64_t checkpoint_every = 100;        // steps; 0 = only at the end
  std::vector<std::vector<wire::ObjectRef>> state;  // per stage, where committed > 0
  std::vector<wire::ObjectRef> shards;
  bool paced = false;                          // its workers take a device's time and compute nothing: all of them, or none
  /// What a stage's state consists of, by name: a checkpoint takes exactly these. Empty = whatever comes (the simulated world).
  std::vector<std::map<std::string, std::vector<std::uint64_t>>> state_shapes;
  std::set<std::pair<base::PeerId, base::Incarnation>> ever_admitted;  // none of them joins again (B11)
};

class Brain {
 public:
  explicit Brain(Options options);
  virtual ~Brain() = default;

  Effects step(Event event, base::Instant now);
  base::Instant next_deadline() const { return tick_due_; }

  base::Step committed() const { return committed_; }
  base::Attempt attempt() const { return attempt_; }

  /// One worker as the coordinator sees it.
  struct Worker {
    base::Incarnation incarnation;
    std::uint64_t stage = 0;
    bool ready = false;
    bool in_view = false;
    bool linked = false;
    bool silent = false;             // its link ended by the idle time-out: a suspicion until the next tick
    base::Instant down_since;
    base::Instant heard_at;          // any message
    std::vector<link::Address> addresses;
    std::string numerics_class;
    wire::Telemetry telemetry;
    wire::Telemetry previous;        // for rates
    base::Instant telemetry_at, previous_at;
    base::Instant waiting_since;     // when it began to wait for what it waits for now
  };
  const std::map<base::PeerId, Worker>& workers() const { return workers_; }
  const std::vector<wire::StageView>& views() const { return views_; }
  const Options& options() const { return options_; }
  bool running() const { return phase_ == Phase::running; }
  /// An attempt was voided and the next one is not announced yet.
  bool recovering() const { return view_in_store_.has_value() || !attempt_reasons_.empty(); }
  /// No step is open any more and the last checkpoint is on its way.
  bool saving() const { return draining_ && save_.has_value(); }
  /// Why the run is where it is, for people; empty while it simply goes on.
  std::string phase_text() const;
  /// True where `peer` has reported its whole result of the open step.
  bool has_prepared(const base::PeerId& peer) const { return prepared_.contains(peer); }

 protected:
  /// A planted bug overrides this in a test-only variant; the program never does.
  virtual bool all_prepared() const;

 private:
  enum class Phase : std::uint8_t { gathering, running, ended };

  // gather.cpp
  void on_message(const base::PeerId& peer, wire::Message& message);
  void on_hello(const base::PeerId& peer, const wire::Hello& hello);
  void on_return(const base::PeerId& peer, Worker& worker, const wire::Hello& hello);
  void on_ready(const base::PeerId& peer, const wire::Ready& ready);
  void on_telemetry(const base::PeerId& peer, const wire::Telemetry& telemetry);
  void on_moved(const wire::PeerMoved& event);
  void on_link_down(const wire::LinkIsDown& event);
  void close_strangers();
  void on_tick();
  void refuse(const base::PeerId& peer, base::Incarnation incarnation, const std::string& reason);
  std::optional<std::uint64_t> free_seat() const;
  void send_assignment(const base::PeerId& peer);
  std::vector<link::Address> addresses_of(const base::PeerId& peer, const wire::Hello& hello) const;
  void lose(const base::PeerId& peer, const std::string& reason);
  void open_again_if_stalled();
  void begin_if_complete();

  // views.cpp
  void want_attempt(const std::string& reason);
  void open_attempt();
  void announce(const ViewRecord& record);
  void on_trouble(const base::PeerId& peer, const wire::Trouble& trouble);
  void on_unreachable(const base::PeerId& peer, const wire::Trouble& trouble);
  bool is_silent(const base::PeerId& peer) const;
  wire::View view_for(std::uint64_t stage) const;
  std::uint64_t members_of(std::uint64_t stage) const { return views_[stage].members.size(); }

  // steps.cpp
  void lease_step();
  void send_leases(const base::PeerId& head);
  void on_prepared(const base::PeerId& peer, wire::Prepared& prepared);
  void try_commit();
  bool make_record(CommitRecord& record, std::string& why) const;
  void committed(const CommitRecord& record);
  wire::Commit commit_for(std::uint64_t stage) const;
  void finish_if_done();
  void end(int code, const std::string& text);

  // save.cpp
  bool save_due(base::Step step) const;
  base::WeightVersion newest_weights() const;
  void request_save();
  void abandon_save(const std::string& reason);
  void on_state_chunk(const base::PeerId& peer, wire::StateChunk& chunk);
  bool belongs(std::uint64_t stage, const wire::StateChunk& chunk) const;
  void on_checkpoint_done(const CheckpointDone& done);

  void on_store_done(const StoreDone& done);
  void send(const base::PeerId& peer, wire::Message message);
  void happened(Happening what) { effects_.push_back(std::move(what)); }
  base::Step open_step() const { return committed_.next(); }
  bool last_step_committed() const { return committed_ >= model::final_step(options_.config); }

  Options options_;
  base::Instant now_;
  Effects effects_;
  Phase phase_ = Phase::gathering;
  base::Instant tick_due_;

  std::map<base::PeerId, Worker> workers_;
  std::map<base::PeerId, link::Address> seen_at_;              // of links that are up; the endpoint bounds their number
  std::map<base::PeerId, base::Instant> strangers_;  // linked, without a place, since
  std::set<std::pair<base::PeerId, base::Incarnation>> gone_;  // evicted, or admitted under an earlier term

  // views
  base::Attempt attempt_;
  std::vector<wire::StageView> views_;
  std::string attempt_reason_;                 // of the present one
  std::vector<std::string> attempt_reasons_;   // why the next attempt is wanted; empty = it is not
  std::vector<Eviction> evictions_;            // for the next view's row
  std::vector<Eviction> farewells_;            // to be told once that row is written
  struct Unreachable {
    base::Attempt attempt;  // in which it was last reported: both ends report it, again and again
    int rounds = 0;
  };
  std::map<std::pair<base::PeerId, base::PeerId>, Unreachable> unreachable_;
  std::map<base::Step, int> broken_;           // times that a step's books did not add up

  // the store
  std::uint64_t next_op_ = 1;
  std::optional<base::OpId> storing_;
  std::optional<ViewRecord> view_in_store_;
  std::optional<CommitRecord> commit_in_store_;

  // the open step
  base::Step committed_;
  std::optional<CommitRecord> newest_commit_;  // of this term
  std::map<base::PeerId, wire::Prepared> prepared_;
  std::map<base::PeerId, wire::Lease> leases_;
  base::Instant step_began_;
  base::Duration longest_step_;
  base::Instant progress_at_;                  // when anything of the open step was last seen to move
  int stalls_ = 0;                             // times in a row that nothing moved for too long

  // the checkpoint being made
  struct Save {
    base::WeightVersion version;
    struct Source {
      base::PeerId peer;
      std::uint32_t tensors = 0;                       // as announced by its first chunk
      std::map<std::string, std::uint32_t> names;      // of the tensors that have begun, with their positions
      std::map<std::uint32_t, TensorPieces> arrived;   // by tensor that has begun
      std::uint32_t done = 0;                          // tensors that are whole
    };
    std::vector<Source> sources;                       // per stage
    bool handed_over = false;                          // all chunks are with the world
  };
  std::optional<Save> save_;
  bool save_wanted_ = false;
  bool stopping_ = false;
  bool draining_ = false;                              // no more leases: the last step of this session is committed
  std::optional<std::string> save_error_;
  base::WeightVersion saved_;                          // newest version that is durable
};

}  // namespace stagecoach::fleet
