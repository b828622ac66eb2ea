#include "world/real/quic_endpoint.h"

#include <gnutls/crypto.h>

#include <algorithm>

#include "digest/digest.h"

namespace stagecoach::world::real {
namespace {

using base::Error;
using base::ErrorCode;
using base::Instant;
using base::PeerId;
using base::Result;
using link::DownReason;
using link::Greeting;
using link::Priority;

constexpr std::size_t kAddressesMax = 8;
constexpr const char* kGivenUp = "this dial was given up";

std::uint64_t random_word() {
  std::uint64_t word = 0;
  CHECK(gnutls_rnd(GNUTLS_RND_RANDOM, &word, sizeof word) == 0, "the system gives randomness");
  return word;
}

/// The same in each start of one identity, and known to nobody else.
std::array<std::uint8_t, 32> reset_key_of(const link::Identity& identity) {
  base::ByteWriter writer;
  writer.raw(base::as_bytes("stagecoach stateless reset"));
  writer.raw(std::as_bytes(std::span(identity.seed())));
  return digest::sha256(writer.take()).bytes;
}

}  // namespace

Result<std::unique_ptr<QuicEndpoint>> QuicEndpoint::open(const link::Identity& identity, Options options) {
  auto tls = TlsContext::create(identity);
  if (!tls.ok()) return tls.error();
  auto socket = UdpSocket::bind(options.bind);
  if (!socket.ok()) return socket.error();
  return std::unique_ptr<QuicEndpoint>(
      new QuicEndpoint(identity, std::move(options), std::move(socket).value(), std::move(tls).value()));
}

QuicEndpoint::QuicEndpoint(const link::Identity& identity, Options options, UdpSocket socket, std::unique_ptr<TlsContext> tls)
    : self_(identity.peer_id()), admit_(std::move(options.admit)), clock_(options.clock), socket_(std::move(socket)), out_(socket_), start_(random_word()),
      uplink_(options.limits.uplink_bytes_per_s) {
  shared_.tls = std::move(tls);
  shared_.limits = options.limits;
  shared_.local = socket_.local();
  shared_.loopback = options.loopback;
  shared_.reset_key = reset_key_of(identity);
  CHECK(gnutls_rnd(GNUTLS_RND_KEY, shared_.retry_key.data(), shared_.retry_key.size()) == 0, "the system gives randomness");
}

QuicEndpoint::~QuicEndpoint() { connections_.clear(); }

void QuicEndpoint::take_in(Instant now) {
  now_ = std::max(now_, now);
  stateless_answers_ = 0;
  uplink_.advance(now_);
  out_.flush();
  receive();
  run_timers();
  settle_all();
}

void QuicEndpoint::advance(Instant now) {
  now_ = std::max(now_, now);
  dirty_ = false;
  start_dials();
  take_in(now);
  finish_dials();
  write_all();
  settle_all();
  sweep();
}

void QuicEndpoint::dial(const PeerId& peer, std::span<const link::Address> addresses) {
  if (links_.contains(peer) || dials_.contains(peer)) return;
  Dial& dial = dials_[peer];
  dial.addresses.assign(addresses.begin(), addresses.end());
  if (dial.addresses.size() > kAddressesMax) dial.addresses.resize(kAddressesMax);
  dirty_ = true;
}

void QuicEndpoint::start_dials() {
  for (auto& [peer, dial] : dials_) {
    if (dial.started) continue;
    dial.started = true;
    dial.gives_up = now_ + shared_.limits.handshake_timeout;
    dial.greeting = {start_, ++tick_};
    if (dial.addresses.empty()) dial.text = "no address of the peer is known";
    if (peer == self_) {
      dial.text = "that is this process's own key";
    } else if (links_.size() + dials_.size() > shared_.limits.links_max) {
      dial.text = "this process has as many links as it may have";
    } else {
      for (const link::Address& address : dial.addresses) start_attempt(peer, dial, address);
    }
  }
}

void QuicEndpoint::start_attempt(const PeerId& peer, Dial& dial, const link::Address& address) {
  const auto to = UdpAddress::from(address, socket_.family());
  if (!to.ok()) {
    dial.text = to.error().message;
    return;
  }
  auto connection = QuicConnection::dial(shared_, peer, *to, now_);
  if (!connection.ok()) {
    dial.text = connection.error().message;
    return;
  }
  (*connection)->notes.dialled = peer;
  dial.attempts.push_back(connection->get());
  connections_.push_back(std::move(connection).value());
}

void QuicEndpoint::finish_dials() {
  for (auto at = dials_.begin(); at != dials_.end();) {
    const auto dial = at++;
    if (!dial->second.attempts.empty() && dial->second.gives_up > now_) continue;
    if (!dial->second.started) continue;
    const link::LinkDown down{dial->first, {}, dial->second.reason, dial->second.text};
    give_up_dial(down.peer);
    events_.push_back(down);
  }
}

void QuicEndpoint::give_up_dial(const PeerId& peer) {
  const auto at = dials_.find(peer);
  if (at == dials_.end()) return;
  for (QuicConnection* attempt : at->second.attempts) dismiss(*attempt, QuicCloseCode::duplicate, kGivenUp);
  dials_.erase(at);
}

Result<void> QuicEndpoint::send(const PeerId& peer, base::Payload frame, link::SendOptions options) {
  CHECK(frame != nullptr, "a frame has bytes, if only none");
  const auto at = links_.find(peer);
  if (at == links_.end()) return Error{ErrorCode::not_found, "no link to peer " + peer.short_hex() + " is up"};
  const std::uint32_t limit = options.priority == Priority::control ? link::kControlFrameBytesMax : link::kFrameBytesMax;
  if (frame->size() > limit) {
    return Error{ErrorCode::too_large, "a frame of " + std::to_string(frame->size()) + " bytes is longer than " + std::to_string(limit)};
  }
  QuicConnection& connection = *at->second.connection;
  const std::uint64_t queued = std::min(connection.bytes_queued(), shared_.limits.send_queue_bytes_max);
  if (frame->size() > shared_.limits.send_queue_bytes_max - queued) {
    return Error{ErrorCode::unavailable, "the queue to peer " + peer.short_hex() + " is full: try when it has drained"};
  }
  if (options.priority != Priority::bulk && !connection.urgent_waits()) connection.notes.urgent_progress = now_;
  connection.send(options, std::move(frame));
  connection.notes.wants_write = true;
  dirty_ = true;
  return {};
}

void QuicEndpoint::close(const PeerId& peer, const std::string& text) {
  give_up_dial(peer);
  const auto at = links_.find(peer);
  if (at == links_.end()) return;
  const std::string why = text.empty() ? "closed" : text;
  dismiss(*at->second.connection, QuicCloseCode::closed, why);
  go_down(peer, DownReason::closed_by_us, why);
}

std::optional<link::LinkStats> QuicEndpoint::stats(const PeerId& peer) const {
  const auto at = links_.find(peer);
  if (at == links_.end()) return std::nullopt;
  return at->second.connection->stats();
}

Instant QuicEndpoint::next_deadline() const {
  if (dirty_ || !events_.empty()) return now_;
  Instant next = Instant::never();
  bool wants_write = false;
  bool held = false;
  for (const auto& connection : connections_) {
    next = std::min(next, connection->deadline());
    if (!connection->dialled() && !connection->is_up()) next = std::min(next, connection->created() + shared_.limits.handshake_timeout);
    wants_write = wants_write || connection->notes.wants_write;
    held = held || connection->notes.held;
  }
  for (const auto& [peer, dial] : dials_) next = std::min(next, dial.gives_up);
  if (wants_write) next = std::min(next, out_.blocked() ? now_ + kRetryFullSocket : uplink_.may_send() ? now_ : uplink_.ready_at());
  if (held) {
    for (const auto& connection : connections_) {
      if (urgent_moves(*connection)) next = std::min(next, connection->notes.urgent_progress + kUrgentPatience);
    }
  }
  return next;
}

void QuicEndpoint::run_timers() {
  for (const auto& connection : connections_) {
    if (connection->deadline() <= now_) {
      connection->run_timers(now_);
      connection->notes.wants_write = true;
    }
    const bool pending = !connection->dialled() && !connection->is_up() && !connection->notes.reported;
    if (pending && connection->created() + shared_.limits.handshake_timeout <= now_) {
      dismiss(*connection, QuicCloseCode::refused, "the handshake took too long");
    }
  }
}

void QuicEndpoint::settle_all() {
  // By index: nothing below adds connections, and none is erased before sweep().
  for (std::size_t i = 0; i < connections_.size(); ++i) settle(*connections_[i]);
}

void QuicEndpoint::settle(QuicConnection& connection) {
  if (connection.notes.reported) return;
  if (!connection.end() && !connection.is_up()) {
    if (connection.dialled()) settle_dialled(connection);
    else settle_accepted(connection);
  }
  if (connection.is_up() && !connection.notes.reported) {
    const Link* link = link_of(connection);
    CHECK(link != nullptr, "a connection that is up carries a link");
    if (connection.moved()) events_.push_back(link::AddressChanged{*connection.peer(), link->generation, connection.remote_address()});
    for (link::AssembledFrame& frame : connection.take_frames()) {
      events_.push_back(link::FrameArrived{*connection.peer(), link->generation, frame.priority, base::make_payload(std::move(frame.bytes))});
    }
  }
  if (connection.end() && !connection.notes.reported) report_end(connection);
}

void QuicEndpoint::settle_dialled(QuicConnection& connection) {
  const PeerId peer = connection.notes.dialled;
  Dial& dial = dials_.at(peer);
  if (connection.handshake_done() && dial.greeted == nullptr) {
    if (!connection.speaks_our_protocol()) {
      dial.text = "the other end speaks another protocol, or another version of it";
      std::erase(dial.attempts, &connection);
      return dismiss(connection, QuicCloseCode::refused, dial.text);
    }
    dial.greeted = &connection;
    connection.greet(dial.greeting);
    connection.notes.wants_write = true;
    for (QuicConnection* attempt : std::exchange(dial.attempts, {&connection})) {
      if (attempt != &connection) dismiss(*attempt, QuicCloseCode::duplicate, "another address of this peer answered first");
    }
  }
  if (&connection == dial.greeted && connection.greeting()) {
    dials_.erase(peer);
    come_up(connection, peer);
  }
}

void QuicEndpoint::settle_accepted(QuicConnection& connection) {
  if (!connection.greeting() || !connection.handshake_done()) return;
  const PeerId peer = *connection.peer();
  if (peer == self_) return dismiss(connection, QuicCloseCode::refused, "that is this process's own key");
  if (admit_ && !admit_(peer)) return dismiss(connection, QuicCloseCode::refused, "this peer does not take links from that key");
  const auto up = links_.find(peer);
  const link::Standing here{self_, peer, dials_.contains(peer), up == links_.end() ? std::nullopt : std::optional(up->second.theirs)};
  switch (link::judge(here, *connection.greeting())) {
    case link::Verdict::wait: return;
    case link::Verdict::refuse: return dismiss(connection, QuicCloseCode::duplicate, "another link of these two peers is up");
    case link::Verdict::replace:
      dismiss(*up->second.connection, QuicCloseCode::replaced, "a new link of the same key took its place");
      go_down(peer, DownReason::peer_restarted, "a new link of the same key took its place");
      break;
    case link::Verdict::accept:
      if (links_.size() >= shared_.limits.links_max) {
        return dismiss(connection, QuicCloseCode::refused, "this peer has as many links as it may have");
      }
      break;
  }
  give_up_dial(peer);
  connection.greet({start_, ++tick_});
  come_up(connection, peer);
}

void QuicEndpoint::report_end(QuicConnection& connection) {
  connection.notes.reported = true;
  const link::DownReason reason = connection.end()->reason;
  const std::string& text = connection.end()->text;
  if (link_of(connection) != nullptr) return go_down(*connection.peer(), reason, text);
  if (!connection.dialled()) return;
  const auto dial = dials_.find(connection.notes.dialled);
  if (dial == dials_.end() || std::erase(dial->second.attempts, &connection) == 0) return;
  dirty_ = true;  // the dial may end with it
  if (dial->second.greeted == &connection) dial->second.greeted = nullptr;
  if (dial->second.reason == DownReason::wrong_identity) return;
  const bool refused = reason == DownReason::closed_by_peer;
  dial->second.reason = reason == DownReason::wrong_identity ? reason : DownReason::unreachable;
  dial->second.text = refused ? "the peer refused: " + text : text;
}

void QuicEndpoint::dismiss(QuicConnection& connection, QuicCloseCode code, const std::string& text) {
  connection.close(code, text);
  connection.notes.reported = true;
  connection.notes.wants_write = true;
  dirty_ = true;
}

void QuicEndpoint::come_up(QuicConnection& connection, const PeerId& peer) {
  connection.come_up();
  connection.notes.wants_write = true;
  const link::LinkGeneration generation(++generations_);
  links_[peer] = Link{&connection, generation, *connection.greeting()};
  events_.push_back(link::LinkUp{peer, generation, connection.remote_address(), connection.dialled()});
}

void QuicEndpoint::go_down(const PeerId& peer, DownReason reason, const std::string& text) {
  const auto at = links_.find(peer);
  events_.push_back(link::LinkDown{peer, at->second.generation, reason, text});
  links_.erase(at);
}

QuicEndpoint::Link* QuicEndpoint::link_of(const QuicConnection& connection) {
  if (!connection.is_up()) return nullptr;
  const auto at = links_.find(*connection.peer());
  return at != links_.end() && at->second.connection == &connection ? &at->second : nullptr;
}

void QuicEndpoint::sweep() {
  std::erase_if(connections_, [this](const auto& connection) { return connection->notes.reported && connection->finished(now_); });
}

}  // namespace stagecoach::world::real
