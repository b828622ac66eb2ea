// Peers that break the rules lose their own link, with the reason; an honest link beside them keeps exchanging frames.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <deque>

#include "base/prng.h"
#include "world/real/quic_harness.h"

namespace stagecoach::world::real {

/// The one door behind a connection's rules, for peers that break them.
class QuicMisbehaviour {
 public:
  static ngtcp2_conn* raw(QuicConnection& connection) { return connection.conn_; }
};

namespace {

using base::Duration;
using base::Instant;

/// A peer with a good handshake and bad manners: it writes what it likes on streams of its own.
class HostilePeer {
 public:
  explicit HostilePeer(QuicEndpoint& victim)
      : identity_(link::Identity::generate().value()), socket_(UdpSocket::bind({"127.0.0.1", 0}).value()), out_(socket_),
        victim_(UdpAddress::from(victim.local_address()).value()), victim_key_(victim.self()) {
    shared_.tls = TlsContext::create(identity_).value();
    shared_.local = socket_.local();
  }
  base::PeerId id() const { return identity_.peer_id(); }
  int fd() const { return socket_.fd(); }
  QuicConnection& connection() { return *connection_; }

  void dial(Instant now) { connection_ = QuicConnection::dial(shared_, victim_key_, victim_, now).value(); }
  void greet(bool as_it_should) {
    if (as_it_should) connection_->greet({7, 1});
  }
  /// A new stream that carries `bytes`.
  std::int64_t stream(base::Bytes bytes, bool end) {
    Outgoing out;
    if (ngtcp2_conn_open_bidi_stream(raw(), &out.stream, nullptr) != 0) return -1;
    out.bytes = std::move(bytes);
    out.end = end;
    outgoing_.push_back(std::move(out));
    return outgoing_.back().stream;
  }
  void reset(std::int64_t stream) { compat::abandon_stream(raw(), stream); }
  void pump(Instant now) {
    for (auto received = socket_.receive(); received; received = socket_.receive()) {
      for (std::size_t at = 0; at < received->bytes.size(); at += received->datagram_size) {
        connection_->read(received->from, received->bytes.subspan(at, std::min(received->datagram_size, received->bytes.size() - at)), now);
      }
    }
    connection_->run_timers(now);
    if (!connection_->end()) write_streams(now);
    link::BulkFloor floor;
    QuicConnection::Turn turn{now, ~std::size_t{0}, false, floor, out_};
    while (connection_->write(turn) > 0) out_.flush();
    out_.flush();
  }

 private:
  struct Outgoing {
    std::int64_t stream = -1;
    base::Bytes bytes;
    bool end = false;
    std::size_t written = 0;
    bool done = false;
  };
  ngtcp2_conn* raw() { return QuicMisbehaviour::raw(*connection_); }

  void write_streams(Instant now) {
    for (Outgoing& out : outgoing_) {
      while (!out.done) {
        ngtcp2_path_storage path;
        ngtcp2_path_storage_zero(&path);
        ngtcp2_pkt_info info{};
        ngtcp2_vec part{reinterpret_cast<std::uint8_t*>(out.bytes.data()) + out.written, out.bytes.size() - out.written};
        ngtcp2_ssize taken = -1;
        const auto room = out_.room();
        const auto size = ngtcp2_conn_writev_stream(raw(), &path.path, &info, reinterpret_cast<std::uint8_t*>(room.data()), room.size(), &taken,
                                                    out.end ? NGTCP2_WRITE_STREAM_FLAG_FIN : 0, out.stream, &part, 1,
                                                    static_cast<ngtcp2_tstamp>(now.ns()) + 1);
        if (taken >= 0) out.written += static_cast<std::size_t>(taken);
        if (taken >= 0 && out.written == out.bytes.size()) out.done = true;
        if (size <= 0) break;
        out_.add(victim_, static_cast<std::size_t>(size));
      }
    }
    out_.flush();
  }

  link::Identity identity_;
  UdpSocket socket_;
  UdpOutbox out_;
  QuicShared shared_;
  UdpAddress victim_;
  base::PeerId victim_key_;
  std::deque<Outgoing> outgoing_;
  std::unique_ptr<QuicConnection> connection_;
};

base::Bytes prefix(std::uint8_t priority, std::uint32_t length, std::size_t sent = 0) {
  base::ByteWriter writer;
  writer.u8(priority);
  writer.u32(length);
  writer.raw(base::Bytes(sent));
  return writer.take();
}

class HostilePeers : public testing::Test {
 protected:
  static link::Limits limits() {
    link::Limits limits;
    limits.idle_timeout = Duration::milliseconds(800);
    limits.keep_alive = Duration::milliseconds(100);
    limits.handshake_timeout = Duration::milliseconds(800);
    limits.incoming_streams_max = 16;
    limits.receive_buffer_bytes_max = 4u << 20;
    limits.handshakes_max = 16;
    return limits;
  }
  void SetUp() override {
    victim_ = std::make_unique<link::Party>(harness_, link::Identity::generate().value(), limits());
    honest_ = std::make_unique<link::Party>(harness_, link::Identity::generate().value(), limits());
    honest_->dial(*victim_);
    ASSERT_TRUE(run([&] { return honest_->is_up(*victim_) && victim_->is_up(*honest_); }));
  }
  /// In every test: the honest link is still the same one, and frames still cross it.
  void TearDown() override {
    const std::size_t before = victim_->frame_count();
    ASSERT_TRUE(honest_->send(*victim_, base::Bytes(100'000), link::Priority::forward).ok());
    EXPECT_TRUE(run([&] { return victim_->frame_count() > before; })) << "the honest link still works";
    EXPECT_TRUE(honest_->all<link::LinkDown>().empty());
  }
  QuicEndpoint& victim() { return static_cast<QuicEndpoint&>(victim_->road()); }

  bool run(const std::function<bool()>& done, Duration limit = Duration::seconds(5)) {
    link::Endpoint* endpoints[] = {&victim_->road(), &honest_->road()};
    for (const Instant end = harness_.now() + limit; !done();) {
      if (harness_.now() > end) return false;
      for (auto& peer : hostile_) peer->pump(harness_.now());
      harness_.turn(endpoints);
      victim_->collect();
      honest_->collect();
    }
    return true;
  }
  HostilePeer& hostile_peer() {
    hostile_.push_back(std::make_unique<HostilePeer>(victim()));
    hostile_.back()->dial(harness_.now());
    return *hostile_.back();
  }
  bool up(const HostilePeer& peer) {
    for (const link::LinkUp& up : victim_->all<link::LinkUp>()) {
      if (up.peer == peer.id()) return true;
    }
    return false;
  }
  /// A peer whose link to the victim is up.
  HostilePeer& joined() {
    HostilePeer& peer = hostile_peer();
    EXPECT_TRUE(run([&] { return peer.connection().handshake_done(); }));
    peer.greet(true);
    EXPECT_TRUE(run([&] { return up(peer); }));
    return peer;
  }
  /// The victim drops `peer` as protocol_error, and both ends are told which rule it broke.
  void expect_dropped(HostilePeer& peer, const std::string& rule) {
    auto downs = [&] { return victim_->all<link::LinkDown>(); };
    ASSERT_TRUE(run([&] { return !downs().empty() && peer.connection().end(); })) << rule;
    EXPECT_EQ(downs()[0].peer, peer.id());
    EXPECT_EQ(downs()[0].reason, link::DownReason::protocol_error);
    EXPECT_THAT(downs()[0].text, testing::HasSubstr(rule));
    EXPECT_EQ(peer.connection().end()->reason, link::DownReason::closed_by_peer);
    EXPECT_THAT(peer.connection().end()->text, testing::HasSubstr(rule));
  }

  QuicHarness harness_;
  std::unique_ptr<link::Party> victim_;
  std::unique_ptr<link::Party> honest_;
  std::vector<std::unique_ptr<HostilePeer>> hostile_;
};

// Claim: datagrams of noise, among them ones that look like the beginnings of QUIC packets, change nothing.
TEST_F(HostilePeers, noise_changes_nothing) {
  UdpSocket noisy = UdpSocket::bind({"127.0.0.1", 0}).value();
  const UdpAddress to = UdpAddress::from(victim().local_address()).value();
  base::Prng prng(11);
  for (int i = 0; i < 5000; ++i) {
    base::Bytes datagram(prng.below(1500) + 1);
    for (auto& byte : datagram) byte = static_cast<std::byte>(prng.next());
    if (i % 3 == 0 && datagram.size() > 6) {
      const std::uint8_t start[] = {static_cast<std::uint8_t>(0xc0 | prng.below(64)), 0, 0, 0, 1, static_cast<std::uint8_t>(prng.below(24))};
      std::memcpy(datagram.data(), start, sizeof start);
    }
    noisy.send(to, datagram, datagram.size());
    if (i % 100 == 0) run([n = 0]() mutable { return ++n > 2; });
  }
  EXPECT_EQ(victim_->events.size(), 1u);
}

// Claim: a huge announced length costs its sender the link before a byte is allocated.
TEST_F(HostilePeers, huge_lengths) {
  HostilePeer& peer = joined();
  peer.stream(prefix(3, 0xffffffff), false);
  expect_dropped(peer, "4294967295 bytes was announced");
}

// Claim: a stream that ends inside its frame, or goes on after it, or names no priority, is a broken rule.
TEST_F(HostilePeers, half_a_frame) {
  HostilePeer& peer = joined();
  peer.stream(prefix(1, 1000, 500), true);
  expect_dropped(peer, "ended inside its frame");
}
TEST_F(HostilePeers, more_than_a_frame) {
  HostilePeer& peer = joined();
  peer.stream(prefix(1, 10, 11), false);
  expect_dropped(peer, "bytes after the end of a frame");
}
TEST_F(HostilePeers, unknown_priority) {
  HostilePeer& peer = joined();
  peer.stream(prefix(9, 10, 10), true);
  expect_dropped(peer, "unknown priority 9");
}

// Claim: a frame given up half-way is a broken rule: frames are delivered or the link goes down.
TEST_F(HostilePeers, abandoned_frame) {
  HostilePeer& peer = joined();
  const std::int64_t stream = peer.stream(prefix(1, 1000, 500), false);
  const std::uint64_t received = victim().stats(peer.id())->packets_sent;
  ASSERT_TRUE(run([&] { return victim().stats(peer.id())->packets_sent > received; }));
  peer.reset(stream);
  expect_dropped(peer, "abandoned");
}

// Claim: unfinished frames without end are stopped by the link's receive buffer.
TEST_F(HostilePeers, streams_without_end) {
  HostilePeer& peer = joined();
  for (int i = 0; i < 16; ++i) peer.stream(prefix(3, 100u << 20, 400'000), false);
  expect_dropped(peer, "receive buffer");
}

// Claim: a frame that stands still for three idle time-outs costs its sender the link, though the link itself is alive.
TEST_F(HostilePeers, frame_that_stands_still) {
  HostilePeer& peer = joined();
  peer.stream(prefix(1, 1000, 500), false);
  expect_dropped(peer, "stood still");
}

// Claim: frames before the greeting, and a first control frame that is no greeting, never bring a link up.
TEST_F(HostilePeers, no_greeting) {
  HostilePeer& early = hostile_peer();
  ASSERT_TRUE(run([&] { return early.connection().handshake_done(); }));
  base::ByteWriter control;
  control.u32(5);
  control.raw(base::Bytes(5));
  early.stream(control.take(), false);
  ASSERT_TRUE(run([&] { return early.connection().end().has_value(); }));
  EXPECT_THAT(early.connection().end()->text, testing::HasSubstr("not a greeting"));

  HostilePeer& frame_first = hostile_peer();
  ASSERT_TRUE(run([&] { return frame_first.connection().handshake_done(); }));
  frame_first.stream({}, false);  // its control stream, on which it says nothing
  frame_first.stream(prefix(1, 10, 10), true);
  ASSERT_TRUE(run([&] { return frame_first.connection().end().has_value(); }));
  EXPECT_THAT(frame_first.connection().end()->text, testing::HasSubstr("before the link's greeting"));
  EXPECT_EQ(victim_->events.size(), 1u);
}

// Claim: a peer that completes the handshake and says nothing is dropped after the handshake time-out, with the reason.
TEST_F(HostilePeers, silence) {
  HostilePeer& peer = hostile_peer();
  ASSERT_TRUE(run([&] { return peer.connection().end().has_value(); }, Duration::seconds(2)));
  EXPECT_THAT(peer.connection().end()->text, testing::HasSubstr("took too long"));
  EXPECT_EQ(victim_->events.size(), 1u);
}

// Claim: while handshakes that never end fill most of the places, an honest peer still comes in (by a Retry), and afterwards the places
// are free again.
TEST_F(HostilePeers, handshakes_without_end) {
  std::vector<std::unique_ptr<HostilePeer>> vanished;
  for (int i = 0; i < 40; ++i) {
    vanished.push_back(std::make_unique<HostilePeer>(victim()));
    vanished.back()->dial(harness_.now());
    vanished.back()->pump(harness_.now());  // its first packet, and never another
  }
  link::Party late(harness_, link::Identity::generate().value(), limits());
  late.dial(*victim_);
  link::Endpoint* endpoints[] = {&victim_->road(), &honest_->road(), &late.road()};
  for (const Instant end = harness_.now() + Duration::milliseconds(750); !late.is_up(*victim_) && harness_.now() < end;) {
    harness_.turn(endpoints);
    for (link::Party* party : {victim_.get(), honest_.get(), &late}) party->collect();
  }
  EXPECT_TRUE(late.is_up(*victim_)) << "before the first of the stuck handshakes has timed out";
}

}  // namespace
}  // namespace stagecoach::world::real
