#include "world/sim/lines.h"

#include <cmath>

namespace stagecoach::world::sim {

using base::Duration;
using base::Instant;
using link::Priority;

namespace {

constexpr double kUnshaped = 1.25e9;    // bytes a second where nobody shapes: 10 Gbit/s, what one connection and thread carry
constexpr double kBulkFloor = 0.05;     // link/send_order.h, BulkFloor
constexpr double kSame = 1e-9;          // two rates closer than this are one rate
constexpr std::size_t kRoundsMax = 64;  // of levelling, beyond which the present rates are good enough

Duration seconds(double s) { return Duration::nanoseconds(static_cast<std::int64_t>(std::llround(s * 1e9))); }

bool differ(double a, double b) { return std::abs(a - b) > kSame * std::max(std::abs(a), std::abs(b)); }

/// The level at which flows with these caps fill `capacity`: who is capped below it takes its cap, all others the level.
double fill(std::vector<double>& caps, double capacity) {
  std::sort(caps.begin(), caps.end());
  double rest = capacity;
  for (std::size_t i = 0; i < caps.size(); ++i) {
    const double share = rest / static_cast<double>(caps.size() - i);
    if (caps[i] >= share) return share;
    rest -= caps[i];
  }
  return capacity;  // all are held back elsewhere
}

}  // namespace

Lines::Lines(Timeline& timeline, std::vector<HostLines> hosts, PathOf path_of, Options options)
    : timeline_(timeline), path_of_(std::move(path_of)), options_(options), random_(options.seed) {
  for (const HostLines& lines : hosts) {
    Host host;
    host.lines = lines;
    hosts_.push_back(std::move(host));
    set_host(hosts_.size() - 1, lines);
  }
}

std::deque<Lines::Message>* Lines::Flow::best() {
  for (auto& queue : queues)
    if (!queue.empty()) return &queue;
  return nullptr;
}

bool Lines::Flow::urgent() const {
  for (std::size_t c = 0; c < static_cast<std::size_t>(Priority::bulk); ++c)
    if (!queues[c].empty()) return true;
  return false;
}

Lines::Flow& Lines::flow(Node from, Node to) {
  auto& flow = flows_[{from, to}];
  if (!flow) {
    flow = std::make_unique<Flow>();
    flow->from = from, flow->to = to;
  }
  return *flow;
}

void Lines::set_host(Node node, HostLines lines) {
  if (lines.up <= 0) lines.up = kUnshaped;
  if (lines.down <= 0) lines.down = kUnshaped;
  hosts_[node].lines = lines;
  mark(node);
}

void Lines::hold(Node node, bool held) {
  if (hosts_[node].held == held) return;
  hosts_[node].held = held;
  mark(node);
}

double Lines::rate_of(Node from, Node to) const { return std::min(hosts_[from].lines.up, hosts_[to].lines.down); }

void Lines::carry(Node from, Node to, Priority priority, std::uint64_t bytes, Arrived arrived) {
  Flow& f = flow(from, to);
  if (bytes <= kSmallBytes) {
    timeline_.at(timeline_.now() + small_time(from, to, path_of_(from, to), bytes), std::move(arrived));
    return;
  }
  advance(f);
  const bool was_urgent = f.urgent();
  const auto* before = f.best();
  f.queues[static_cast<std::size_t>(priority)].push_back(Message{static_cast<double>(bytes), bytes, std::move(arrived)});
  if (!f.active) return activate(f);
  if (f.urgent() != was_urgent) mark(f.from);
  if (f.best() != before) plan_end(f);
}

void Lines::activate(Flow& f) {
  f.active = true;
  f.since = timeline_.now();
  hosts_[f.from].out.push_back(&f);
  hosts_[f.to].in.push_back(&f);
  mark(f.from);
  mark(f.to);
}

void Lines::deactivate(Flow& f) {
  f.active = false;
  f.rate = 0;
  ++f.plan;
  std::erase(hosts_[f.from].out, &f);
  std::erase(hosts_[f.to].in, &f);
  mark(f.from);
  mark(f.to);
}

void Lines::drop(Node a, Node b) {
  for (const auto& ends : {std::pair(a, b), std::pair(b, a)}) {
    const auto it = flows_.find(ends);
    if (it == flows_.end()) continue;
    for (auto& queue : it->second->queues) queue.clear();
    it->second->sent = 0;
    if (it->second->active) deactivate(*it->second);
  }
}

/// Writes down what the present message has sent since the last time anybody looked.
void Lines::advance(Flow& f) {
  if (auto* queue = f.best(); queue && f.active) {
    const double sent = f.rate * (timeline_.now() - f.since).seconds_f64();
    queue->front().left = std::max(0.0, queue->front().left - sent);
  }
  f.since = timeline_.now();
}

void Lines::plan_end(Flow& f) {
  const std::uint64_t plan = ++f.plan;
  if (f.rate <= 0) return;
  const Duration left = seconds(f.best()->front().left / f.rate);
  timeline_.at(timeline_.now() + left, [this, &f, plan] { finished(f, plan); });
}

void Lines::finished(Flow& f, std::uint64_t plan) {
  if (plan != f.plan) return;
  advance(f);
  auto& queue = *f.best();
  Message message = std::move(queue.front());
  queue.pop_front();
  const Path path = path_of_(f.from, f.to);
  timeline_.at(timeline_.now() + path.round_trip / 2 + late(f, path, message.bytes), std::move(message.arrived));
  const auto* next = f.best();
  if (next == nullptr) return deactivate(f);
  if (next != &queue) mark(f.from);
  plan_end(f);
}

void Lines::mark(Node node) {
  if (!hosts_[node].dirty) {
    hosts_[node].dirty = true;
    dirty_.push_back(node);
  }
  if (settling_) return;
  settling_ = true;
  // Whatever else changes at this very moment is settled with it.
  timeline_.at(timeline_.now(), [this] { settle(); });
}

bool Lines::level_up(Host& host) {
  std::vector<double> urgent, bulk;
  for (const Flow* f : host.out) (f->urgent() ? urgent : bulk).push_back(hosts_[f->to].held ? 0 : hosts_[f->to].down_level);
  const double capacity = host.held ? 0 : host.lines.up;
  const double urgent_capacity = bulk.empty() ? capacity : capacity * (1 - kBulkFloor);
  double used = 0;
  const double urgent_level = fill(urgent, urgent_capacity);
  for (double cap : urgent) used += std::min(cap, urgent_level);
  const double bulk_level = fill(bulk, capacity - used);
  const bool changed = differ(urgent_level, host.urgent_level) || differ(bulk_level, host.bulk_level);
  host.urgent_level = urgent_level, host.bulk_level = bulk_level;
  return changed;
}

bool Lines::level_down(Host& host) {
  std::vector<double> caps;
  for (const Flow* f : host.in) {
    const Host& sender = hosts_[f->from];
    caps.push_back(std::min(f->urgent() ? sender.urgent_level : sender.bulk_level, sender.lines.up));
  }
  const double level = fill(caps, host.held ? 0 : host.lines.down);
  const bool changed = differ(level, host.down_level);
  host.down_level = level;
  return changed;
}

double Lines::allowed(const Flow& f) const {
  const Host& from = hosts_[f.from];
  const Host& to = hosts_[f.to];
  if (from.held || to.held) return 0;
  return std::min({f.urgent() ? from.urgent_level : from.bulk_level, to.down_level, from.lines.up, to.lines.down});
}

/// Levels of the lines that changed, then of those whose flows that changed, until nothing moves.
void Lines::settle() {
  settling_ = false;
  std::vector<Node> touched = std::exchange(dirty_, {});
  for (Node node : touched) {
    Host& host = hosts_[node];
    host.dirty = false;
    // Who came new to a downlink may take what is left of it until the levels say otherwise.
    host.down_level = host.in.empty() ? host.lines.down : std::max(host.down_level, host.lines.down / static_cast<double>(host.in.size()));
  }
  std::vector<Node> turn = touched;
  for (std::size_t round = 0; round < kRoundsMax && !turn.empty(); ++round) {
    std::vector<Node> next;
    for (Node node : turn) {
      Host& host = hosts_[node];
      if (level_up(host) || round == 0)
        for (const Flow* f : host.out) next.push_back(f->to);
      if (level_down(host) || round == 0)
        for (const Flow* f : host.in) next.push_back(f->from);
    }
    std::sort(next.begin(), next.end());
    next.erase(std::unique(next.begin(), next.end()), next.end());
    touched.insert(touched.end(), next.begin(), next.end());
    turn = std::move(next);
  }
  std::sort(touched.begin(), touched.end());
  touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
  apply_rates(touched);
}

void Lines::apply_rates(const std::vector<Node>& touched) {
  for (Node node : touched) {
    for (const auto* flows : {&hosts_[node].out, &hosts_[node].in}) {
      for (Flow* f : *flows) {
        const double rate = allowed(*f);
        if (!differ(rate, f->rate)) continue;
        advance(*f);
        f->rate = rate;
        plan_end(*f);
      }
    }
  }
}

/// What a message of a flow comes late: jitter, lost packets, slow start.
Duration Lines::late(Flow& f, const Path& path, std::uint64_t bytes) {
  const double round_trip = path.round_trip.seconds_f64();
  const double rate = rate_of(f.from, f.to);
  const double bandwidth_delay = rate * round_trip;
  double extra = path.jitter.seconds_f64() * random_.unit();
  // A packet that is lost in the last round trip of a message is sent again after all others.
  double exposed = std::min(static_cast<double>(bytes), bandwidth_delay) / static_cast<double>(kPacketBytes);
  while (path.loss > 0 && random_.unit() < 1 - std::pow(1 - path.loss, std::max(1.0, exposed) / path.burst)) {
    extra += round_trip;
    exposed *= path.loss;
  }
  const double window = static_cast<double>(options_.initial_window);
  const double before = std::min(static_cast<double>(f.sent), bandwidth_delay);
  f.sent += bytes;
  const double after = std::min(static_cast<double>(f.sent), bandwidth_delay);
  if (after > before && bandwidth_delay > window)
    extra += std::max(0.0, round_trip * std::log2((after + window) / (before + window)) - (after - before) / rate);
  return seconds(extra);
}

/// A single packet or a few: nobody behind them shows a loss, so that a timer must.
Duration Lines::small_time(Node from, Node to, const Path& path, std::uint64_t bytes) {
  double time = path.round_trip.seconds_f64() / 2 + static_cast<double>(bytes) / rate_of(from, to) + path.jitter.seconds_f64() * random_.unit();
  while (path.loss > 0 && random_.unit() < path.loss) time += path.round_trip.seconds_f64() * 1.5 + 0.025;
  return seconds(time);
}

}  // namespace stagecoach::world::sim
