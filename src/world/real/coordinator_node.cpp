#include "world/real/coordinator_node.h"

#include <ctime>

#include "wire/codec.h"

namespace stagecoach::world::real {

using base::Duration;
using base::Instant;
using base::PeerId;
using base::Result;

namespace {
constexpr Duration kShowEvery = Duration::milliseconds(250);
/// Slices that one peer may have asked for and not got: more is a peer that wants our memory, not our files.
constexpr std::size_t kSlicesPerPeerMax = 64;
constexpr std::uint64_t kSliceBytes = 1u << 20;
/// A peer that has not acknowledged so much reads slowly: it gets more when it has.
constexpr std::uint64_t kQueuedPerPeerMax = 8u << 20;
constexpr Duration kFarewellPatience = Duration::seconds(2);

std::int64_t unix_ms() {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  return t.tv_sec * 1000ll + t.tv_nsec / 1'000'000;
}
}  // namespace

Result<std::unique_ptr<CoordinatorNode>> CoordinatorNode::make(const link::Identity& identity, Options options, Log log) {
  auto endpoint = QuicEndpoint::open(identity, {options.bind, options.limits, {}});
  if (!endpoint) return endpoint.error();
  auto store = RunStore::open(options.store, options.fleet);
  if (!store) return store.error();
  auto events = observe::EventLog::open((options.store.run_dir / "events.jsonl").string());
  if (!events) return events.error();
  return std::unique_ptr<CoordinatorNode>(
      new CoordinatorNode(std::move(options), std::move(log), std::move(*endpoint), std::move(*store), std::move(*events)));
}

CoordinatorNode::CoordinatorNode(Options options, Log log, std::unique_ptr<QuicEndpoint> endpoint, std::unique_ptr<RunStore> store,
                                 observe::EventLog events)
    : options_(std::move(options)),
      log_(std::move(log)),
      endpoint_(std::move(endpoint)),
      store_(std::move(store)),
      events_(std::move(events)),
      brain_(std::make_unique<fleet::Brain>(options_.fleet)),
      board_(std::make_unique<StatusBoard>(options_.fleet, options_.name, monotonic_now(), unix_ms())) {
  for (const auto& finding : store_->findings()) log_.line(finding);
  if (const auto& from = store_->resumed_from()) board_->on_checkpoint({from->step.value(), from->path});
}

int CoordinatorNode::run() {
  const auto& fleet = options_.fleet;
  [[maybe_unused]] const auto logged = events_.append(
      {unix_ms(), observe::EventKind::run_started,
       {{"name", options_.name}, {"config_id", fleet.config_id.hex()}, {"step", brain_->committed().value()},
        {"steps", static_cast<std::uint64_t>(fleet.config.schedule.steps)}, {"stages", static_cast<std::uint64_t>(fleet.split.size())},
        {"replicas", fleet.replicas}}});
  join_by_ = monotonic_now() + options_.join_deadline;
  Loop loop(*endpoint_, endpoint_->fd(), wakeup_,
            {[this](link::Event& event) { on_link(event); }, [this] { on_wakeup(); }, [this] { on_time(); },
             [this] { return std::min(brain_->next_deadline(), show_due_); }, [this] { return exit_code_.has_value(); }});
  loop.run();
  loop.say_goodbye("the run ended: " + last_words_, kFarewellPatience);
  if (options_.show) options_.show(status());
  if (const auto flushed = events_.flush(); !flushed) log_.line("the event log: " + flushed.error().message);
  return *exit_code_;
}

observe::RunStatus CoordinatorNode::status() const {
  const auto round_trip = [this](const PeerId& peer) -> std::optional<Duration> {
    const auto stats = endpoint_->stats(peer);
    return stats ? std::optional(stats->round_trip) : std::nullopt;
  };
  return board_->status(*brain_, round_trip, monotonic_now());
}

void CoordinatorNode::request_stop() {
  stop_ = true;
  wakeup_.ring();
}

void CoordinatorNode::on_link(link::Event& event) {
  if (const auto* up = std::get_if<link::LinkUp>(&event)) return give(wire::LinkIsUp{up->peer, up->address});
  if (const auto* moved = std::get_if<link::AddressChanged>(&event)) return give(wire::PeerMoved{moved->peer, moved->address});
  if (const auto* down = std::get_if<link::LinkDown>(&event)) {
    slices_.erase(down->peer);
    status_given_.erase(down->peer);
    return give(wire::LinkIsDown{down->peer, down->reason, down->text});
  }
  const auto& arrived = std::get<link::FrameArrived>(event);
  auto message = wire::decode(*arrived.frame);
  if (!message || wire::priority_of(*message) != arrived.priority) {
    const std::string why = message ? "a message in the wrong class" : message.error().message;
    log_.line("closing the link to " + arrived.peer.short_hex() + ": " + why);
    endpoint_->close(arrived.peer, why);
    return;
  }
  if (!serve(arrived.peer, *message)) give(wire::MessageArrived{arrived.peer, std::move(*message)});
}

bool CoordinatorNode::serve(const PeerId& peer, const wire::Message& message) {
  if (std::holds_alternative<wire::StatusRequest>(message)) {
    answer_status(peer);
    return true;
  }
  const auto* request = std::get_if<wire::ObjectRequest>(&message);
  if (!request) return false;
  if (!brain_->workers().contains(peer)) {
    endpoint_->close(peer, "files are for workers of the run");
    return true;
  }
  Slices& slices = slices_[peer];
  if (slices.wanted.size() + slices.being_read >= kSlicesPerPeerMax) {
    endpoint_->close(peer, "asks for more slices at once than allowed");
    return true;
  }
  slices.wanted.push_back(*request);
  read_slices();
  return true;
}

void CoordinatorNode::answer_status(const PeerId& peer) {
  // Anybody may ask, as often as they like: what it costs us does not depend on that.
  const Instant now = monotonic_now();
  const auto [given, first] = status_given_.try_emplace(peer, now);
  if (!first && now < given->second + kShowEvery) return;
  given->second = now;
  if (bytes_queued(peer) > kQueuedPerPeerMax) return;
  if (status_json_.empty() || now >= status_made_ + kShowEvery) {
    status_json_ = observe::to_json(status());
    if (status_json_.size() > wire::kStatusTextMax) status_json_ = "{}";
    status_made_ = now;
  }
  send(peer, wire::StatusReply{status_json_});
}

std::uint64_t CoordinatorNode::bytes_queued(const PeerId& peer) const {
  const auto stats = endpoint_->stats(peer);
  return stats ? stats->bytes_queued : 0;
}

void CoordinatorNode::read_slices() {
  for (auto& [peer, slices] : slices_) {
    if (slices.wanted.empty()) continue;
    const std::uint64_t queued = bytes_queued(peer);
    while (!slices.wanted.empty() && queued + (slices.being_read + 1) * kSliceBytes <= kQueuedPerPeerMax) {
      ++slices.being_read;
      disk_.post([this, peer = peer, wanted = slices.wanted.front()] { slices_read_.post({peer, store_->read(wanted)}); });
      slices.wanted.pop_front();
    }
  }
}

void CoordinatorNode::on_wakeup() {
  if (stop_.exchange(false)) {
    log_.line("asked to stop: after this step");
    board_->note("asked to stop: the run finishes its step, saves it and ends; Ctrl-C again ends it at once");
    give(fleet::StopRequested{});
  }
  for (auto& [peer, slice] : slices_read_.take()) {
    if (const auto it = slices_.find(peer); it != slices_.end() && it->second.being_read > 0) --it->second.being_read;
    send(peer, slice);
  }
  read_slices();  // peers may have acknowledged what they got
  for (auto& result : results_.take()) give(std::move(result));
}

void CoordinatorNode::on_time() {
  const Instant now = monotonic_now();
  if (now >= show_due_) {
    show_due_ = now + kShowEvery;
    if (options_.ended_workers)
      for (const auto& [peer, how] : options_.ended_workers()) on_ended_worker(peer, how);
    if (options_.show) options_.show(status());
    [[maybe_unused]] const auto flushed = events_.flush();  // a full disk shows at the next checkpoint, with its words
    if (!exit_code_ && !brain_->running() && now >= join_by_) {
      give_up("not all workers came within " + std::to_string(options_.join_deadline.ns() / 1'000'000'000) + " s (" +
              brain_->phase_text() + "): start the missing ones and run this again, or ask for fewer replicas");
    }
  }
  give(fleet::Tick{});
}

void CoordinatorNode::on_ended_worker(const PeerId& peer, const std::string& how) {
  // The launcher starts each worker once: without one of them a run that gathers would wait until its deadline.
  if (!exit_code_ && !brain_->running()) return give_up("worker " + peer.short_hex() + " ended before the run began: " + how);
  give(fleet::PeerExited{peer, how});
}

void CoordinatorNode::give_up(const std::string& why) {
  last_words_ = why;
  log_.line(why);
  for (const auto& [peer, worker] : brain_->workers())
    if (worker.linked) send(peer, wire::Evicted{options_.fleet.term, worker.incarnation, "the run did not begin: " + why.substr(0, 2000)});
  on_happening(fleet::RunFinished{brain_->committed(), why});
  exit_code_ = 9;
}

void CoordinatorNode::give(fleet::Event event) {
  if (exit_code_) return;
  carry_out(brain_->step(std::move(event), monotonic_now()));
}

void CoordinatorNode::send(const PeerId& peer, const wire::Message& message) {
  const auto sent = endpoint_->send(peer, base::make_payload(wire::encode(message)), {wire::priority_of(message), Instant::never()});
  if (sent || sent.error().code == base::ErrorCode::not_found) return;  // not_found: its LinkDown is on the way
  log_.line("closing the link to " + peer.short_hex() + ": " + sent.error().message);
  endpoint_->close(peer, "its frames cannot be queued any more");
}

void CoordinatorNode::carry_out(fleet::Effects effects) {
  const auto stored = [](base::OpId op, const Result<void>& result) {
    return fleet::StoreDone{op, result.ok() ? std::nullopt : std::optional(result.error())};
  };
  for (auto& effect : effects) {
    if (auto* out = std::get_if<wire::Send>(&effect)) {
      send(out->peer, out->message);
    } else if (auto* close = std::get_if<wire::CloseLink>(&effect)) {
      endpoint_->close(close->peer, close->text);
    } else if (auto* view = std::get_if<fleet::StoreView>(&effect)) {
      disk_.post([this, stored, work = std::move(*view)] { results_.post(stored(work.op, store_->write(work.record))); });
    } else if (auto* commit = std::get_if<fleet::StoreCommit>(&effect)) {
      disk_.post([this, stored, work = std::move(*commit)] { results_.post(stored(work.op, store_->write(work.record))); });
    } else if (auto* begin = std::get_if<fleet::CheckpointBegin>(&effect)) {
      disk_.post([this, version = begin->version] { store_->begin_checkpoint(version); });
    } else if (auto* chunk = std::get_if<fleet::CheckpointChunk>(&effect)) {
      disk_.post([this, work = std::move(*chunk)] { store_->add_chunk(work.stage, work.chunk); });
    } else if (std::holds_alternative<fleet::CheckpointAbandon>(effect)) {
      disk_.post([this] { store_->abandon_checkpoint(); });
    } else if (auto* finish = std::get_if<fleet::CheckpointFinish>(&effect)) {
      // A resume goes on after the checkpoint: whatever of the event log is not written by then never will be.
      if (const auto flushed = events_.flush(); !flushed) log_.line("the event log: " + flushed.error().message);
      disk_.post([this, version = finish->version, numerics = numerics_class_] {
        auto path = store_->finish_checkpoint(numerics);
        fleet::CheckpointDone done{version, path ? *path : "", path ? std::nullopt : std::optional(path.error())};
        results_.post(std::move(done));
      });
    } else if (auto* exit = std::get_if<wire::Exit>(&effect)) {
      log_.line("ends with " + std::to_string(exit->code) + ": " + exit->text);
      exit_code_ = exit->code;
      last_words_ = exit->text;
    } else if (auto* happening = std::get_if<fleet::Happening>(&effect)) {
      on_happening(*happening);
    }
  }
}

void CoordinatorNode::on_happening(const fleet::Happening& happening) {
  if (const auto* joined = std::get_if<fleet::WorkerJoined>(&happening)) numerics_class_ = joined->numerics_class;
  if (std::holds_alternative<fleet::WorkerLost>(happening)) ++workers_lost_;
  if (std::holds_alternative<fleet::AttemptOpened>(happening)) ++attempts_;
  for (const auto& event : board_->on(happening, *brain_, monotonic_now(), unix_ms())) {
    if (event.kind != observe::EventKind::step_committed && event.kind != observe::EventKind::view) log_.line(observe::describe(event));
    if (const auto kept = events_.append(event); !kept) log_.line("the event log: " + kept.error().message);
  }
}

}  // namespace stagecoach::world::real
