#include "world/sim/network.h"

#include <algorithm>

namespace stagecoach::world::sim {

using base::Duration;
using base::Instant;
using link::DownReason;

void Timeline::at(Instant when, std::function<void()> what) {
  entries_.push(Entry{std::max(when, now_), next_order_++, std::move(what)});
}

bool Timeline::run_one() {
  if (entries_.empty()) return false;
  Entry entry = entries_.top();
  entries_.pop();
  now_ = entry.when;
  entry.what();
  return true;
}

Network::Network(Timeline& timeline, const NetworkOptions& options, std::uint64_t seed, Handler handler)
    : timeline_(timeline), options_(options), random_(seed), handler_(std::move(handler)) {}

Duration Network::uniform(Duration low, Duration high) {
  return low + Duration::nanoseconds(static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>((high - low).ns()) + 1)));
}

Network::Pair& Network::pair(Node a, Node b) {
  const auto [it, fresh] = pairs_.try_emplace(std::minmax(a, b));
  if (fresh) {
    for (Node end : {a, b}) {
      it->second.up[end] = false;
      it->second.delay[end] = uniform(options_.delay_min, options_.delay_max);
    }
  }
  return it->second;
}

bool Network::linked(Node a, Node b) const {
  const auto it = pairs_.find(std::minmax(a, b));
  return it != pairs_.end() && it->second.up.at(a) && it->second.up.at(b) && !it->second.broken;
}

void Network::for_node(Node node, std::function<void()> what) {
  if (dead_.contains(node)) return;
  const auto it = stalled_until_.find(node);
  if (it != stalled_until_.end() && timeline_.now() < it->second) {
    timeline_.at(it->second, [this, node, what = std::move(what)] { for_node(node, what); });
    return;
  }
  what();
}

void Network::send(Node from, Node to, base::Payload frame, link::Priority priority, std::size_t weight) {
  Pair& p = pair(from, to);
  if (!p.up.at(from)) return;
  Instant& free = p.wire_free[from];
  free = std::max(free, timeline_.now()) +
         Duration::nanoseconds(static_cast<std::int64_t>(static_cast<double>(weight) / options_.bytes_per_s * 1e9));
  Instant arrival = free + p.delay.at(from) + uniform(Duration(), options_.jitter);
  while (random_.unit() < options_.loss) arrival = arrival + p.delay.at(from) * 2 + Duration::milliseconds(20);
  if (priority == link::Priority::control) {
    // Control frames are small and share one ordered stream: a lost one holds up those behind it.
    Instant& last = p.control_arrival[from];
    arrival = std::max(arrival, last + Duration::nanoseconds(1));
    last = arrival;
  }
  timeline_.at(arrival, [this, from, to, frame = std::move(frame), epoch = p.epoch] {
    for_node(to, [this, from, to, frame, epoch] {
      Pair& q = pair(from, to);
      if (q.epoch == epoch && q.up.at(to) && !q.broken) handler_.frame(to, from, frame);
    });
  });
}

void Network::dial(Node from, Node to) {
  Pair& p = pair(from, to);
  if (p.up.at(from) || p.dialling) return;
  p.dialling = true;
  const Duration round_trip = p.delay.at(from) + p.delay.at(to);
  timeline_.at(timeline_.now() + round_trip, [this, from, to] {
    Pair& q = pair(from, to);
    const auto stalled = stalled_until_.find(to);
    if (dead_.contains(from)) {
      q.dialling = false;
      return;
    }
    if (dead_.contains(to) || (stalled != stalled_until_.end() && timeline_.now() < stalled->second)) {
      timeline_.at(timeline_.now() + Duration::seconds(5), [this, from, to] {
        pair(from, to).dialling = false;
        for_node(from, [this, from, to] {
          if (!pair(from, to).up.at(from)) handler_.down(from, to, DownReason::unreachable, "no answer");
        });
      });
      return;
    }
    q.dialling = false;
    if (q.up.at(to)) tell_down(to, from, q.epoch, DownReason::peer_restarted, "a new link of the same key");
    ++q.epoch;
    q.broken = false;
    for (Node end : {to, from}) {
      const Node other = end == to ? from : to;
      q.up.at(end) = true;
      q.control_arrival.erase(end);
      for_node(end, [this, end, other, epoch = q.epoch] {
        if (pair(end, other).epoch == epoch && pair(end, other).up.at(end)) handler_.up(end, other);
      });
    }
  });
}

void Network::tell_down(Node at, Node peer, std::uint64_t epoch, DownReason reason, const std::string& text) {
  Pair& p = pair(at, peer);
  if (p.epoch != epoch || !p.up.at(at)) return;
  p.up.at(at) = false;
  for_node(at, [this, at, peer, reason, text] { handler_.down(at, peer, reason, text); });
}

void Network::close(Node from, Node to, const std::string& text) {
  Pair& p = pair(from, to);
  if (!p.up.at(from)) return;
  const std::uint64_t epoch = p.epoch;
  tell_down(from, to, epoch, DownReason::closed_by_us, text);
  // The word follows whatever was sent before it on the control stream.
  const Instant arrival = std::max(timeline_.now() + p.delay.at(from), p.control_arrival[from] + Duration::nanoseconds(1));
  timeline_.at(arrival, [this, from, to, epoch, text] {
    if (!pair(from, to).broken) tell_down(to, from, epoch, DownReason::closed_by_peer, text);
  });
}

void Network::silence(Node at, Node peer, Duration after) {
  const std::uint64_t epoch = pair(at, peer).epoch;
  timeline_.at(timeline_.now() + after,
               [this, at, peer, epoch] { tell_down(at, peer, epoch, DownReason::idle, "nothing was heard"); });
}

void Network::crash(Node node) {
  dead_[node] = true;
  for (auto& [ends, p] : pairs_) {
    if (ends.first != node && ends.second != node) continue;
    const Node other = ends.first == node ? ends.second : ends.first;
    if (p.up.at(other)) silence(other, node, options_.idle_timeout + uniform(Duration(), Duration::milliseconds(500)));
  }
}

void Network::leave(Node node) {
  for (auto& [ends, p] : pairs_) {
    if (ends.first != node && ends.second != node) continue;
    const Node other = ends.first == node ? ends.second : ends.first;
    const std::uint64_t epoch = p.epoch;
    p.up.at(node) = false;
    const Instant arrival = std::max(timeline_.now() + p.delay.at(node), p.control_arrival[node] + Duration::nanoseconds(1));
    timeline_.at(arrival, [this, node, other, epoch] {
      if (!pair(node, other).broken) tell_down(other, node, epoch, DownReason::closed_by_peer, "ended");
    });
  }
  dead_[node] = true;
}

void Network::stall(Node node, Instant until) {
  stalled_until_[node] = until;
  if (until - timeline_.now() < options_.idle_timeout) return;
  for (auto& [ends, p] : pairs_) {
    if (ends.first != node && ends.second != node) continue;
    const Node other = ends.first == node ? ends.second : ends.first;
    if (!p.up.at(other)) continue;
    silence(other, node, options_.idle_timeout);
    silence(node, other, options_.idle_timeout);
  }
}

void Network::break_link(Node a, Node b, Notice notice) {
  Pair& p = pair(a, b);
  if (!p.up.at(a) || !p.up.at(b) || p.broken) return;
  p.broken = true;
  silence(a, b, notice.first);
  silence(b, a, notice.second);
}

}  // namespace stagecoach::world::sim
