// MemoryRoad and its endpoints: links between peers of one process.
//
// In:      endpoints made from one road; each is driven by its own advance(), on a real or a virtual clock.
// Out:     what link.h promises, with the same refusals and reasons as over QUIC.
// Thread:  one for the whole road.
// Why:     tests of everything above the road need peers without sockets, and link/contract.h needs a second implementation to be a
//          contract. What a network does to order, delay and room is an option here, seeded, so that a failing test repeats.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/prng.h"
#include "link/contention.h"
#include "link/link.h"
#include "link/send_order.h"

namespace stagecoach::link {

class MemoryEndpoint;

class MemoryRoad {
 public:
  struct Options {
    std::uint64_t seed = 1;
    bool reorder = false;                    // frames that are not control change places within one delivery
    base::Duration delay;                    // one way
    std::uint64_t window_bytes = 1u << 20;   // per link and direction: on the road and not yet taken; one frame may pass it
  };
  explicit MemoryRoad(Options options) : options_(options), prng_(options.seed) {}

  /// A new endpoint at an address of its own. owns: the road outlives it. Destroying it says nothing to its peers, as a killed process.
  std::unique_ptr<MemoryEndpoint> make_endpoint(const base::PeerId& self, const Limits& limits);

 private:
  friend class MemoryEndpoint;

  struct Message {
    enum class Kind : std::uint8_t { dial, greeting, frame, taken, ping, close, wrong_key };
    Kind kind = Kind::ping;
    std::uint64_t connection = 0;
    base::PeerId from;
    base::PeerId expects;     // of a dial
    Address from_address;
    Greeting greeting;        // of a dial or greeting
    Priority priority = Priority::control;
    base::Payload frame;
    std::uint64_t bytes = 0;  // of taken
    std::string text;         // of close
  };
  using Inbox = std::multimap<base::Instant, Message>;  // by due time; equal ones in the order they were sent

  void post(const Address& to, base::Instant now, Message message);

  Options options_;
  base::Prng prng_;
  std::uint64_t next_connection_ = 1;
  std::uint16_t next_port_ = 1;
  std::map<Address, Inbox> inboxes_;
};

class MemoryEndpoint : public Endpoint {
 public:
  ~MemoryEndpoint() override;

  base::PeerId self() const override { return self_; }
  Address local_address() const override { return address_; }
  void dial(const base::PeerId& peer, std::span<const Address> addresses) override;
  base::Result<void> send(const base::PeerId& peer, base::Payload frame, SendOptions options) override;
  void close(const base::PeerId& peer, const std::string& text) override;
  std::optional<LinkStats> stats(const base::PeerId& peer) const override;
  std::vector<Event> take_events() override;
  base::Instant next_deadline() const override;
  void take_in(base::Instant now) override;
  void advance(base::Instant now) override;

 private:
  friend class MemoryRoad;
  using Message = MemoryRoad::Message;

  struct Dial {
    std::map<std::uint64_t, Address> attempts;  // by connection
    bool started = false;                       // at the first advance(): only then is the time known
    base::Instant gives_up;
    DownReason reason = DownReason::unreachable;
    std::string text = "nobody answered";
  };
  struct Waiting {  // a dial to us that waits for our own to the same peer
    Message dial;
    base::Instant gives_up;
  };
  struct Link {
    std::uint64_t connection = 0;
    Address address;
    LinkGeneration generation;
    Greeting theirs;
    std::map<SendOrder, base::Payload> queue;
    std::uint64_t on_the_road_bytes = 0;
    base::Instant heard;
    base::Instant sent;
    LinkStats stats;
  };

  MemoryEndpoint(MemoryRoad& road, const base::PeerId& self, const Limits& limits, Address address);
  void start_dials();
  void receive(base::Instant now);
  void take(const Message& message);
  void take_dial(const Message& message, base::Instant gives_up);
  void take_greeting(const Message& message);
  void take_close(const Message& message);
  void fail_attempt(const base::PeerId& peer, std::uint64_t connection, DownReason reason, const std::string& text);
  void judge_waiting();
  void run_timers();
  void send_queued();
  void transmit(const base::PeerId& peer, Link& link, std::map<SendOrder, base::Payload>::iterator frame);
  bool urgent_waits() const;
  bool has_room(const Link& link) const;
  void come_up(const Message& message, bool dialled);
  void go_down(const base::PeerId& peer, DownReason reason, const std::string& text);
  void give_up_dial(const base::PeerId& peer);
  void post(const Address& to, Message message);
  Link* find(const Message& message);

  MemoryRoad& road_;
  const base::PeerId self_;
  const Limits limits_;
  const Address address_;
  const std::uint64_t start_;
  base::Instant now_;
  std::uint64_t tick_ = 0;
  std::uint64_t next_sequence_ = 0;
  std::uint64_t generations_ = 0;
  bool dirty_ = false;  // something was asked for since the last advance()
  std::map<base::PeerId, Dial> dials_;
  std::vector<Waiting> waiting_;
  std::map<base::PeerId, Link> links_;
  BulkFloor floor_;
  TokenBucket uplink_;
  std::vector<Event> events_;
};

}  // namespace stagecoach::link
