// The worker's brain: schedule, routing, custody and the exact step, as a pure state machine (DESIGN §3).
//
// In:      events (links, messages, finished compute, readiness) and the time.
// Out:     effects in order (messages, dials, compute requests, set-up, exit), and the next deadline.
// Thread:  loop. No socket, clock, thread or torch inside.
// Why:     the same code runs over QUIC and torch, and over a simulated network with provenance tensors.
//
// The phases have a file each: join.cpp (coordinator, assignment, views, links), train.cpp (offers, compute, gradients),
// close.cpp (reduce, prepared, commit), report.cpp (trouble, telemetry, what is waited for).
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "model/config.h"
#include "wire/peer_events.h"
#include "worker/books.h"
#include "worker/compute_requests.h"
#include "worker/window.h"

namespace stagecoach::worker {

// ---- events, beside wire::LinkIsUp, LinkIsDown and MessageArrived ----

/// The world has done what Prepare asked: state and shards are here, the device holds the assigned version.
struct PrepareDone {
  std::int64_t elements = 0;         // of the stage's flat gradient
  std::int64_t element_bytes = 8;    // of its sums
  std::size_t token_bytes = 0;       // of a microbatch's token ids
  std::size_t input_bytes = 0;       // of a boundary tensor into this stage; 0 at the head
  std::size_t output_bytes = 0;      // of a boundary tensor out of it; 0 at the tail
  std::string numerics_class;
  std::optional<base::Error> error;
  std::int64_t shard_bytes_max = replica::kShardBytesMax;  // of a reduce; less where a few sums stand for many
};
struct ComputeDone {
  base::OpId op;
  ComputeResult result;
  base::Duration took;
  std::optional<base::Error> error;
};
/// Time passed, or link figures are new: nothing else happened.
struct Tick {
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
  std::uint64_t queued_bytes = 0;  // to the coordinator, not acknowledged yet
};
/// The user asked this worker to leave.
struct LeaveRequested {};
using Event = std::variant<wire::LinkIsUp, wire::LinkIsDown, wire::MessageArrived, PrepareDone, ComputeDone, Tick, LeaveRequested>;

// ---- effects, beside wire::Send, Dial, CloseLink and Exit ----

/// Fetch what the assignment names, open the device, load the state: then PrepareDone.
struct Prepare {
  wire::Assign assign;
  model::TrainConfig config;
  model::StageRange range;
  int versions_kept = 1;
};
struct Compute {
  base::OpId op;
  ComputeRequest request;
};
/// A line for the log: a decision and its reason.
struct Note {
  std::string text;
};
using Effect = std::variant<wire::Send, wire::Dial, wire::CloseLink, wire::Exit, Prepare, Compute, Note>;
using Effects = std::vector<Effect>;

struct Options {
  base::PeerId self;
  base::Incarnation incarnation;
  base::PeerId coordinator;
  std::vector<link::Address> coordinator_addresses;
  std::vector<link::Address> own_addresses;  // where other workers may dial us
};

class Brain {
 public:
  explicit Brain(Options options);
  virtual ~Brain() = default;

  /// The first effects: dials the coordinator.
  Effects start(base::Instant now);
  Effects step(Event event, base::Instant now);
  /// When to call step(Tick) if nothing happens.
  base::Instant next_deadline() const;

  /// For tests and the simulator's checkers.
  base::WeightVersion version() const { return version_; }
  base::Attempt attempt() const { return attempt_; }
  const Books& books() const { return books_; }
  std::size_t parked() const { return parked_.size(); }

 protected:
  // A planted bug overrides one of these in a test-only variant; the program never does.
  virtual bool stale(const wire::Stamps& stamps) const;             // B0: older in attempt or either view
  virtual bool accumulates_again(const Microbatch&) const { return false; }  // a repeated gradient is ignored

 private:
  // join.cpp
  void on_link_up(const wire::LinkIsUp& event);
  void on_link_down(const wire::LinkIsDown& event);
  void on_coordinator_down(const wire::LinkIsDown& event);
  void on_coordinator_message(wire::Message& message);
  void on_assign(wire::Assign& assign);
  void on_prepare_done(PrepareDone& event);
  void on_view(wire::View& view);
  void install_members(const wire::View& view);
  void dial_members();
  void close_strangers();
  void send_hello();
  void dial_coordinator();

  // train.cpp
  void on_data(const base::PeerId& from, wire::Message message);
  void take_lease(const wire::Lease& lease);
  void own_at_head(base::Step step, base::MicrobatchIndex m);
  void accept_data(const base::PeerId& from, wire::Message& message);
  void on_offer(const base::PeerId& from, wire::Offer& offer);
  void on_accepted(const base::PeerId& from, const wire::Accepted& accepted);
  void on_gradient(const base::PeerId& from, wire::Gradient& gradient);
  void try_offer(base::Step step, base::MicrobatchIndex m);
  void on_released(const base::PeerId& from, const wire::Released& released);
  void try_offers();
  void queue_forward(base::Step step, base::MicrobatchIndex m);
  void queue_backward(base::Step step, base::MicrobatchIndex m);
  void forward_done(base::Step step, base::MicrobatchIndex m, ComputeResult& result);
  void backward_done(base::Step step, base::MicrobatchIndex m, ComputeResult& result);
  void park(const base::PeerId& from, wire::Message message);
  bool fits(const wire::Message& message) const;
  void unpark();
  bool in_plan(const wire::Stamps& stamps) const;
  std::optional<base::PeerId> choose_owner(base::MicrobatchIndex m) const;
  bool idle_in(const StepBooks& books) const;

  // close.cpp
  void open_steps();
  StepBooks& open_step(base::Step step);
  void publish_bits(base::Step step);
  void run_actions(base::Step step, const replica::Actions& actions);
  void on_bits(const base::PeerId& from, const wire::Bits& bits);
  void on_reduced_written(base::Step step, ComputeResult& result);
  void send_prepared(StepBooks& books);
  void on_commit(const wire::Commit& commit);
  void applied(base::Step step);
  void on_save_request(const wire::SaveRequest& request);
  void send_state(std::uint64_t queued_bytes);

  // report.cpp
  void trouble(wire::TroubleKind kind, const base::PeerId& partner, const std::string& text);
  void send_troubles();
  void send_telemetry();
  std::string waiting() const;
  void note(const std::string& text) { effects_.push_back(Note{text}); }
  void fail(const std::string& text) { exit(1, text); }
  void exit(int code, const std::string& text);

  // brain.cpp
  void on_compute_done(ComputeDone& done);
  void on_tick(const Tick& tick);
  void dispatch_compute();
  void issue(ComputeRequest request, base::Step step, base::MicrobatchIndex m, base::ShardIndex shard);
  void urgent(ComputeRequest request, base::Step step, base::ShardIndex shard = {});
  void drop_open_work();
  void send(const base::PeerId& peer, wire::Message message);
  void send_coordinator(wire::Message message) { send(options_.coordinator, std::move(message)); }
  bool is_up(const base::PeerId& peer) const { return up_.contains(peer); }
  const wire::StageView* view_of(std::uint64_t stage) const;
  std::optional<std::uint64_t> stage_of(const base::PeerId& peer) const;
  wire::Stamps stamps(std::uint64_t to_stage, base::Step step, base::MicrobatchIndex m) const;
  bool head() const { return stage_ == 0; }
  bool tail() const { return stage_ + 1 == split_.size(); }
  bool evaluates(base::Step step, base::MicrobatchIndex m) const;

  struct Pending {
    base::Step step;
    base::MicrobatchIndex m;
    base::ShardIndex shard;
    std::size_t kind = 0;              // index in ComputeRequest
  };

  Options options_;
  base::Instant now_;
  Effects effects_;

  // the coordinator
  enum class Phase : std::uint8_t { joining, preparing, ready, in_view, ended };
  Phase phase_ = Phase::joining;
  base::Term term_;
  base::RunId run_;
  std::uint32_t dials_ = 0;                         // of the coordinator, since it was last up
  base::Instant redial_at_ = base::Instant::never();
  base::Instant give_up_at_ = base::Instant::never();

  // the assignment
  model::TrainConfig config_;
  model::Split split_;
  std::uint64_t stage_ = 0;
  base::WeightVersion assigned_version_;
  std::unique_ptr<WindowPolicy> window_;
  PrepareDone ready_;

  // the view
  base::Attempt attempt_;
  std::map<std::uint64_t, wire::StageView> views_;  // of s − 1, s, s + 1
  std::set<base::PeerId> up_;
  std::map<base::PeerId, base::Instant> strangers_;  // linked, in no view that we know, since
  std::map<base::PeerId, std::vector<wire::Message>> outbox_;  // for members whose link is not up yet
  base::Instant links_due_ = base::Instant::never();
  base::Instant redial_members_at_ = base::Instant::never();

  // the books
  base::WeightVersion version_;
  std::optional<wire::Commit> applying_;
  Books books_;
  std::vector<wire::Lease> leases_;                 // of the present attempt; taken up when their step opens
  std::vector<std::pair<base::PeerId, wire::Message>> parked_;
  std::uint64_t parked_bytes_ = 0;
  std::map<base::PeerId, std::uint64_t> outstanding_;  // microbatches named to a member of the next stage and not answered

  // the state that a checkpoint asked for, on its way to the coordinator
  struct Outgoing {
    base::WeightVersion version;
    std::vector<base::NamedTensor> state;
    std::size_t tensor = 0;   // the next slice's
    std::size_t offset = 0;
  };
  std::optional<Outgoing> outgoing_;
  base::Instant outgoing_due_ = base::Instant::never();

  // the device
  std::uint64_t next_op_ = 1;
  std::map<base::OpId, Pending> pending_;
  std::deque<std::pair<ComputeRequest, Pending>> urgent_;
  std::set<std::pair<base::Step, base::MicrobatchIndex>> backward_ready_;
  std::set<std::pair<base::Step, base::MicrobatchIndex>> forward_ready_;
  std::size_t on_device_ = 0;                       // void ones included: they too keep the device busy
  base::Instant device_since_;                      // when the device began with the oldest of them
  std::uint64_t busy_ns_ = 0;
  std::uint64_t service_max_ns_ = 0;

  // reports
  std::map<base::PeerId, wire::Trouble> troubles_;
  base::Instant troubles_due_ = base::Instant::never();
  base::Instant telemetry_due_ = base::Instant::never();
  std::uint64_t microbatches_committed_ = 0;
  std::uint64_t bytes_sent_ = 0;
  std::uint64_t bytes_received_ = 0;
};

}  // namespace stagecoach::worker
