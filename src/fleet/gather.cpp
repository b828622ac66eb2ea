// Who is there: hellos, seats, readiness, losses.
#include <algorithm>

#include "fleet/brain.h"

namespace stagecoach::fleet {

using base::Duration;
using base::Instant;
using base::PeerId;

namespace {
constexpr Duration kTick = Duration::milliseconds(500);
constexpr std::uint64_t kReportedNsMax = std::uint64_t{1} << 55;  // about a year
/// Who has a link without a place in the run keeps it for so long: time for a hello, for a question about the run's status, or to
/// read a refusal.
constexpr Duration kStrangerTime = Duration::seconds(10);
/// How long a worker may be without a link before it is taken for dead, where the link broke without a word.
constexpr Duration kReturnGrace = Duration::seconds(3);
/// A device that has not answered for 20 times its longest operation, and at least this long, hangs (PROTOCOL, time-out 1).
constexpr Duration kHangAtLeast = Duration::seconds(30);
/// Before the first commit nobody knows how long an operation takes: a device may compile or load first.
constexpr Duration kHangAtFirst = Duration::seconds(600);
/// The net below all others: a step in which nothing was seen to move for 10 times the longest step so far, and at least this
/// long, is opened again; twice as late each time in a row, so that it ends even where this is too short.
constexpr Duration kStallAtLeast = Duration::seconds(120);
}  // namespace

void Brain::on_message(const PeerId& peer, wire::Message& message) {
  if (auto* hello = std::get_if<wire::Hello>(&message)) return on_hello(peer, *hello);
  const auto it = workers_.find(peer);
  if (it == workers_.end() || !it->second.linked) {
    // Frames of a link that we have judged already may still be on the way; anybody else must say hello first.
    return;
  }
  it->second.heard_at = now_;
  if (auto* ready = std::get_if<wire::Ready>(&message)) on_ready(peer, *ready);
  else if (auto* prepared = std::get_if<wire::Prepared>(&message)) on_prepared(peer, *prepared);
  else if (auto* trouble = std::get_if<wire::Trouble>(&message)) on_trouble(peer, *trouble);
  else if (auto* telemetry = std::get_if<wire::Telemetry>(&message)) on_telemetry(peer, *telemetry);
  else if (auto* chunk = std::get_if<wire::StateChunk>(&message)) on_state_chunk(peer, *chunk);
  else effects_.push_back(wire::CloseLink{peer, std::string(wire::name_of(message)) + " is not for a coordinator"});
}

void Brain::refuse(const PeerId& peer, base::Incarnation incarnation, const std::string& reason) {
  effects_.push_back(wire::Send{peer, wire::Evicted{options_.term, incarnation, reason.substr(0, wire::kTextMax)}});
}

void Brain::on_hello(const PeerId& peer, const wire::Hello& hello) {
  if (hello.protocol_version != wire::kProtocolVersion)
    return refuse(peer, hello.incarnation, "this run speaks protocol version " + std::to_string(wire::kProtocolVersion) +
                                               ", the worker version " + std::to_string(hello.protocol_version) + ": update it");
  if (hello.run.value() != 0 && hello.run != options_.run)
    return refuse(peer, hello.incarnation, "this worker belongs to another run: start it again with this run's link");
  if (gone_.contains({peer, hello.incarnation}))
    return refuse(peer, hello.incarnation, "this incarnation was evicted and its work was done again: start the worker anew");
  if (const auto it = workers_.find(peer); it != workers_.end()) {
    if (it->second.incarnation == hello.incarnation) return on_return(peer, it->second, hello);
    lose(peer, "its process was started anew");
  }
  if (phase_ != Phase::gathering)
    return refuse(peer, hello.incarnation,
                  "the run has begun and takes no more workers until it is stopped and resumed: try again then");
  const auto seat = free_seat();
  if (!seat) return refuse(peer, hello.incarnation, "all places of this run are taken");
  Worker worker;
  worker.incarnation = hello.incarnation;
  worker.stage = *seat;
  worker.linked = true;
  worker.heard_at = now_;
  worker.addresses = addresses_of(peer, hello);
  workers_[peer] = worker;
  send_assignment(peer);
}

void Brain::send_assignment(const PeerId& peer) {
  const std::uint64_t seat = workers_.at(peer).stage;
  wire::Assign assign;
  assign.term = options_.term;
  assign.run = options_.run;
  assign.config_id = options_.config_id;
  assign.layout_id = options_.layout_id;
  assign.config_text = options_.config_text;
  for (const auto& range : options_.split) assign.split_ends.push_back(static_cast<std::uint64_t>(range.last));
  assign.stage = base::StageIndex(seat);
  assign.version = base::WeightVersion(committed_.value());
  if (committed_.value() > 0) assign.state = options_.state.at(seat);
  if (seat == 0) assign.shards = options_.shards;
  send(peer, std::move(assign));
}

void Brain::on_return(const PeerId& peer, Worker& worker, const wire::Hello& hello) {
  worker.linked = true;
  worker.heard_at = now_;
  worker.silent = false;
  worker.addresses = addresses_of(peer, hello);
  if (phase_ == Phase::gathering) {
    send_assignment(peer);  // it may never have heard it
    return begin_if_complete();
  }
  if (!worker.in_view) return;  // the view on its way is its answer
  if (hello.version.value() > committed_.value())
    return end(6, "a worker has applied step " + std::to_string(hello.version.value()) + ", the database's newest is step " +
                      std::to_string(committed_.value()) + ": the database is damaged; resume from the newest checkpoint");
  // All that it missed, in order: the commit, then the view, then its lease.
  if (hello.version.value() < committed_.value() && newest_commit_) send(peer, commit_for(worker.stage));
  if (hello.attempt < attempt_ && !view_in_store_) send(peer, view_for(worker.stage));
  if (worker.stage == 0 && !view_in_store_) send_leases(peer);
}

std::vector<link::Address> Brain::addresses_of(const PeerId& peer, const wire::Hello& hello) const {
  std::vector<link::Address> all = hello.addresses;
  const auto seen = seen_at_.find(peer);
  // Behind a translator of addresses only we know where the worker's one socket can be reached.
  if (seen == seen_at_.end() || seen->second.host.empty() || std::find(all.begin(), all.end(), seen->second) != all.end()) return all;
  if (all.size() >= wire::kAddressesMax) all.pop_back();
  all.push_back(seen->second);
  return all;
}

std::optional<std::uint64_t> Brain::free_seat() const {
  std::vector<std::uint64_t> taken(options_.split.size(), 0);
  for (const auto& [peer, worker] : workers_) ++taken[worker.stage];
  const auto least = std::min_element(taken.begin(), taken.end());
  if (*least >= options_.replicas) return std::nullopt;
  return static_cast<std::uint64_t>(least - taken.begin());
}

void Brain::on_ready(const PeerId& peer, const wire::Ready& ready) {
  Worker& worker = workers_.at(peer);
  if (worker.ready || phase_ != Phase::gathering) return;
  if (ready.version.value() != committed_.value())
    return lose(peer, "it loaded version " + std::to_string(ready.version.value()) + " instead of " +
                          std::to_string(committed_.value()));
  if (const bool paced = ready.numerics_class.starts_with(kPacedClass); paced != options_.paced) {
    gone_.insert({peer, worker.incarnation});
    return lose(peer, paced ? "this run computes, and the worker is paced: start it with a real --device"
                            : "this run is paced, and the worker computes with \"" + ready.numerics_class + "\": start it with --device paced:NAME");
  }
  for (const auto& [other, theirs] : workers_) {
    // Bit equality holds within one numerics class only (DESIGN §5): devices whose kernels differ may not share an exact run.
    if (!theirs.ready || theirs.numerics_class == ready.numerics_class) continue;
    gone_.insert({peer, worker.incarnation});  // it would come back with the same kernels
    return lose(peer, "this run computes with \"" + theirs.numerics_class + "\", the worker with \"" + ready.numerics_class +
                          "\": an exact run needs equal kernels everywhere");
  }
  worker.ready = true;
  worker.numerics_class = ready.numerics_class;
  happened(WorkerJoined{peer, base::StageIndex(worker.stage), ready.numerics_class});
  begin_if_complete();
}

void Brain::begin_if_complete() {
  std::uint64_t ready = 0;
  for (const auto& [peer, worker] : workers_) ready += worker.ready && worker.linked;
  if (ready < options_.replicas * options_.split.size()) return;
  for (const auto& [peer, worker] : workers_)
    views_[worker.stage].members.push_back(wire::Member{peer, worker.incarnation, worker.addresses});
  phase_ = Phase::running;
  step_began_ = progress_at_ = now_;
  want_attempt("all workers are here");
}

void Brain::on_telemetry(const PeerId& peer, const wire::Telemetry& telemetry) {
  Worker& worker = workers_.at(peer);
  if (telemetry.waiting != worker.telemetry.waiting) worker.waiting_since = now_;
  worker.previous = worker.telemetry;
  worker.previous_at = worker.telemetry_at;
  worker.telemetry = telemetry;
  worker.telemetry_at = now_;
  const auto moved = [](const wire::Telemetry& t) { return std::tie(t.attempt, t.version, t.forwarded, t.accepted, t.accumulated, t.reduced); };
  // A device at work moves too; where it hangs, its own time-out finds it.
  if (telemetry.running_ns > 0 || moved(telemetry) != moved(worker.previous)) progress_at_ = now_;
}

void Brain::on_moved(const wire::PeerMoved& event) {
  const link::Address before = std::exchange(seen_at_[event.peer], event.address);
  const auto it = workers_.find(event.peer);
  if (it == workers_.end()) return;
  auto& addresses = it->second.addresses;
  std::erase(addresses, before);
  std::erase(addresses, event.address);
  if (addresses.size() >= wire::kAddressesMax) addresses.pop_back();
  addresses.push_back(event.address);
}

void Brain::on_link_down(const wire::LinkIsDown& event) {
  seen_at_.erase(event.peer);
  strangers_.erase(event.peer);
  const auto it = workers_.find(event.peer);
  if (it == workers_.end()) return;
  it->second.linked = false;
  it->second.down_since = now_;
  if (save_ && !save_->handed_over && save_->sources[it->second.stage].peer == event.peer)
    abandon_save("the link to " + event.peer.short_hex() + ", which sent its state, broke");
  it->second.silent = event.reason == link::DownReason::idle;  // a suspicion until the next tick
  const bool final = event.reason == link::DownReason::closed_by_peer || event.reason == link::DownReason::protocol_error;
  // Otherwise it has the time of kReturnGrace to come back to its place, also while workers gather.
  if (final) lose(event.peer, link::to_string(event.reason) + ": " + event.text);
}

void Brain::close_strangers() {
  std::erase_if(strangers_, [&](const auto& entry) {
    const auto it = workers_.find(entry.first);
    if (it != workers_.end() && it->second.linked) return true;
    if (now_ - entry.second < kStrangerTime) return false;
    effects_.push_back(wire::CloseLink{entry.first, "has no place in this run, or never asked for one"});
    return true;
  });
}

void Brain::on_tick() {
  tick_due_ = now_ + kTick;
  close_strangers();
  std::vector<std::pair<PeerId, std::string>> lost;
  const auto silent = static_cast<std::size_t>(std::count_if(workers_.begin(), workers_.end(), [](const auto& entry) { return entry.second.silent; }));
  // Who was silent for the idle time-out is dead; but where half of all fell silent together it was we who were away, stopped or cut
  // off, and they have their moment to come back.
  const bool we_were_away = workers_.size() > 1 && silent * 2 >= workers_.size();
  for (const auto& [peer, worker] : workers_) {
    if (worker.silent && !we_were_away) lost.emplace_back(peer, "nothing was heard from it");
    else if (!worker.linked && now_ - worker.down_since >= kReturnGrace) lost.emplace_back(peer, "its link broke and it did not come back");
    // The worker's word, whoever it is: bounded, so that no arithmetic on it overflows.
    const auto bounded = [](std::uint64_t ns) { return Duration::nanoseconds(static_cast<std::int64_t>(std::min(ns, kReportedNsMax))); };
    const Duration running = bounded(worker.telemetry.running_ns);
    const Duration longest = bounded(worker.telemetry.service_max_ns);
    if (worker.in_view && running > (newest_commit_ ? kHangAtLeast : kHangAtFirst) && running > longest * 20) lost.emplace_back(peer, "its device hangs");
  }
  for (const auto& [peer, reason] : lost) lose(peer, reason);
  open_again_if_stalled();
}

void Brain::open_again_if_stalled() {
  if (phase_ != Phase::running || storing_ || (save_ && save_->handed_over)) return;
  if (now_ - progress_at_ <= std::max(kStallAtLeast, longest_step_ * 10) * (std::int64_t{1} << std::min(stalls_, 10))) return;
  progress_at_ = now_;
  ++stalls_;
  if (save_) abandon_save("its state did not arrive");
  want_attempt("step " + std::to_string(open_step().value()) + " made no progress");
}

void Brain::lose(const PeerId& peer, const std::string& reason) {
  const auto it = workers_.find(peer);
  if (it == workers_.end()) return;
  const Worker worker = it->second;
  if (save_ && !save_->handed_over && save_->sources[worker.stage].peer == peer) abandon_save(peer.short_hex() + ", which sent its state, is gone");
  if (worker.linked) strangers_[peer] = now_;  // long enough to hear why
  workers_.erase(it);
  std::erase_if(unreachable_, [&](const auto& entry) { return entry.first.first == peer || entry.first.second == peer; });
  happened(WorkerLost{peer, base::StageIndex(worker.stage), reason});
  if (!worker.in_view && phase_ == Phase::gathering) {
    if (worker.linked) refuse(peer, worker.incarnation, reason);
    return;
  }
  gone_.insert({peer, worker.incarnation});
  farewells_.push_back(Eviction{peer, worker.incarnation, base::StageIndex(worker.stage), reason});
  evictions_.push_back(Eviction{peer, worker.incarnation, base::StageIndex(worker.stage), reason});
  want_attempt("worker " + peer.short_hex() + " of stage " + std::to_string(worker.stage) + " was lost: " + reason);
}

}  // namespace stagecoach::fleet
