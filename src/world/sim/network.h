// The virtual network: links with delay, rate, loss and reordering between nodes.
//
// In:      dials, frames, closes, crashes, stalls and breaks by node number. Out: calls of the deliver function, in time order.
// Thread:  one.
// Why:     a link keeps exactly what link/link.h promises and no more: control frames in order, other frames overtaking each other,
//          a frame delivered or its link down. What a real endpoint may do to a brain, this does.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/prng.h"
#include "base/time.h"
#include "link/link.h"
#include "world/sim/lines.h"
#include "world/sim/simulation.h"
#include "world/sim/timeline.h"

namespace stagecoach::world::sim {

class Network {
 public:
  struct Handler {
    std::function<void(Node at, Node peer)> up;
    std::function<void(Node at, Node peer, link::DownReason, const std::string&)> down;
    std::function<void(Node at, Node from, const base::Payload& frame)> frame;
  };
  Network(Timeline& timeline, const NetworkOptions& options, std::uint64_t seed, Handler handler);
  /// From now on these say when a frame arrives, and how long a dial takes; the options' delay, rate, jitter and loss say nothing.
  /// owns: the lines outlive the network
  void use(Lines& lines, Lines::PathOf path_of) { lines_ = &lines, path_of_ = std::move(path_of); }

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
  /// Nothing passes between the two until then; frames of a link that outlives it arrive afterwards. Longer than the idle time-out,
  /// it ends the link at both ends.
  void cut(Node a, Node b, base::Instant until);
  /// A new process under the same key: whatever the dead one had is gone.
  void revive(Node node);
  bool linked(Node a, Node b) const;
  /// Of the frame that is being handed over.
  base::Instant frame_sent_at() const { return frame_sent_at_; }
  bool alive(Node node) const { return !dead_.contains(node); }
  /// Runs `what` for a node now, or when it has woken up; never for a dead one.
  void for_node(Node node, std::function<void()> what);

 private:
  /// What one end of a pair knows and sends.
  struct End {
    bool up = false;
    base::Duration delay;            // of what it sends
    base::Instant control_arrival;   // of its newest control frame: keeps them in order
    base::Instant wire_free;         // the rate
  };
  struct Pair {
    std::uint64_t epoch = 0;         // frames of an older one are void
    bool dialling = false;
    bool broken = false;
    base::Instant cut_until;
    Node first = 0;                  // of the two nodes, the smaller
    std::array<End, 2> ends;
    End& at(Node node) { return ends[node == first ? 0 : 1]; }
    const End& at(Node node) const { return ends[node == first ? 0 : 1]; }
  };
  Pair& pair(Node a, Node b);
  void arrive(Node from, Node to, base::Payload frame, std::uint64_t epoch, base::Instant sent);
  base::Instant in_order(Pair& pair, Node from, link::Priority priority, base::Instant arrival);
  base::Instant control_arrival(const Pair& pair, Node from, Node to);
  base::Duration round_trip(Node from, Node to);
  bool reachable(Node from, Node to) const;
  void tell_down(Node at, Node peer, std::uint64_t epoch, link::DownReason reason, const std::string& text);
  void silence(Node at, Node peer, base::Duration after);
  base::Duration uniform(base::Duration low, base::Duration high);

  Timeline& timeline_;
  NetworkOptions options_;
  base::Prng random_;
  Handler handler_;
  base::Instant frame_sent_at_;
  Lines* lines_ = nullptr;
  Lines::PathOf path_of_;
  std::map<std::pair<Node, Node>, Pair> pairs_;
  std::map<Node, bool> dead_;
  std::map<Node, base::Instant> stalled_until_;
};

}  // namespace stagecoach::world::sim
