// QuicEndpoint: links over QUIC on one UDP socket.
//
// In:      link::Endpoint's calls; datagrams from the socket; time by advance().
// Out:     link events; datagrams. fd() says when there is something to read.
// Thread:  loop. Never waits.
// Why:     which peers there are, who may come in, which of two links stays and what bulk may take from the uplink are decided for the
//          whole process and therefore here, above single connections.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "link/contention.h"
#include "link/identity.h"
#include "link/link.h"
#include "link/send_order.h"
#include "world/real/loop.h"
#include "world/real/quic_connection.h"
#include "world/real/udp_outbox.h"
#include "world/real/udp_socket.h"

namespace stagecoach::world::real {

class QuicEndpoint : public link::Endpoint {
 public:
  struct Options {
    link::Address bind{"0.0.0.0", 0};  // port 0: any free one; "::" listens on IPv6 and IPv4
    link::Limits limits;
    std::function<bool(const base::PeerId&)> admit;  // who may open a link to us; empty: everybody
    base::Instant (*clock)() = monotonic_now;        // the one that advance() is told the time of
    std::uint64_t loopback = loopback_id();          // which processes are on this machine, with no road between
  };
  /// errors: unavailable  the port is in use · invalid_argument  the host is no literal · io_error · internal  GnuTLS refuses
  static base::Result<std::unique_ptr<QuicEndpoint>> open(const link::Identity& identity, Options options);
  /// Says nothing to the peers, as a killed process: close() the links first where they should know.
  ~QuicEndpoint() override;

  /// The socket, to wait for with poll(): readable means advance().
  int fd() const { return socket_.fd(); }

  base::PeerId self() const override { return self_; }
  link::Address local_address() const override { return socket_.local().to_address(); }
  void dial(const base::PeerId& peer, std::span<const link::Address> addresses) override;
  base::Result<void> send(const base::PeerId& peer, base::Payload frame, link::SendOptions options) override;
  void close(const base::PeerId& peer, const std::string& text) override;
  std::optional<link::LinkStats> stats(const base::PeerId& peer) const override;
  std::vector<link::Event> take_events() override { return std::exchange(events_, {}); }
  base::Instant next_deadline() const override;
  void take_in(base::Instant now) override;
  void advance(base::Instant now) override;

 private:
  using Instant = base::Instant;
  /// When a full socket is tried again: the kernel empties it in far less.
  static constexpr base::Duration kRetryFullSocket = base::Duration::milliseconds(1);
  /// Urgent frames that have not moved for so long do not hold back others' bulk: their peer may be gone.
  static constexpr base::Duration kUrgentPatience = base::Duration::milliseconds(200);

  struct Dial {
    std::vector<link::Address> addresses;
    bool started = false;                    // at the first advance(): only then is the time known
    Instant gives_up;
    link::Greeting greeting;
    std::vector<QuicConnection*> attempts;   // one per address, at once
    QuicConnection* greeted = nullptr;       // the first that proved the key
    link::DownReason reason = link::DownReason::unreachable;
    std::string text = "nobody answered";
  };
  struct Link {
    QuicConnection* connection = nullptr;
    link::LinkGeneration generation;
    link::Greeting theirs;
  };

  QuicEndpoint(const link::Identity& identity, Options options, UdpSocket socket, std::unique_ptr<TlsContext> tls);

  // Packets (quic_endpoint_packets.cpp).
  /// Where the thread was held up since advance() was told the time, packets have come meanwhile. Stamped with that time, their round
  /// trips look shorter than the road is, and BBR, which takes the least for the road's length, then keeps too little in flight.
  void look_at_clock() { now_ = std::max(now_, clock_()); }
  void receive();
  void on_datagram(const UdpAddress& from, std::span<const std::byte> datagram);
  void on_unknown(const UdpAddress& from, std::span<const std::byte> datagram, std::span<const std::uint8_t> id);
  bool validate_address(QuicIncoming& incoming);
  void answer_version(const UdpAddress& from, std::span<const std::byte> datagram, const ngtcp2_version_cid& header);
  void answer_retry(const QuicIncoming& incoming);
  void answer_reset(const UdpAddress& from, std::size_t datagram_size, std::span<const std::uint8_t> id);
  std::size_t pending_accepts() const;
  void write_all();
  bool write_one(QuicConnection& connection, std::size_t urgent);
  bool urgent_moves(const QuicConnection& connection) const;
  std::size_t count_urgent() const;

  // Links (quic_endpoint.cpp).
  void start_dials();
  void start_attempt(const base::PeerId& peer, Dial& dial, const link::Address& address);
  void finish_dials();
  void run_timers();
  void settle_all();
  void settle(QuicConnection& connection);
  void settle_dialled(QuicConnection& connection);
  void settle_accepted(QuicConnection& connection);
  void report_end(QuicConnection& connection);
  void dismiss(QuicConnection& connection, QuicCloseCode code, const std::string& text);
  void come_up(QuicConnection& connection, const base::PeerId& peer);
  void go_down(const base::PeerId& peer, link::DownReason reason, const std::string& text);
  void give_up_dial(const base::PeerId& peer);
  Link* link_of(const QuicConnection& connection);
  void sweep();

  const base::PeerId self_;
  const std::function<bool(const base::PeerId&)> admit_;
  base::Instant (*const clock_)();
  UdpSocket socket_;
  UdpOutbox out_;
  QuicShared shared_;
  const std::uint64_t start_;
  Instant now_;
  bool dirty_ = false;  // something was asked for since the last advance()
  std::uint64_t tick_ = 0;
  std::uint64_t generations_ = 0;
  std::vector<std::unique_ptr<QuicConnection>> connections_;
  std::size_t first_to_write_ = 0;
  std::size_t stateless_answers_ = 0;  // in this advance()
  std::size_t written_bytes_ = 0;      // in this advance()
  std::map<base::PeerId, Dial> dials_;
  std::map<base::PeerId, Link> links_;
  link::BulkFloor floor_;
  link::TokenBucket uplink_;
  std::vector<link::Event> events_;
};

}  // namespace stagecoach::world::real
