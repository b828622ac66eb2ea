#include "world/sim/network.h"

#include <algorithm>

namespace stagecoach::world::sim {

using base::Duration;
using base::Instant;
using link::DownReason;

Network::Network(Timeline& timeline, const NetworkOptions& options, std::uint64_t seed, Handler handler)
    : timeline_(timeline), options_(options), random_(seed), handler_(std::move(handler)) {}

Duration Network::uniform(Duration low, Duration high) {
  return low + Duration::nanoseconds(static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>((high - low).ns()) + 1)));
}

Network::Pair& Network::pair(Node a, Node b) {
  const auto [it, fresh] = pairs_.try_emplace(std::minmax(a, b));
  if (fresh) {
    it->second.first = std::min(a, b);
    for (Node end : {a, b}) it->second.at(end).delay = uniform(options_.delay_min, options_.delay_max);
  }
  return it->second;
}

bool Network::linked(Node a, Node b) const {
  const auto it = pairs_.find(std::minmax(a, b));
  return it != pairs_.end() && it->second.at(a).up && it->second.at(b).up && !it->second.broken;
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
  if (!p.at(from).up) return;
  if (lines_ && priority == link::Priority::control) {
    timeline_.at(in_order(p, from, priority, control_arrival(p, from, to)), [this, from, to, frame = std::move(frame), epoch = p.epoch, sent = timeline_.now()] {
      arrive(from, to, frame, epoch, sent);
    });
    return;
  }
  if (lines_) {
    lines_->carry(from, to, priority, weight, [this, from, to, frame = std::move(frame), epoch = p.epoch, sent = timeline_.now()] {
      const Instant until = pair(from, to).cut_until;
      if (until <= timeline_.now()) return arrive(from, to, frame, epoch, sent);
      timeline_.at(until, [this, from, to, frame, epoch, sent] { arrive(from, to, frame, epoch, sent); });
    });
    return;
  }
  Instant& free = p.at(from).wire_free;
  free = std::max(free, timeline_.now()) +
         Duration::nanoseconds(static_cast<std::int64_t>(static_cast<double>(weight) / options_.bytes_per_s * 1e9));
  const Duration delay = p.at(from).delay;
  Instant arrival = free + delay + uniform(Duration(), options_.jitter);
  while (random_.unit() < options_.loss) arrival = arrival + delay * 2 + Duration::milliseconds(20);
  timeline_.at(in_order(p, from, priority, arrival), [this, from, to, frame = std::move(frame), epoch = p.epoch, sent = timeline_.now()] {
    arrive(from, to, frame, epoch, sent);
  });
}

/// Control frames are small and share one ordered stream: a lost one holds up those behind it.
Instant Network::in_order(Pair& p, Node from, link::Priority priority, Instant arrival) {
  if (priority != link::Priority::control) return arrival;
  Instant& last = p.at(from).control_arrival;
  last = std::max(arrival, last + Duration::nanoseconds(1));
  return last;
}

/// On stated paths: a few packets that take no room. Behind the last of them nothing shows a loss, so that a timer must.
Instant Network::control_arrival(const Pair& p, Node from, Node to) {
  const Path path = path_of_(from, to);
  Duration time = path.round_trip / 2 + uniform(Duration(), path.jitter);
  while (path.loss > 0 && random_.unit() < path.loss) time = time + path.round_trip * 3 / 2 + Duration::milliseconds(25);
  return std::max(timeline_.now(), p.cut_until) + time;
}

void Network::arrive(Node from, Node to, base::Payload frame, std::uint64_t epoch, Instant sent) {
  for_node(to, [this, from, to, frame = std::move(frame), epoch, sent] {
    Pair& q = pair(from, to);
    if (q.epoch != epoch || !q.at(to).up || q.broken) return;
    frame_sent_at_ = sent;
    handler_.frame(to, from, frame);
  });
}

Duration Network::round_trip(Node from, Node to) {
  if (lines_) return path_of_(from, to).round_trip;
  const Pair& p = pair(from, to);
  return p.at(from).delay + p.at(to).delay;
}

bool Network::reachable(Node from, Node to) const {
  const auto stalled = stalled_until_.find(to);
  const auto it = pairs_.find(std::minmax(from, to));
  return !dead_.contains(to) && (stalled == stalled_until_.end() || timeline_.now() >= stalled->second) &&
         (it == pairs_.end() || timeline_.now() >= it->second.cut_until);
}

void Network::dial(Node from, Node to) {
  Pair& p = pair(from, to);
  if (p.at(from).up || p.dialling) return;
  p.dialling = true;
  timeline_.at(timeline_.now() + round_trip(from, to), [this, from, to] {
    Pair& q = pair(from, to);
    if (dead_.contains(from)) {
      q.dialling = false;
      return;
    }
    if (!reachable(from, to)) {
      timeline_.at(timeline_.now() + Duration::seconds(5), [this, from, to] {
        pair(from, to).dialling = false;
        for_node(from, [this, from, to] {
          if (!pair(from, to).at(from).up) handler_.down(from, to, DownReason::unreachable, "no answer");
        });
      });
      return;
    }
    q.dialling = false;
    if (q.at(to).up) tell_down(to, from, q.epoch, DownReason::peer_restarted, "a new link of the same key");
    ++q.epoch;
    q.broken = false;
    if (lines_) lines_->drop(from, to);
    for (Node end : {to, from}) {
      const Node other = end == to ? from : to;
      q.at(end).up = true;
      q.at(end).control_arrival = Instant();
      for_node(end, [this, end, other, epoch = q.epoch] {
        if (pair(end, other).epoch == epoch && pair(end, other).at(end).up) handler_.up(end, other);
      });
    }
  });
}

void Network::tell_down(Node at, Node peer, std::uint64_t epoch, DownReason reason, const std::string& text) {
  Pair& p = pair(at, peer);
  if (p.epoch != epoch || !p.at(at).up) return;
  p.at(at).up = false;
  if (lines_) lines_->drop(at, peer);
  for_node(at, [this, at, peer, reason, text] { handler_.down(at, peer, reason, text); });
}

void Network::close(Node from, Node to, const std::string& text) {
  Pair& p = pair(from, to);
  if (!p.at(from).up) return;
  const std::uint64_t epoch = p.epoch;
  const Duration delay = round_trip(from, to) / 2;
  tell_down(from, to, epoch, DownReason::closed_by_us, text);
  // The word follows whatever was sent before it on the control stream.
  const Instant arrival = std::max(timeline_.now() + delay, p.at(from).control_arrival + Duration::nanoseconds(1));
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
    if (lines_) lines_->drop(node, other);
    if (p.at(other).up) silence(other, node, options_.idle_timeout + uniform(Duration(), Duration::milliseconds(500)));
  }
}

void Network::leave(Node node) {
  for (auto& [ends, p] : pairs_) {
    if (ends.first != node && ends.second != node) continue;
    const Node other = ends.first == node ? ends.second : ends.first;
    const std::uint64_t epoch = p.epoch;
    p.at(node).up = false;
    const Instant arrival = std::max(timeline_.now() + round_trip(node, other) / 2, p.at(node).control_arrival + Duration::nanoseconds(1));
    timeline_.at(arrival, [this, node, other, epoch] {
      if (!pair(node, other).broken) tell_down(other, node, epoch, DownReason::closed_by_peer, "ended");
    });
  }
  dead_[node] = true;
}

void Network::stall(Node node, Instant until) {
  stalled_until_[node] = until;
  if (lines_) {
    lines_->hold(node, true);
    timeline_.at(until, [this, node, until] {
      if (stalled_until_[node] <= until) lines_->hold(node, false);
    });
  }
  if (until - timeline_.now() < options_.idle_timeout) return;
  for (auto& [ends, p] : pairs_) {
    if (ends.first != node && ends.second != node) continue;
    const Node other = ends.first == node ? ends.second : ends.first;
    if (!p.at(other).up) continue;
    silence(other, node, options_.idle_timeout);
    silence(node, other, options_.idle_timeout);
  }
}

void Network::break_link(Node a, Node b, Notice notice) {
  Pair& p = pair(a, b);
  if (!p.at(a).up || !p.at(b).up || p.broken) return;
  p.broken = true;
  if (lines_) lines_->drop(a, b);
  silence(a, b, notice.first);
  silence(b, a, notice.second);
}

void Network::cut(Node a, Node b, Instant until) {
  Pair& p = pair(a, b);
  p.cut_until = std::max(p.cut_until, until);
  if (until - timeline_.now() < options_.idle_timeout) return;
  // Both ends heard each other last at about the same time.
  break_link(a, b, {options_.idle_timeout, options_.idle_timeout + uniform(Duration(), Duration::milliseconds(500))});
}

void Network::revive(Node node) {
  dead_.erase(node);
  stalled_until_.erase(node);
  for (auto& [ends, p] : pairs_) {
    if (ends.first != node && ends.second != node) continue;
    p.at(node).up = false;
    p.dialling = false;
  }
}

}  // namespace stagecoach::world::sim
