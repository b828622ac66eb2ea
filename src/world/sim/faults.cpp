// Faults: what strikes when, and the liveness that must follow the last one.
#include <algorithm>

#include "world/sim/world.h"

namespace stagecoach::world::sim {

void World::plan_faults() {
  const Duration step = (options_.forward_time + options_.backward_time) *
                        static_cast<std::int64_t>(options_.microbatches / static_cast<std::int64_t>(options_.replicas) +
                                                  static_cast<std::int64_t>(options_.stages));
  const auto span = static_cast<std::uint64_t>((step * options_.steps).ns());
  const auto plan = [&](int count, void (World::*strike)()) {
    for (int i = 0; i < count; ++i) {
      // A return may strike while workers gather; what costs a place waits until there are places.
      const Instant from = Instant() + (strike == &World::strike_return && i % 2 == 0 ? Duration() : Duration::milliseconds(500));
      const std::uint64_t within = strike == &World::strike_return && i % 2 == 0 ? 700'000'000 : span;
      ++faults_planned_;
      timeline_.at(from + Duration::nanoseconds(static_cast<std::int64_t>(random_.below(within))), [this, strike] {
        --faults_planned_;
        (this->*strike)();
      });
    }
  };
  plan(options_.faults.crashes, &World::strike_crash);
  plan(options_.faults.stalls, &World::strike_stall);
  plan(options_.faults.link_breaks, &World::strike_break);
  plan(options_.faults.hangs, &World::strike_hang);
  plan(options_.faults.returns, &World::strike_return);
  flaps_left_ = options_.faults.flaps;
  lost_saves_left_ = options_.faults.lost_saves;
}

std::vector<Node> World::expendable() const {
  std::vector<std::uint64_t> safe(options_.stages, 0);
  for (const auto& w : workers_)
    if (w.device && !w.ended && !w.at_risk) ++safe[w.stage];
  std::vector<Node> nodes;
  for (Node node = 1; node < workers_.size(); ++node) {
    const auto& w = workers_[node];
    if (w.device && !w.ended && !w.at_risk && safe[w.stage] > 1) nodes.push_back(node);
  }
  return nodes;
}

void World::struck(Node node, const char* what, std::uint64_t& counter, std::uint64_t detail) {
  last_fault_ = timeline_.now();
  ++counter;
  log(node, what, detail);
}

void World::strike_crash() {
  const auto nodes = expendable();
  if (nodes.empty() || !coordinator_->running()) return;
  const Node node = nodes[random_.below(nodes.size())];
  workers_[node].at_risk = workers_[node].ended = true;
  struck(node, "CRASH", outcome_.crashes);
  network_.crash(node);
}

void World::strike_stall() {
  const auto nodes = expendable();
  if (nodes.empty() || !coordinator_->running()) return;
  const Node node = nodes[random_.below(nodes.size())];
  const Duration length = Duration::milliseconds(100 + static_cast<std::int64_t>(random_.below(11'900)));
  workers_[node].at_risk = true;
  struck(node, "STALL", outcome_.stalls, static_cast<std::uint64_t>(length.ns()));
  network_.stall(node, timeline_.now() + length);
}

void World::strike_hang() {
  const auto nodes = expendable();
  if (nodes.empty() || !coordinator_->running()) return;
  const Node node = nodes[random_.below(nodes.size())];
  workers_[node].at_risk = workers_[node].hung = true;
  struck(node, "HANG", outcome_.hangs);
}

std::optional<std::pair<Node, Node>> World::neighbours() {
  std::vector<std::pair<Node, Node>> pairs;
  for (Node a = 1; a < workers_.size(); ++a)
    for (Node b = a + 1; b < workers_.size(); ++b)
      if (!workers_[a].ended && !workers_[b].ended && network_.linked(a, b)) pairs.emplace_back(a, b);
  if (pairs.empty()) return std::nullopt;
  return pairs[random_.below(pairs.size())];
}

void World::strike_break() {
  const auto nodes = expendable();
  if (nodes.empty() || !coordinator_->running()) return;
  const Node a = nodes[random_.below(nodes.size())];
  std::vector<Node> partners;
  for (Node b = 0; b < workers_.size(); ++b)
    if (b != a && network_.linked(a, b)) partners.push_back(b);
  if (partners.empty()) return;
  const Node b = partners[random_.below(partners.size())];
  if (b == kCoordinator) workers_[a].at_risk = true;
  struck(a, "BREAK", outcome_.link_breaks, b);
  // Each end's silence has its own length: one may dial anew while the other still believes in the old link.
  const auto notice = [&] {
    const Duration least = Duration::seconds(1);
    return least + Duration::nanoseconds(static_cast<std::int64_t>(
                       random_.below(static_cast<std::uint64_t>((options_.network.idle_timeout - least).ns()))));
  };
  const Duration first = notice();
  network_.break_link(a, b, {first, notice()});
}

void World::strike_flap() {
  const auto pair = neighbours();
  if (!pair || flaps_left_ == 0) return;
  --flaps_left_;
  const auto [a, b] = *pair;
  struck(a, "FLAP", outcome_.flaps, b);
  const auto soon = [&] { return Duration::microseconds(static_cast<std::int64_t>(random_.below(60'000))); };
  const Duration first = soon(), second = soon(), again = soon();
  network_.break_link(a, b, {first, second});
  // Both ends dial, though the rule gives it to one: at most one link may come of it.
  timeline_.at(timeline_.now() + again, [this, a = a, b = b] {
    network_.dial(a, b);
    network_.dial(b, a);
  });
}

void World::return_at_once(Node node) {
  network_.break_link(node, kCoordinator, {Duration::microseconds(static_cast<std::int64_t>(random_.below(5'000))),
                                           options_.network.idle_timeout});
}

void World::strike_return() {
  std::vector<Node> linked;
  for (Node node = 1; node < workers_.size(); ++node)
    if (!workers_[node].ended && network_.linked(node, kCoordinator)) linked.push_back(node);
  if (linked.empty()) return;
  const Node node = linked[random_.below(linked.size())];
  struck(node, "RETURN", outcome_.returns);
  return_at_once(node);
}

void World::lose_save(Node node) {
  if (lost_saves_left_ == 0 || random_.below(2) == 0 || !network_.linked(node, kCoordinator)) return;
  --lost_saves_left_;
  struck(node, "LOST SAVE", outcome_.lost_saves);
  return_at_once(node);
}

void World::check_liveness() {
  if (faults_planned_ > 0) return;
  // A survivor may have to do all work of its stage alone, and each tensor crosses the wire behind all others.
  const std::int64_t work = options_.microbatches + options_.eval_microbatches + static_cast<std::int64_t>(options_.stages);
  const Duration crossing = Duration::nanoseconds(static_cast<std::int64_t>(static_cast<double>(options_.boundary_bytes) /
                                                                            options_.network.bytes_per_s * 1e9));
  const Duration hop = options_.network.delay_max * 8 + Duration::milliseconds(100);
  const Duration step = ((options_.forward_time + options_.backward_time) * 6 / 5 + crossing * 2) * work +
                        hop * static_cast<std::int64_t>(2 * options_.stages + 8) + options_.disk_time_max * 3;
  // What the last fault may still cost: a stall to its end, its silence, links that are dialled twice in vain, a return that fails;
  // or devices that hang before the first commit, found one after the other as work comes to them.
  Duration settle = Duration::seconds(12 + 16 + 8) + options_.network.idle_timeout * 2;
  settle = settle + Duration::seconds(650) * static_cast<std::int64_t>(outcome_.hangs);
  if (timeline_.now() - last_fault_ > settle + step * (options_.steps + 4))
    violate("a healthy core did not finish in time after the last fault: step " + std::to_string(coordinator_->committed().value()));
}

}  // namespace stagecoach::world::sim
