// The troubles of a plan: what strikes when, and how a run that has ended for them is taken up again.
#include <cmath>

#include "world/sim/planned_world.h"

namespace stagecoach::world::sim {

std::string PlannedWorld::name(Node node) const { return plan_.hosts[node].name; }

void PlannedWorld::plan_events() {
  for (const PlannedEvent& event : plan_.events) timeline_.at(*began_ + event.at, [this, &event] { strike(event); });
  if (plan_.churn) plan_churn(*began_ + plan_.churn->from);
}

void PlannedWorld::plan_churn(Instant after) {
  const Churn& churn = *plan_.churn;
  // Times between the events of a Poisson process: −ln(u) of their mean.
  const double mean = churn.every.seconds_f64();
  const double wait = -std::log(1 - churn_.unit()) * mean;
  const Instant when = after + Duration::nanoseconds(std::llround(wait * 1e9));
  if (when - *began_ > churn.until || when - *began_ > plan_.duration) return;
  timeline_.at(when, [this, when] {
    std::vector<Node> alive;
    for (Node node = 1; node < workers_.size(); ++node)
      if (at_work(node)) alive.push_back(node);
    if (!alive.empty() && !coordinator_ended_) {
      PlannedEvent event;
      event.kind = plan_.churn->kind;
      event.length = plan_.churn->length;
      event.node = alive[churn_.below(alive.size())];
      strike(event);
    }
    plan_churn(when);
  });
}

void PlannedWorld::told(Node node, const std::string& what) {
  log(node, "STRUCK");
  feed(node, observe::trace::Struck{what});
}

void PlannedWorld::strike(const PlannedEvent& event) {
  if (over_) return;
  switch (event.kind) {
    case PlannedEvent::Kind::kill: return strike_kill(event.node, "killed");
    case PlannedEvent::Kind::restart: {
      strike_kill(event.node, "restarted");
      const Node node = event.node;
      network_.revive(node);
      workers_[node].ended = false;
      workers_[node].tick_planned = Instant::never();
      workers_[node].device_free = Instant();
      return start_worker(node);
    }
    case PlannedEvent::Kind::stop: return strike_stop(event.node, event.length);
    case PlannedEvent::Kind::cut: return strike_cut(event.node, event.length);
    case PlannedEvent::Kind::cut_between: return strike_cut_between(event.path, event.length);
    case PlannedEvent::Kind::degrade_host: return strike_degrade_host(event);
    case PlannedEvent::Kind::degrade_path: return strike_degrade_path(event);
  }
}

void PlannedWorld::strike_kill(Node node, const std::string& how) {
  if (!at_work(node)) return;
  told(node, name(node) + " " + how);
  workers_[node].at_risk = workers_[node].ended = true;
  tracers_[node].gone();
  feed(node, observe::trace::Gone{});
  network_.crash(node);
}

void PlannedWorld::strike_stop(Node node, Duration length) {
  if (!at_work(node)) return;
  told(node, name(node) + " stopped");
  workers_[node].at_risk = true;
  network_.stall(node, timeline_.now() + length);
}

void PlannedWorld::strike_cut(Node node, Duration length) {
  told(node, name(node) + " cut off");
  const Instant until = timeline_.now() + length;
  for (Node other = 0; other < workers_.size(); ++other) {
    if (other == node || (other != kCoordinator && !at_work(other))) continue;
    if (length >= options_.network.idle_timeout) workers_[other].at_risk = true;
    network_.cut(node, other, until);
  }
  workers_[node].at_risk = true;
  lines_.hold(node, true);
  timeline_.at(until, [this, node] { lines_.hold(node, false); });
}

void PlannedWorld::strike_cut_between(const PathChange& ends, Duration length) {
  const auto label = [&](std::size_t end) { return ends.ends == PathChange::Ends::hosts ? name(end) : "site " + std::to_string(end + 1); };
  told(kCoordinator, label(ends.a) + " and " + label(ends.b) + " cut off from each other");
  for (Node a = 0; a < workers_.size(); ++a) {
    for (Node b = a + 1; b < workers_.size(); ++b) {
      if (!ends.matches(a, b, plan_.hosts[a].site, plan_.hosts[b].site)) continue;
      workers_[a].at_risk = workers_[b].at_risk = true;
      if (network_.linked(a, b)) network_.cut(a, b, timeline_.now() + length);
    }
  }
}

void PlannedWorld::strike_degrade_host(const PlannedEvent& event) {
  told(event.node, name(event.node) + " degraded");
  HostLines lines = lines_.host(event.node);
  if (event.up) lines.up = *event.up;
  if (event.down) lines.down = *event.down;
  lines_.set_host(event.node, lines);
  timeline_.at(timeline_.now() + event.length, [this, node = event.node] { lines_.set_host(node, plan_.hosts[node].lines); });
}

void PlannedWorld::strike_degrade_path(const PlannedEvent& event) {
  told(kCoordinator, "a path degraded");
  paths_.push_back(event.path);
  timeline_.at(timeline_.now() + event.length, [this, &event] {
    const auto same = [&](const PathChange& each) {
      return each.ends == event.path.ends && each.a == event.path.a && each.b == event.path.b && each.loss == event.path.loss &&
             each.jitter == event.path.jitter && each.round_trip == event.path.round_trip;
    };
    const auto it = std::find_if(paths_.begin() + static_cast<std::ptrdiff_t>(plan_.paths.size()), paths_.end(), same);
    if (it != paths_.end()) paths_.erase(it);
  });
}

void PlannedWorld::exited(Node node, const wire::Exit& exit) {
  if (exit.code == 0) return;
  if (!coordinator_ended_) World::exited(node, exit);
  if (!tracers_[node].is_gone()) feed(node, observe::trace::Gone{});
  tracers_[node].gone();
}

void PlannedWorld::coordinator_exited(const wire::Exit& exit) {
  constexpr int kStageLost = 5;  // docs/OPERATING.md
  if (exit.code == kStageLost && plan_.resume) {
    for (auto& w : workers_) w.at_risk = true;  // all are told that the run has ended
    timeline_.at(timeline_.now() + *plan_.resume, [this] { resume(); });
    return;
  }
  over_ = true;
  if (exit.code != 0) forecast_.ended = exit.text;
}

/// The operator starts coordinator and workers again; they go on from the newest checkpoint.
void PlannedWorld::resume() {
  ++forecast_.resumes;
  log(kCoordinator, "RESUME");
  for (Node node = 0; node < workers_.size(); ++node) {
    if (node == kCoordinator || !workers_[node].ended) network_.leave(node);
    if (node != kCoordinator && workers_[node].brain) fleet_.ever_admitted.insert({key_of(node), base::Incarnation(node + (workers_[node].starts - 1) * workers_.size())});
  }
  feed(kCoordinator, observe::trace::Rewound{base::Step(saved_.value())});
  fleet_.term = fleet_.term.next();
  fleet_.last_attempt = newest_view_.attempt;
  fleet_.last_views.clear();
  for (const auto& view : newest_view_.stages) fleet_.last_views.push_back(view.number);
  fleet_.committed = durable_commit_ = base::Step(saved_.value());
  fleet_.state.assign(options_.stages, {});
  checkpoint_.reset();
  network_.revive(kCoordinator);
  coordinator_ended_ = false;
  coordinator_tick_ = Instant::never();
  start_coordinator();
  for (Node node = 1; node < workers_.size(); ++node) {
    network_.revive(node);
    WorkerNode& w = workers_[node];
    w.ended = w.at_risk = w.hung = false;
    w.tick_planned = Instant::never();
    w.device_free = Instant();
    if (tracers_[node].is_gone()) feed(node, observe::trace::Back{base::StageIndex((node - 1) % options_.stages)});
    tracers_[node].gone();
    timeline_.at(starts_at(node), [this, node] { start_worker(node); });
  }
}

}  // namespace stagecoach::world::sim
