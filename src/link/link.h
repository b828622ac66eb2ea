// Endpoint: authenticated links to peers, whichever road carries them (QUIC, memory; later TLS over TCP).
//
// In:      dial, send, close; the passing of time and arriving packets (each implementation's own way).
// Out:     events: a link is up, a frame arrived, a link is down with its reason. Statistics.
// Thread:  loop.
// Why:     brains and node code see peers by key and whole frames; nothing above this header knows what a socket or a stream is.
//          An endpoint reports and never decides about work (DESIGN §6). All implementations pass link/contract.h.
//
// What every implementation promises:
// - A link is between two PeerIds, proven by their Ed25519 keys. At most one link per peer is up; `generation` numbers them.
// - Frames are whole, and come at most once per link. Frames of Priority::control come in the order they were sent.
//   Frames of other priorities may overtake each other and control frames, in either direction.
// - A frame is either delivered or its link goes down (after which nothing of it arrives any more).
// - A peer that sends what the rules forbid loses its link, with the reason in LinkDown; no other link notices.
// - send() never blocks. Beyond the queue limit it fails with `unavailable` and the caller keeps the frame.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/result.h"
#include "base/time.h"

namespace stagecoach::link {

/// Strict order per packet: control before backward before forward before bulk; bulk keeps a floor of 5 %.
enum class Priority : std::uint8_t { control = 0, backward = 1, forward = 2, bulk = 3 };
inline constexpr std::size_t kPriorities = 4;

/// Frames longer than this are refused before a byte is allocated: 256 MiB holds any boundary tensor of the presets.
inline constexpr std::uint32_t kFrameBytesMax = 256u << 20;
/// A control frame is small; longer ones cost the sender its link.
inline constexpr std::uint32_t kControlFrameBytesMax = 1u << 20;

/// Where a peer may be reached. An IPv4 or IPv6 literal; names are resolved before they get here.
struct Address {
  std::string host;
  std::uint16_t port = 0;
  auto operator<=>(const Address&) const = default;
};

/// Counts this process's links to one peer: a new link has a higher one, so that late events are told apart.
using LinkGeneration = base::Id<struct LinkGenerationTag>;

struct LinkUp {
  base::PeerId peer;
  LinkGeneration generation;
  Address address;      // as seen by us
  bool dialled = false; // by us
};
/// The peer's packets come from another address now; the link goes on. Where the peer then does not prove that it holds that address,
/// another such event names the one before.
struct AddressChanged {
  base::PeerId peer;
  LinkGeneration generation;
  Address address;
};
struct FrameArrived {
  base::PeerId peer;
  LinkGeneration generation;
  Priority priority = Priority::control;
  base::Payload frame;
};
enum class DownReason : std::uint8_t {
  closed_by_us,
  closed_by_peer,   // with its text
  idle,             // nothing was heard for the idle time-out
  unreachable,      // a dial got no answer or was refused
  wrong_identity,   // the peer proved another key than the one dialled, or none
  protocol_error,   // the peer broke a rule: which one is in the text
  peer_restarted,   // a new link of the same key took this one's place
};
std::string to_string(DownReason reason);
struct LinkDown {
  base::PeerId peer;
  LinkGeneration generation;  // 0 where a dial never came up
  DownReason reason = DownReason::closed_by_us;
  std::string text;
};
using Event = std::variant<LinkUp, AddressChanged, FrameArrived, LinkDown>;

struct SendOptions {
  Priority priority = Priority::control;
  base::Instant deadline = base::Instant::never();  // earliest first inside a class; not a time-out
};

struct LinkStats {
  base::Duration round_trip;
  std::uint64_t bytes_sent = 0;      // of frames, without overhead
  std::uint64_t bytes_received = 0;
  std::uint64_t packets_sent = 0;
  std::uint64_t packets_lost = 0;
  std::uint64_t bytes_queued = 0;    // accepted by send() and not yet acknowledged
};

/// Limits of one endpoint. The defaults serve a run; tests make them small.
struct Limits {
  std::size_t links_max = 1024;
  std::size_t handshakes_max = 128;                    // pending at once; more are ignored until some end
  std::size_t incoming_streams_max = 256;              // per link, unfinished at once
  std::uint64_t receive_buffer_bytes_max = 512u << 20; // per link, of unfinished frames
  std::uint64_t send_queue_bytes_max = 1024u << 20;    // per link
  base::Duration idle_timeout = base::Duration::seconds(10);
  base::Duration keep_alive = base::Duration::seconds(2);
  base::Duration handshake_timeout = base::Duration::seconds(5);
  std::uint64_t uplink_bytes_per_s = 0;                // token bucket over all links; 0 = no cap
};

class Endpoint {
 public:
  virtual ~Endpoint() = default;

  virtual base::PeerId self() const = 0;
  /// Where this endpoint listens.
  virtual Address local_address() const = 0;

  /// Opens a link to `peer` at the first of `addresses` that answers with its key. Ends in LinkUp or LinkDown. A second dial to a
  /// peer that is up or being dialled does nothing.
  virtual void dial(const base::PeerId& peer, std::span<const Address> addresses) = 0;

  /// Queues one frame. errors: not_found  no link to the peer is up · too_large  beyond kFrameBytesMax (kControlFrameBytesMax for
  /// control) · unavailable  the link's queue is full: try when it has drained
  virtual base::Result<void> send(const base::PeerId& peer, base::Payload frame, SendOptions options) = 0;

  /// Closes the link, telling the peer `text`. A LinkDown{closed_by_us} follows for a link that was up.
  virtual void close(const base::PeerId& peer, const std::string& text) = 0;

  /// Nothing where no link to the peer is up.
  virtual std::optional<LinkStats> stats(const base::PeerId& peer) const = 0;

  /// Takes what has happened since the last call, oldest first.
  virtual std::vector<Event> take_events() = 0;

  /// When the endpoint wants to be driven again though nothing arrived; never() where it does not. Not later than the newest advance()
  /// while events wait to be taken: nothing else would wake the owner for them.
  virtual base::Instant next_deadline() const = 0;

  /// The reading half of advance(): takes in what has arrived, lets timers pass, and sends nothing. advance() must follow at once: what
  /// the events of this call make the owner send leaves together with the acknowledgements, and wakes the peer once instead of twice.
  virtual void take_in(base::Instant now) = 0;

  /// Lets time pass to `now` (never backwards) and does all the I/O that is possible without waiting.
  virtual void advance(base::Instant now) = 0;
};

}  // namespace stagecoach::link
