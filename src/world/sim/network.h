// The virtual network and clock: events in time order, links with delay, rate, loss and reordering between nodes.
//
// In:      dials, frames, closes, crashes, stalls and breaks by node number. Out: calls of the deliver function, in time order.
// Thread:  one.
// Why:     a link keeps exactly what link/link.h promises and no more: control frames in order, other frames overtaking each other,
//          a frame delivered or its link down. What a real endpoint may do to a brain, this does.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <queue>
#include <string>
#include <vector>

#include "base/prng.h"
#include "base/time.h"
#include "link/link.h"
#include "world/sim/simulation.h"

namespace stagecoach::world::sim {

using Node = std::size_t;

/// Things to do at a time; equal times keep the order in which they were planned.
class Timeline {
 public:
  base::Instant now() const { return now_; }
  void at(base::Instant when, std::function<void()> what);
  /// Does the next thing; false when nothing is planned.
  bool run_one();

 private:
  struct Entry {
    base::Instant when;
    std::uint64_t order = 0;
    std::function<void()> what;
    bool operator<(const Entry& other) const { return std::tie(other.when, other.order) < std::tie(when, order); }
  };
  std::priority_queue<Entry> entries_;
  std::uint64_t next_order_ = 0;
  base::Instant now_;
};

class Network {
 public:
  struct Handler {
    std::function<void(Node at, Node peer)> up;
    std::function<void(Node at, Node peer, link::DownReason, const std::string&)> down;
    std::function<void(Node at, Node from, const base::Payload& frame)> frame;
  };
  Network(Timeline& timeline, const NetworkOptions& options, std::uint64_t seed, Handler handler);

  /// `weight` is what the frame costs on the wire, which may be more than it holds.
  void send(Node from, Node to, base::Payload frame, link::Priority priority, std::size_t weight);
  void dial(Node from, Node to);
  void close(Node from, Node to, const std::string& text);
  /// The node is gone without a word; its peers find out by silence.
  void crash(Node node);
  /// The process ended in order: its links close with a word.
  void leave(Node node);
  /// The node does nothing until `until`; what arrives waits, but a peer that hears nothing for the idle time-out gives up.
  void stall(Node node, base::Instant until);
  /// When each end of a link that dies hears of it.
  struct Notice {
    base::Duration first, second;
  };
  /// The link dies under both: frames under way and later are lost. Each end notices at its own time, or when the other dials anew.
  void break_link(Node a, Node b, Notice notice);
  bool linked(Node a, Node b) const;
  bool alive(Node node) const { return !dead_.contains(node); }
  /// Runs `what` for a node now, or when it has woken up; never for a dead one.
  void for_node(Node node, std::function<void()> what);

 private:
  struct Pair {
    std::uint64_t epoch = 0;        // frames of an older one are void
    bool dialling = false;
    bool broken = false;
    std::map<Node, bool> up;        // as each end knows it
    std::map<Node, base::Duration> delay;           // by sender
    std::map<Node, base::Instant> control_arrival;  // by sender: keeps control frames in order
    std::map<Node, base::Instant> wire_free;        // by sender: the rate
  };
  Pair& pair(Node a, Node b);
  void tell_down(Node at, Node peer, std::uint64_t epoch, link::DownReason reason, const std::string& text);
  void silence(Node at, Node peer, base::Duration after);
  base::Duration uniform(base::Duration low, base::Duration high);

  Timeline& timeline_;
  NetworkOptions options_;
  base::Prng random_;
  Handler handler_;
  std::map<std::pair<Node, Node>, Pair> pairs_;
  std::map<Node, bool> dead_;
  std::map<Node, base::Instant> stalled_until_;
};

}  // namespace stagecoach::world::sim
