#include "world/real/status_board.h"

#include <algorithm>
#include <cmath>

namespace stagecoach::world::real {

using base::Instant;

namespace {
constexpr double kWaitWorthALine_s = 2.0;
std::string short_id(const base::PeerId& peer) { return peer.short_hex(); }
}  // namespace

StatusBoard::StatusBoard(const fleet::Options& options, std::string name, Instant now, std::int64_t unix_ms)
    : progress_(static_cast<std::uint64_t>(options.config.schedule.steps), options.committed.value(), options.config.batch.tokens_per_step()),
      started_(now) {
  status_.run_id = [&] {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    for (int shift = 60; shift >= 0; shift -= 4) text.push_back(kDigits[options.run.value() >> shift & 15]);
    return text;
  }();
  status_.config_id = options.config_id.short_hex(16);
  status_.name = std::move(name);
  status_.term = options.term.value();
  progress_.fill(status_);
  status_.started_unix_ms = unix_ms;
}

void StatusBoard::on_committed(const fleet::StepCommitted& step, Instant now) {
  // The validation losses of step t are those of the weights before it.
  if (step.eval_loss) progress_.evaluated(step.step.value() - 1, *step.eval_loss);
  if (!std::isnan(step.train_loss)) progress_.trained(step.step.value(), step.train_loss, now);  // the last one only evaluates
  progress_.fill(status_);
}

std::vector<observe::Event> StatusBoard::on(const fleet::Happening& happening, const fleet::Brain& brain, Instant now,
                                            std::int64_t unix_ms) {
  using observe::Event;
  using observe::EventKind;
  std::vector<Event> events;
  if (const auto* joined = std::get_if<fleet::WorkerJoined>(&happening)) {
    const auto it = brain.workers().find(joined->peer);
    Event event{unix_ms, EventKind::worker_joined, {{"peer", joined->peer.hex()}, {"stage", joined->stage.value()}}};
    if (it != brain.workers().end()) {
      event.fields.push_back({"incarnation", it->second.incarnation.value()});
      if (!it->second.addresses.empty())
        event.fields.push_back({"address", it->second.addresses[0].host + ":" + std::to_string(it->second.addresses[0].port)});
    }
    events.push_back(std::move(event));
  } else if (const auto* lost = std::get_if<fleet::WorkerLost>(&happening)) {
    events.push_back({unix_ms, EventKind::worker_lost,
                      {{"peer", lost->peer.hex()}, {"stage", lost->stage.value()}, {"reason", lost->reason}}});
  } else if (const auto* opened = std::get_if<fleet::AttemptOpened>(&happening)) {
    events.push_back({unix_ms, EventKind::attempt_opened,
                      {{"attempt", opened->attempt.value()}, {"step", opened->step.value()}, {"reason", opened->reason}}});
    for (const auto& view : brain.views())
      events.push_back({unix_ms, EventKind::view,
                        {{"stage", view.stage.value()}, {"number", view.number.value()}, {"term", status_.term},
                         {"attempt", opened->attempt.value()}, {"members", static_cast<std::uint64_t>(view.members.size())}}});
  } else if (const auto* step = std::get_if<fleet::StepCommitted>(&happening)) {
    on_committed(*step, now);
    if (!std::isnan(step->train_loss))
      events.push_back(observe::step_committed(unix_ms, step->step.value(), step->attempt.value(), step->train_loss, step->global_norm));
    if (step->eval_loss) events.push_back(observe::evaluated(unix_ms, step->step.value() - 1, *step->eval_loss));
  } else if (const auto* written = std::get_if<fleet::CheckpointWritten>(&happening)) {
    status_.checkpoint = observe::CheckpointStatus{written->version.value(), written->path};
    events.push_back({unix_ms, EventKind::checkpoint_written, {{"step", written->version.value()}, {"path", written->path}}});
  } else if (const auto* failed = std::get_if<fleet::CheckpointFailed>(&happening)) {
    observe::add_event(status_, "the checkpoint of step " + std::to_string(failed->version.value()) + " failed: " + failed->reason);
  } else if (const auto* finished = std::get_if<fleet::RunFinished>(&happening)) {
    ended_ = true;
    status_.reason = finished->reason;
    events.push_back({unix_ms, EventKind::run_finished,
                      {{"step", std::min(finished->step.value(), status_.steps)}, {"reason", finished->reason}}});
  }
  // What the status shows elsewhere, or too often to be news, is not among its event lines.
  using enum EventKind;
  for (const auto& event : events)
    if (event.kind != step_committed && event.kind != view && event.kind != evaluated && event.kind != run_finished)
      observe::add_event(status_, observe::describe(event));
  return events;
}

observe::MemberStatus StatusBoard::member(const wire::Member& member, const fleet::Brain& brain, const RoundTrip& round_trip) const {
  observe::MemberStatus out;
  out.peer = short_id(member.peer);
  out.incarnation = member.incarnation.value();
  if (!member.addresses.empty()) out.address = member.addresses[0].host + ":" + std::to_string(member.addresses[0].port);
  const auto it = brain.workers().find(member.peer);
  if (it == brain.workers().end()) {
    out.state = observe::MemberState::lost;
    out.reason = "left; the next view is without it";
    return out;
  }
  const fleet::Brain::Worker& worker = it->second;
  const wire::Telemetry& t = worker.telemetry;
  out.weight_version = t.version.value();
  out.queue_length = t.queued;
  out.microbatches = {t.offered, t.accepted, t.forwarded, t.accumulated, t.committed};
  if (const auto measured = round_trip(member.peer)) out.round_trip_ms = measured->seconds_f64() * 1e3;
  const double seconds = (worker.telemetry_at - worker.previous_at).seconds_f64();
  if (worker.previous_at != Instant() && seconds > 0) {
    const auto rate = [&](std::uint64_t now, std::uint64_t before) { return now > before ? static_cast<double>(now - before) / seconds : 0.0; };
    out.busy_fraction = std::min(1.0, rate(t.busy_ns, worker.previous.busy_ns) * 1e-9);
    out.bytes_in_per_s = rate(t.bytes_received, worker.previous.bytes_received);
    out.bytes_out_per_s = rate(t.bytes_sent, worker.previous.bytes_sent);
  }
  if (!worker.linked) {
    out.state = observe::MemberState::lost;
    out.reason = "its link broke; it has a moment to come back";
  } else if (!worker.ready) {
    out.state = observe::MemberState::loading;
    out.reason = "fetches data and weights";
  } else {
    const bool works = t.queued > 0 || t.running_ns > 0;
    out.state = works ? observe::MemberState::working : observe::MemberState::ready;
    if (!works) out.reason = t.waiting.empty() ? "" : "waits for " + t.waiting;
  }
  return out;
}

observe::RunStatus StatusBoard::status(const fleet::Brain& brain, const RoundTrip& round_trip, Instant now) const {
  observe::RunStatus status = status_;
  status.attempt = brain.attempt().value();
  status.reason = ended_ ? status_.reason : brain.phase_text();
  status.phase = ended_ ? (status.step >= status.steps ? observe::Phase::finished : observe::Phase::stopped)
                 : !brain.running()   ? observe::Phase::gathering
                 : brain.recovering() ? observe::Phase::recovering
                 : brain.saving()     ? observe::Phase::saving
                                      : observe::Phase::training;
  status.elapsed_s = (now - started_).seconds_f64();
  const auto& split = brain.options().split;
  for (std::size_t s = 0; s < split.size(); ++s) {
    observe::StageStatus stage;
    stage.view = brain.views()[s].number.value();
    stage.first_layer = static_cast<std::uint64_t>(split[s].first);
    stage.end_layer = static_cast<std::uint64_t>(split[s].last);
    if (brain.running() || ended_) {
      for (const auto& each : brain.views()[s].members) stage.members.push_back(member(each, brain, round_trip));
    } else {
      for (const auto& [peer, worker] : brain.workers())
        if (worker.stage == s) stage.members.push_back(member({peer, worker.incarnation, worker.addresses}, brain, round_trip));
    }
    status.stages.push_back(std::move(stage));
  }
  for (const auto& [peer, worker] : brain.workers()) {
    // Every step has its short waits; what lasts is worth a line.
    const double seconds = (now - worker.waiting_since).seconds_f64();
    if (!worker.ready || worker.telemetry.waiting.empty() || seconds < kWaitWorthALine_s || status.waits.size() >= observe::kWaitsMax) continue;
    status.waits.push_back({short_id(peer) + " (stage " + std::to_string(worker.stage) + ")", worker.telemetry.waiting, seconds,
                            status.reason.empty() ? "the step goes on elsewhere" : status.reason});
  }
  return status;
}

}  // namespace stagecoach::world::real
