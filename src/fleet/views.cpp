// Attempts: how a new view is decided, written, and only then announced (PROTOCOL B2 and B8, in the form without local repair:
// every trouble voids the open step everywhere and starts it again with who is left).
#include <algorithm>

#include "fleet/brain.h"

namespace stagecoach::fleet {

using base::Duration;
using base::PeerId;

namespace {
/// Twice the time between two telemetry reports of a worker: who lives has said something since.
constexpr Duration kHeardWithin = Duration::seconds(2);
}  // namespace

void Brain::want_attempt(const std::string& reason) {
  if (phase_ == Phase::running) attempt_reasons_.push_back(reason);
}

void Brain::open_attempt() {
  if (storing_) return;  // writes are one at a time, so that their order is the order of what they say
  ViewRecord record;
  for (auto& view : views_) {
    std::erase_if(view.members, [&](const wire::Member& member) {
      const auto it = workers_.find(member.peer);
      return it == workers_.end() || it->second.incarnation != member.incarnation;
    });
    if (view.members.empty()) {
      return end(5, "stage " + std::to_string(view.stage.value()) + " has lost its last worker (" + attempt_reasons_.back() +
                        "). Nothing that was committed and saved is lost: resume the run from its newest checkpoint");
    }
    for (wire::Member& member : view.members) member.addresses = workers_.at(member.peer).addresses;
    view.number = view.number.next();
  }
  attempt_ = attempt_.next();
  for (const auto& reason : attempt_reasons_) record.reason += (record.reason.empty() ? "" : "; ") + reason;
  record.reason.resize(std::min(record.reason.size(), wire::kTextMax));
  attempt_reasons_.clear();
  record.attempt = attempt_;
  record.stages = views_;
  record.evictions = std::exchange(evictions_, {});
  prepared_.clear();
  leases_.clear();
  storing_ = base::OpId(next_op_++);
  view_in_store_ = record;
  attempt_reason_ = record.reason;
  effects_.push_back(StoreView{*storing_, std::move(record)});
}

wire::View Brain::view_for(std::uint64_t stage) const {
  wire::View view;
  view.term = options_.term;
  view.fence_number = attempt_.value();
  view.attempt = attempt_;
  view.committed = committed_;
  const std::uint64_t first = stage == 0 ? 0 : stage - 1;
  for (std::uint64_t s = first; s <= std::min<std::uint64_t>(stage + 1, views_.size() - 1); ++s) view.stages.push_back(views_[s]);
  view.reason = attempt_reason_;
  return view;
}

void Brain::announce(const ViewRecord& record) {
  happened(AttemptOpened{record.attempt, open_step(), record.reason});
  // Only now are the evicted told: what is not written has not happened (PROTOCOL B2).
  for (const auto& gone : std::exchange(farewells_, {})) {
    const bool written = std::any_of(record.evictions.begin(), record.evictions.end(), [&](const Eviction& each) {
      return each.peer == gone.peer && each.incarnation == gone.incarnation;
    });
    if (!written) farewells_.push_back(gone);
    else if (strangers_.contains(gone.peer)) refuse(gone.peer, gone.incarnation, gone.reason);
  }
  draining_ = draining_ || last_step_committed();  // a resume from behind the last step has nothing to lease
  for (auto& [peer, worker] : workers_) {
    worker.in_view = true;
    send(peer, view_for(worker.stage));
  }
  if (save_wanted_ && !save_) request_save();
  lease_step();
}

void Brain::on_trouble(const PeerId& peer, const wire::Trouble& trouble) {
  if (phase_ != Phase::running || trouble.attempt != attempt_ || view_in_store_) return;  // answered by the view on its way
  const std::string who = "worker " + peer.short_hex();
  const bool of_a_link = trouble.kind == wire::TroubleKind::link_down || trouble.kind == wire::TroubleKind::unreachable;
  // Neighbours of a dead worker miss it each in a moment of its own, some before we do. Its loss will open one attempt for all of them;
  // if it lives we hear it, and the report is repeated until a view answers it.
  if (of_a_link && is_silent(trouble.partner)) return;
  switch (trouble.kind) {
    case wire::TroubleKind::link_down:
      return want_attempt(who + " lost its link to " + trouble.partner.short_hex() + " (" + trouble.text + ")");
    case wire::TroubleKind::unreachable:
      return on_unreachable(peer, trouble);
    case wire::TroubleKind::device_failed:
      return lose(peer, "its device failed: " + trouble.text);
    case wire::TroubleKind::bad_numbers:
      return end(7, trouble.text + ". Any worker would compute the same, now and after a resume: begin a new run with a lower "
                                   "schedule.peak_lr or optimizer.clip_norm");
    case wire::TroubleKind::broken_books:
      if (++broken_[open_step()] >= 3)
        return end(8, "step " + std::to_string(open_step().value()) + " could not be closed three times: " + trouble.text);
      return want_attempt(who + ": " + trouble.text);
  }
}

bool Brain::is_silent(const PeerId& peer) const {
  const auto it = workers_.find(peer);
  return it != workers_.end() && (!it->second.linked || now_ - it->second.heard_at > kHeardWithin);
}

void Brain::on_unreachable(const PeerId& peer, const wire::Trouble& trouble) {
  const auto partner = workers_.find(trouble.partner);
  if (partner == workers_.end()) return;
  const auto pair = std::minmax(peer, trouble.partner);
  Unreachable& known = unreachable_[pair];
  if (known.attempt == attempt_) return;  // the other end's word, or a repeat, of what a new attempt will answer
  known.attempt = attempt_;
  if (++known.rounds < 2)
    return want_attempt("worker " + peer.short_hex() + " cannot reach " + trouble.partner.short_hex());
  // Two live workers that cannot reach each other (PROTOCOL, time-out 5): out goes the one that more others cannot reach either,
  // else the one whose stage keeps more replicas, else the larger key.
  const Worker& mine = workers_.at(peer);
  const auto weight = [&](const PeerId& p, const Worker& w) {
    const auto pairs = std::count_if(unreachable_.begin(), unreachable_.end(), [&](const auto& entry) {
      return entry.first.first == p || entry.first.second == p;
    });
    return std::make_tuple(pairs, members_of(w.stage), p);
  };
  const bool partner_goes = weight(trouble.partner, partner->second) > weight(peer, mine);
  const PeerId out = partner_goes ? trouble.partner : peer;
  const PeerId stays = partner_goes ? peer : trouble.partner;
  unreachable_.erase(pair);
  lose(out, "no link between it and " + stays.short_hex() + " comes up");
}

}  // namespace stagecoach::fleet
