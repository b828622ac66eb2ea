// Star: hosts in a star, a road for each ordered pair of them, and the packets that are under way.
//
// In:      packets with the time at which a host sent them; time; settings.
// Out:     packets with the host that they reach, when they are due.
// Thread:  one. No clock, no device: a sink takes what is delivered.
// Why:     who waits behind whom is the hard part of an emulator, and a device, a namespace or root have nothing to do with it.
//
// A segment enters its host's uplink, then its pair's queue, may get lost, travels, and enters the other host's downlink when it
// arrives there: entering that earlier would let a far packet hold back a near one.
#pragma once

#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "base/bytes.h"
#include "lab/emulator/packet.h"
#include "lab/emulator/road.h"

namespace stagecoach::lab {

using HostIndex = std::size_t;

class Star {
 public:
  /// Takes what has arrived. The spans are valid during the call.
  class Sink {
   public:
    virtual ~Sink() = default;
    virtual void deliver(HostIndex to, std::span<const std::byte> head, std::span<const std::byte> payload) = 0;
  };

  /// units: wire packets, and bytes of them.
  struct Counts {
    std::uint64_t packets = 0;    // that were sent
    std::uint64_t bytes = 0;
    std::uint64_t delivered = 0;
    std::uint64_t lost = 0;       // by chance
    std::uint64_t dropped = 0;    // at the tail of a full queue
    std::uint64_t cut = 0;        // while nothing passed
  };

  explicit Star(std::uint64_t seed) : dice_(seed) {}

  /// Hosts are numbered from 0 in the order in which they are added; all are joined with all, without limits.
  HostIndex add_host(std::uint32_t address);
  std::size_t hosts() const { return hosts_.size(); }
  void set_address(HostIndex host, std::uint32_t address) { hosts_[host].address = address; }
  std::uint32_t address(HostIndex host) const { return hosts_[host].address; }
  Fifo& uplink(HostIndex host) { return hosts_[host].up; }
  Fifo& downlink(HostIndex host) { return hosts_[host].down; }
  Road& road(HostIndex from, HostIndex to) { return pair(from, to).road; }
  const Counts& counts(HostIndex from, HostIndex to) { return pair(from, to).counts; }
  /// Packets for no host of the star, or of no kind that it carries.
  std::uint64_t astray() const { return astray_; }

  /// Takes a packet (with its virtio-net header) that `from` sends at `now`. What no rule holds back is delivered at once.
  void send(HostIndex from, std::span<const std::byte> packet, base::Instant now, Sink& sink);
  /// Delivers what is due at `now`, in the order of time.
  void advance(base::Instant now, Sink& sink);
  /// When advance() has something to do; never() where nothing is under way.
  base::Instant next_deadline() const { return under_way_.empty() ? base::Instant::never() : under_way_.front().due; }
  std::size_t under_way() const { return under_way_.size(); }

 private:
  struct Host {
    std::uint32_t address = 0;
    Fifo up;
    Fifo down;
  };
  struct Pair {
    Road road;
    Counts counts;
  };
  /// Neighbouring segments of one packet that move together.
  struct Run {
    std::size_t first = 0;
    std::size_t count = 0;
    base::Instant begins;  // when its first segment could be there
    base::Instant due;     // when its last is
  };
  struct UnderWay {
    base::Instant due;
    std::uint64_t sequence = 0;
    HostIndex from = 0;
    HostIndex to = 0;
    bool at_downlink = false;  // its next stop is the downlink's queue, not the host
    base::Payload packet;
    Shape shape;
    Run run;
    bool operator>(const UnderWay& other) const { return std::tie(due, sequence) > std::tie(other.due, other.sequence); }
  };
  /// A packet as it is while one call works on it: kept only where something of it has to wait.
  struct InHand {
    std::span<const std::byte> bytes;
    Shape shape;
    base::Payload kept;
  };

  Pair& pair(HostIndex from, HostIndex to) { return pairs_[from * hosts_.size() + to]; }
  std::optional<HostIndex> host_at(std::uint32_t address) const;
  void travel(HostIndex from, HostIndex to, const Shape& shape, base::Instant now);
  void pass_downlink(UnderWay& arrived);
  void extend(std::size_t segment, base::Instant due);
  void dispatch(HostIndex from, HostIndex to, InHand& packet, bool at_downlink, base::Instant now, Sink& sink);
  void deliver(HostIndex from, HostIndex to, std::span<const std::byte> packet, const Shape& shape, const Run& run, Sink& sink);

  base::Prng dice_;
  std::vector<Host> hosts_;
  std::vector<Pair> pairs_;
  std::vector<UnderWay> under_way_;  // a heap, the earliest first
  std::uint64_t sequence_ = 0;
  std::uint64_t astray_ = 0;
  std::vector<Run> runs_;            // of the packet in hand
  std::vector<Run> twins_;           // duplicates of its segments
};

}  // namespace stagecoach::lab
