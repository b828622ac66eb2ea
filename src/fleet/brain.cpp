#include "fleet/brain.h"

#include <algorithm>

namespace stagecoach::fleet {

using base::Duration;
using base::Instant;
using base::PeerId;

Brain::Brain(Options options) : options_(std::move(options)) {
  attempt_ = options_.last_attempt;
  committed_ = options_.committed;
  saved_ = base::WeightVersion(committed_.value());
  gone_ = options_.ever_admitted;
  for (std::uint64_t s = 0; s < options_.split.size(); ++s) {
    const auto number = s < options_.last_views.size() ? options_.last_views[s] : base::ViewNumber();
    views_.push_back(wire::StageView{base::StageIndex(s), number, {}});
  }
}

Effects Brain::step(Event event, Instant now) {
  now_ = std::max(now, now_);
  if (phase_ == Phase::ended) return {};
  if (auto* message = std::get_if<wire::MessageArrived>(&event)) on_message(message->peer, message->message);
  else if (auto* up = std::get_if<wire::LinkIsUp>(&event)) strangers_[up->peer] = now_, seen_at_[up->peer] = up->address;
  else if (auto* moved = std::get_if<wire::PeerMoved>(&event)) on_moved(*moved);
  else if (auto* down = std::get_if<wire::LinkIsDown>(&event)) on_link_down(*down);
  else if (auto* stored = std::get_if<StoreDone>(&event)) on_store_done(*stored);
  else if (auto* saved = std::get_if<CheckpointDone>(&event)) on_checkpoint_done(*saved);
  else if (auto* exited = std::get_if<PeerExited>(&event)) lose(exited->peer, exited->text);
  else if (std::holds_alternative<StopRequested>(event)) stopping_ = true;
  if (now_ >= tick_due_) on_tick();
  if (phase_ == Phase::running && !attempt_reasons_.empty()) open_attempt();
  finish_if_done();
  return std::exchange(effects_, {});
}

void Brain::on_store_done(const StoreDone& done) {
  if (storing_ != done.op) return;
  storing_.reset();
  if (done.error)
    return end(6, "the run's database refused a write, so nothing more can be promised: " + done.error->message +
                      ". Workers keep nothing that was not written; resume from the newest checkpoint");
  if (view_in_store_) {
    const ViewRecord record = *std::exchange(view_in_store_, std::nullopt);
    announce(record);
  } else if (commit_in_store_) {
    const CommitRecord record = *std::exchange(commit_in_store_, std::nullopt);
    committed(record);
  }
}

void Brain::send(const PeerId& peer, wire::Message message) {
  const auto it = workers_.find(peer);
  if (it != workers_.end() && it->second.linked) effects_.push_back(wire::Send{peer, std::move(message)});
}

void Brain::end(int code, const std::string& text) {
  if (phase_ == Phase::ended) return;
  if (save_) abandon_save("the run ends");
  for (const auto& [peer, worker] : workers_) {
    if (code == 0) send(peer, wire::Finish{options_.term, text});
    else send(peer, wire::Evicted{options_.term, worker.incarnation, "the run ended: " + text.substr(0, 2000)});
  }
  happened(RunFinished{committed_, text});
  effects_.push_back(wire::Exit{code, text});
  phase_ = Phase::ended;
}

}  // namespace stagecoach::fleet
