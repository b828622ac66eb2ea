// QuicConnection: one QUIC connection, from the first packet to the last.
//
// In:      datagrams of this connection, time, frames to send.
// Out:     datagrams; whole frames; the peer's greeting; how it ended.
// Thread:  loop. It owns no socket: the endpoint moves the datagrams.
// Why:     everything that touches ngtcp2's state of one connection is here. It knows streams and packets; it does not know which peers
//          there are, which of two links stays, or what is reported above.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "link/contention.h"
#include "link/frame_assembler.h"
#include "link/link.h"
#include "link/send_order.h"
#include "world/real/loopback.h"
#include "world/real/quic_bulk_restraint.h"
#include "world/real/quic_compat.h"
#include "world/real/quic_rate_hold.h"
#include "world/real/quic_send_queue.h"
#include "world/real/quic_tls.h"
#include "world/real/udp_outbox.h"

namespace stagecoach::world::real {

class QuicConnection;

/// Application codes of CONNECTION_CLOSE (docs/formats/road.md). They are for logs; behaviour hangs on the text only for people.
enum class QuicCloseCode : std::uint64_t { closed = 0, protocol_error = 1, refused = 2, duplicate = 3, replaced = 4 };

/// Which connection a datagram belongs to, by the connection id in it.
class QuicConnectionIds {
 public:
  static constexpr std::size_t kOurBytes = 8;
  void add(const ngtcp2_cid& id, QuicConnection* connection) { table_[key({id.data, id.datalen})] = connection; }
  void remove(const ngtcp2_cid& id) { table_.erase(key({id.data, id.datalen})); }
  void remove_all(const QuicConnection* connection) {
    std::erase_if(table_, [&](const auto& entry) { return entry.second == connection; });
  }
  QuicConnection* find(std::span<const std::uint8_t> id) const {
    const auto at = table_.find(key(id));
    return at == table_.end() ? nullptr : at->second;
  }

 private:
  static std::string key(std::span<const std::uint8_t> id) { return {reinterpret_cast<const char*>(id.data()), id.size()}; }
  std::unordered_map<std::string, QuicConnection*> table_;
};

/// What all connections of one endpoint share. It outlives them.
struct QuicShared {
  std::unique_ptr<TlsContext> tls;
  link::Limits limits;
  UdpAddress local;
  std::uint64_t loopback = 0;                  // loopback_id()
  std::array<std::uint8_t, 32> reset_key{};  // the same after a restart: the new process can tell peers of the old one that it is gone
  std::array<std::uint8_t, 32> retry_key{};
  QuicConnectionIds ids;
};

/// How a connection ended, in the endpoint's terms.
struct QuicEnd {
  link::DownReason reason = link::DownReason::closed_by_us;
  std::string text;
};

/// What an incoming connection needs beside its first packet's header.
struct QuicIncoming {
  ngtcp2_pkt_hd header{};
  UdpAddress from;
  std::optional<ngtcp2_cid> original_id;  // where the address was validated by a Retry
};

class QuicConnection {
 public:
  using Instant = base::Instant;

  /// errors: internal  out of memory, or GnuTLS failed
  static base::Result<std::unique_ptr<QuicConnection>> dial(QuicShared& shared, const base::PeerId& peer, const UdpAddress& to, Instant now);
  static base::Result<std::unique_ptr<QuicConnection>> accept(QuicShared& shared, const QuicIncoming& incoming, Instant now);
  ~QuicConnection();
  QuicConnection(const QuicConnection&) = delete;
  QuicConnection& operator=(const QuicConnection&) = delete;

  bool dialled() const { return dialled_; }
  /// The handshake is complete: peer() is proven.
  bool handshake_done() const { return handshake_done_; }
  std::optional<base::PeerId> peer() const { return tls_->peer(); }
  link::Address remote_address() const;
  bool has_remote(const UdpAddress& address) const;
  /// True once after the peer's packets have begun to come from another address than when this was asked last (or the link came up).
  /// ngtcp2 goes over to it at once, asks there for a proof, and goes back where none comes.
  bool moved();
  Instant created() const { return created_; }

  void read(const UdpAddress& from, std::span<const std::byte> datagram, Instant now);
  void run_timers(Instant now);
  /// When run_timers() is due; never() for an ended connection that needs no more time.
  Instant deadline() const;

  /// What was just read need not be answered at once: at home an acknowledgement alone wakes its receiver for nothing, and soon there is a
  /// frame to send that carries it. deadline() says until when.
  bool defers_answer();

  /// One burst's permissions and books, the endpoint's side of write().
  struct Turn {
    Instant now;
    std::size_t bytes_max = 0;   // soft: the last packet may pass it
    bool others_urgent = false;  // urgent frames wait on another connection of this process
    link::BulkFloor& floor;
    UdpOutbox& out;
    std::size_t written = 0;     // in this burst, so far
  };
  /// Writes one burst. Returns the bytes written; 0 where the connection has nothing to say or may not say it now.
  std::size_t write(Turn& turn);
  /// Says our greeting: the dialler's first words, or the acceptance of the side that was dialled. Frames may be sent from then on.
  void greet(const link::Greeting& greeting);
  void send(link::SendOptions options, base::Payload frame) { queue_.push(options, std::move(frame)); }

  /// Ends the connection and tells the peer; write() sends the word. A second close does nothing.
  void close(QuicCloseCode code, const std::string& text);

  /// The peer's greeting, once it has come.
  const std::optional<link::Greeting>& greeting() const { return their_greeting_; }
  /// The link is up: frames may be taken. Until then only the few that overtook the greeting are kept.
  void come_up();
  bool is_up() const { return up_; }
  std::vector<link::AssembledFrame> take_frames() { return std::exchange(arrived_, {}); }

  /// How it ended; nothing while it lives. After close() it is what the closer knows already, so nothing is said here.
  const std::optional<QuicEnd>& end() const { return end_; }
  /// Ended, and nothing has to be sent or answered any more.
  bool finished(Instant now) const;

  link::LinkStats stats() const;
  bool urgent_waits() const { return queue_.urgent_waits(); }
  bool bulk_waits() const { return queue_.bulk_waits(); }
  std::uint64_t bytes_queued() const { return queue_.bytes_queued(); }
  std::uint64_t bytes_written() const { return queue_.bytes_written(); }
  bool speaks_our_protocol() const { return tls_->speaks_our_protocol(); }

  /// The endpoint's notes on this connection; nothing in here reads them.
  struct Notes {
    base::PeerId dialled;                 // the key that a dial expects
    bool reported = false;                // its end was told above, or nobody waits for it
    bool wants_write = true;              // write() may have something to do
    bool held = false;                    // bulk waits because others' urgent frames do
    Instant urgent_progress;              // when urgent frames began to wait, or last moved
  } notes;

 private:
  struct Incoming {
    explicit Incoming(link::FrameAssembler::Stream stream, link::ReceiveBudget& budget) : assembler(stream, budget) {}
    link::FrameAssembler assembler;
    Instant last;
  };
  enum class State { open, closing, ended };

  QuicConnection(QuicShared& shared, bool dialled, Instant now);
  ngtcp2_settings settings() const;
  ngtcp2_transport_params parameters() const;
  static ngtcp2_callbacks callbacks();
  friend struct QuicCallbacks;
  friend class QuicMisbehaviour;

  // What ngtcp2 reports (quic_callbacks.cpp). False: a rule was broken, and end_ says which.
  bool on_stream_bytes(std::int64_t stream, std::span<const std::byte> bytes, bool finished);
  bool on_control_frame(link::AssembledFrame frame);
  bool on_stream_opened(std::int64_t stream);
  bool on_stream_closed(std::int64_t stream, void* frame);
  bool broke_rule(const std::string& rule);

  void fail_library(int error);
  void fail_crypto();
  void on_peer_closed();
  void finish(QuicEnd end) {
    if (!end_) end_ = std::move(end);
    state_ = State::ended;
  }
  void check_stalled(Instant now);
  /// So long an unfinished frame may stand still while its link lives. Urgent traffic may hold an honest sender's frame back for a while.
  base::Duration stall_timeout() const { return shared_.limits.idle_timeout * 3; }
  void open_streams();
  std::int64_t write_packet(std::span<std::byte> room, ngtcp2_path_storage& path, Turn& turn);
  void hold_rate(Turn& turn);
  std::size_t write_close(Turn& turn);
  void account(const QuicSendQueue::Piece& piece, std::uint64_t bytes, bool contended, Turn& turn);
  ngtcp2_tstamp stamp(Instant now) const;
  /// Room for one packet; a path's size may be found to be less.
  std::size_t datagram_bytes_max() const;

  QuicShared& shared_;
  const bool dialled_;
  bool at_loopback_ = false;  // where the connection began; what is there may be a tunnel
  bool at_home_ = false;      // the other end is on this machine, and no road is between
  Instant answer_due_ = Instant::never();  // of packets that were read and not answered yet; never() where there are none
  std::size_t unanswered_ = 0;             // so many of them
  bool read_of_frames_ = false;            // the packet that was just read held bytes of frames
  Instant heard_at_;                       // when the last such packet was read
  bool in_company_ = false;                // the last frame went soon after a packet was read: an answer will not wait in vain
  const Instant created_;
  UdpAddress known_remote_;  // for moved()
  std::unique_ptr<TlsSession> tls_;
  ngtcp2_conn* conn_ = nullptr;
  State state_ = State::open;
  Instant now_;  // of the call that is running; ngtcp2's callbacks come without one
  bool handshake_done_ = false;
  bool up_ = false;
  bool reset_by_peer_ = false;
  std::optional<link::Greeting> their_greeting_;
  std::optional<QuicEnd> end_;

  // The word of farewell: kept to answer packets of a peer that has not heard it.
  QuicCloseError close_error_{};
  std::string close_text_;
  std::vector<std::byte> close_packet_;
  UdpAddress close_to_;
  bool close_unsent_ = false;
  Instant closing_ends_;
  std::uint64_t closing_heard_ = 0;

  QuicSendQueue queue_;
  QuicBulkRestraint restraint_;
  QuicRateHold hold_;
  Instant urgent_at_;  // when bytes of a tensor last went
  link::ReceiveBudget budget_;
  std::map<std::int64_t, Incoming> incoming_;
  std::vector<std::int64_t> answers_;  // streams of whole frames whose answer, an empty end of stream, is still to be written
  std::vector<link::AssembledFrame> arrived_;
  std::uint64_t arrived_early_bytes_ = 0;
  Instant next_stall_check_ = Instant::never();

  std::uint64_t bytes_received_ = 0;
  std::uint64_t bytes_sent_ = 0;  // of packets
  std::uint64_t packets_sent_ = 0;
  std::uint64_t packets_lost_ = 0;
};

}  // namespace stagecoach::world::real
