// Lines: hosts with an uplink and a downlink each, and when a message between two of them arrives.
//
// In:      rates, round trips, loss, jitter; messages with class and length. Out: a call at each message's arrival.
// Thread:  one; driven by the Timeline.
// Why:     what a link takes from a run depends on who else uses the same lines at that moment. Messages are flows whose rates follow
//          from the lines they share, so that a transfer of gigabytes costs a handful of events and still gives way to a tensor.
//
// The model, rule by rule:
// - A link sends its best class first and in order inside a class (link/send_order.h); a message that is overtaken goes on later.
// - Links of one host share its uplink evenly. While any of them has something urgent, bulk on all of them gets 1 byte in 20.
// - Links into one host share its downlink evenly, whatever they carry: the far end of a line knows no classes.
// - A message arrives half a round trip after its last byte was sent, later by jitter, by a lost packet's round trip where one of the
//   last round trip's packets was lost, and on a new link by what its slow start lacks (reference transport.md §3).
// - Short messages (kSmallBytes) take their time and no room.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "base/prng.h"
#include "base/time.h"
#include "link/link.h"
#include "world/sim/timeline.h"

namespace stagecoach::world::sim {

/// One host's lines. units: bytes a second of frames, 0 = unshaped.
struct HostLines {
  double up = 0;
  double down = 0;
};

/// What lies between two hosts, the same in both directions.
struct Path {
  base::Duration round_trip;
  base::Duration jitter;
  double loss = 0;    // of packets
  double burst = 1;   // packets that a loss takes on average
};

inline constexpr std::uint64_t kSmallBytes = 16 * 1024;
inline constexpr std::uint64_t kPacketBytes = 1448;

class Lines {
 public:
  using Arrived = std::function<void()>;
  using PathOf = std::function<Path(Node, Node)>;
  struct Options {
    std::uint64_t seed = 1;
    std::uint64_t initial_window = 10 * kPacketBytes;
  };
  /// `path_of` is asked for each message, so that a path may change.
  Lines(Timeline& timeline, std::vector<HostLines> hosts, PathOf path_of, Options options);

  /// Calls `arrived` when the last byte of the message is there, or never, if the link is dropped before.
  void carry(Node from, Node to, link::Priority priority, std::uint64_t bytes, Arrived arrived);
  /// The link between the two is gone: what it had not sent is forgotten, and the next one begins with a slow start.
  void drop(Node a, Node b);
  void set_host(Node node, HostLines lines);
  HostLines host(Node node) const { return hosts_[node].lines; }
  /// Nothing moves to or from the node while it is held.
  void hold(Node node, bool held);

 private:
  struct Message {
    double left = 0;
    std::uint64_t bytes = 0;
    Arrived arrived;
  };
  struct Flow {
    Node from = 0, to = 0;
    std::array<std::deque<Message>, link::kPriorities> queues;
    std::uint64_t sent = 0;       // on this link since it is up: how far its slow start has come
    double rate = 0;              // bytes a second of its present message
    base::Instant since;          // up to when `left` is right
    std::uint64_t plan = 0;       // of the event that ends the present message; an older one is void
    bool active = false;

    std::deque<Message>* best();
    bool urgent() const;
  };
  struct Host {
    HostLines lines;
    bool held = false;
    std::vector<Flow*> out, in;   // that have something to send
    double urgent_level = 0, bulk_level = 0, down_level = 0;  // the most that one flow may take
    bool dirty = false;
  };

  Flow& flow(Node from, Node to);
  void activate(Flow& flow);
  void deactivate(Flow& flow);
  void advance(Flow& flow);
  void finished(Flow& flow, std::uint64_t plan);
  void mark(Node node);
  void settle();
  bool level_up(Host& host);
  bool level_down(Host& host);
  double allowed(const Flow& flow) const;
  void apply_rates(const std::vector<Node>& touched);
  void plan_end(Flow& flow);
  base::Duration late(Flow& flow, const Path& path, std::uint64_t bytes);
  base::Duration small_time(Node from, Node to, const Path& path, std::uint64_t bytes);
  double rate_of(Node from, Node to) const;

  Timeline& timeline_;
  PathOf path_of_;
  Options options_;
  base::Prng random_;
  std::vector<Host> hosts_;
  std::map<std::pair<Node, Node>, std::unique_ptr<Flow>> flows_;
  std::vector<Node> dirty_;
  bool settling_ = false;
};

}  // namespace stagecoach::world::sim
