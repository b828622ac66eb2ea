#include "world/real/quic_connection.h"

#include <gnutls/crypto.h>

#include <algorithm>

namespace stagecoach::world::real {
namespace {

using base::Duration;
using base::Error;
using base::ErrorCode;
using base::Instant;
using base::Result;
using link::DownReason;

constexpr std::uint64_t kWindowBytes = 64u << 20;         // well over the bandwidth-delay product of 1 Gbit/s and 150 ms
constexpr std::uint64_t kControlWindowBytes = 4u << 20;
constexpr std::size_t kDatagramBytesMax = 1452;            // what path discovery may grow to
constexpr std::size_t kDatagramBytesMin = 1200;            // what every path takes (RFC 9000, section 14)
/// Of one burst between processes of one machine, where there is no queue that it could fill.
constexpr std::size_t kHomeBurstBytes = 96u << 10;
/// Bulk is restrained for so long after a boundary tensor went on its link: alone on a link it may fill every queue.
constexpr Duration kSharedFor = Duration::seconds(1);
/// So long, and for so many packets, an acknowledgement at home waits for a frame that goes its way: well under the 25 ms that QUIC allows
/// (RFC 9000, section 13.2.1), and fewer than the four packets that BBR always lets be under way.
constexpr Duration kAnswerPatience = Duration::milliseconds(16);
constexpr std::size_t kUnansweredMax = 3;
constexpr std::size_t kCloseTextBytesMax = 500;
/// How long an ended connection answers a peer that has not heard the farewell; three probe time-outs of any sane path.
constexpr Duration kClosingTime = Duration::seconds(1);

/// A peer's text, fit for a log line.
std::string printable(std::string text) {
  if (text.size() > kCloseTextBytesMax) text.resize(kCloseTextBytesMax);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text;
}

ngtcp2_cid random_id(std::size_t size) {
  ngtcp2_cid id{};
  id.datalen = size;
  CHECK(gnutls_rnd(GNUTLS_RND_RANDOM, id.data, size) == 0, "the system gives randomness");
  return id;
}

ngtcp2_path path_of(const UdpAddress& local, const UdpAddress& remote) {
  ngtcp2_path path{};
  path.local = {const_cast<sockaddr*>(local.get()), local.length};
  path.remote = {const_cast<sockaddr*>(remote.get()), remote.length};
  return path;
}

UdpAddress address_of(const ngtcp2_addr& from) {
  UdpAddress address;
  address.length = static_cast<socklen_t>(from.addrlen);
  std::copy_n(reinterpret_cast<const std::byte*>(from.addr), from.addrlen, reinterpret_cast<std::byte*>(&address.storage));
  return address;
}

Error library_error(const std::string& doing, int status) {
  return Error{ErrorCode::internal, "QUIC failed at " + doing + ": " + ngtcp2_strerror(status)};
}

}  // namespace

Result<std::unique_ptr<QuicConnection>> QuicConnection::dial(QuicShared& shared, const base::PeerId& peer, const UdpAddress& to, Instant now) {
  std::unique_ptr<QuicConnection> connection(new QuicConnection(shared, true, now));
  auto tls = TlsSession::create(*shared.tls, TlsSession::Side::client, peer);
  if (!tls.ok()) return tls.error();
  connection->tls_ = std::move(tls).value();
  const ngtcp2_cid theirs = random_id(18);
  const ngtcp2_cid ours = random_id(QuicConnectionIds::kOurBytes);
  const ngtcp2_path path = path_of(shared.local, to);
  connection->at_loopback_ = to.is_loopback();
  const ngtcp2_callbacks calls = callbacks();
  const ngtcp2_settings settings = connection->settings();
  const ngtcp2_transport_params parameters = connection->parameters();
  const int status = ngtcp2_conn_client_new(&connection->conn_, &theirs, &ours, &path, NGTCP2_PROTO_VER_V1, &calls, &settings, &parameters,
                                            nullptr, connection.get());
  if (status != 0) return library_error("dialling", status);
  connection->tls_->attach(connection->conn_);
  ngtcp2_conn_set_keep_alive_timeout(connection->conn_, static_cast<ngtcp2_duration>(shared.limits.keep_alive.ns()));
  shared.ids.add(ours, connection.get());
  return connection;
}

Result<std::unique_ptr<QuicConnection>> QuicConnection::accept(QuicShared& shared, const QuicIncoming& incoming, Instant now) {
  std::unique_ptr<QuicConnection> connection(new QuicConnection(shared, false, now));
  auto tls = TlsSession::create(*shared.tls, TlsSession::Side::server, std::nullopt);
  if (!tls.ok()) return tls.error();
  connection->tls_ = std::move(tls).value();
  const ngtcp2_cid ours = random_id(QuicConnectionIds::kOurBytes);
  const ngtcp2_path path = path_of(shared.local, incoming.from);
  connection->at_loopback_ = incoming.from.is_loopback();
  const ngtcp2_callbacks calls = callbacks();
  ngtcp2_settings settings = connection->settings();
  ngtcp2_transport_params parameters = connection->parameters();
  parameters.original_dcid = incoming.original_id ? *incoming.original_id : incoming.header.dcid;
  compat::mark_original_dcid(parameters);
  if (incoming.original_id) {
    parameters.retry_scid = incoming.header.dcid;
    parameters.retry_scid_present = 1;
    compat::set_token(settings, compat::token_of(incoming.header));
  }
  parameters.stateless_reset_token_present = 1;
  if (ngtcp2_crypto_generate_stateless_reset_token(parameters.stateless_reset_token, shared.reset_key.data(), shared.reset_key.size(),
                                                   &ours) != 0) {
    return library_error("making a reset token", NGTCP2_ERR_INTERNAL);
  }
  const int status = ngtcp2_conn_server_new(&connection->conn_, &incoming.header.scid, &ours, &path, incoming.header.version, &calls, &settings,
                                            &parameters, nullptr, connection.get());
  if (status != 0) return library_error("accepting", status);
  connection->tls_->attach(connection->conn_);
  ngtcp2_conn_set_keep_alive_timeout(connection->conn_, static_cast<ngtcp2_duration>(shared.limits.keep_alive.ns()));
  shared.ids.add(ours, connection.get());
  shared.ids.add(incoming.header.dcid, connection.get());
  return connection;
}

QuicConnection::QuicConnection(QuicShared& shared, bool dialled, Instant now)
    : shared_(shared), dialled_(dialled), created_(now), now_(now), budget_(shared.limits.receive_buffer_bytes_max) {}

QuicConnection::~QuicConnection() {
  shared_.ids.remove_all(this);
  if (conn_ != nullptr) ngtcp2_conn_del(conn_);
}

ngtcp2_settings QuicConnection::settings() const {
  ngtcp2_settings settings;
  ngtcp2_settings_default(&settings);
  settings.cc_algo = kQuicBbr;
  settings.initial_ts = stamp(created_);
  settings.max_tx_udp_payload_size = kDatagramBytesMax;
  if (at_loopback_) {
    // ngtcp2 does not find sizes like these by itself: datagram_bytes_max() says how much room a packet gets.
    settings.max_tx_udp_payload_size = kHomeDatagramBytes;
    settings.no_tx_udp_payload_size_shaping = 1;
    settings.no_pmtud = 1;
  }
  settings.handshake_timeout = static_cast<ngtcp2_duration>(shared_.limits.handshake_timeout.ns());
  compat::raise_glitch_limit(settings);
  return settings;
}

ngtcp2_transport_params QuicConnection::parameters() const {
  const std::uint64_t window = std::min(kWindowBytes, shared_.limits.receive_buffer_bytes_max);
  ngtcp2_transport_params parameters;
  ngtcp2_transport_params_default(&parameters);
  parameters.initial_max_data = window;
  parameters.initial_max_stream_data_bidi_local = dialled_ ? std::min(window, kControlWindowBytes) : 0;
  parameters.initial_max_stream_data_bidi_remote = window;
  parameters.initial_max_streams_uni = 0;
  parameters.initial_max_streams_bidi = shared_.limits.incoming_streams_max + (dialled_ ? 0 : 1);
  parameters.max_idle_timeout = static_cast<ngtcp2_duration>(shared_.limits.idle_timeout.ns());
  return parameters;
}

/// ngtcp2 gives zero and the far future meanings of their own.
ngtcp2_tstamp QuicConnection::stamp(Instant now) const { return static_cast<ngtcp2_tstamp>(now.ns()) + 1; }

link::Address QuicConnection::remote_address() const { return address_of(ngtcp2_conn_get_path(conn_)->remote).to_address(); }

bool QuicConnection::has_remote(const UdpAddress& address) const {
  const ngtcp2_addr& remote = ngtcp2_conn_get_path(conn_)->remote;
  return remote.addrlen == address.length && std::equal(reinterpret_cast<const std::byte*>(remote.addr),
                                                        reinterpret_cast<const std::byte*>(remote.addr) + remote.addrlen,
                                                        reinterpret_cast<const std::byte*>(&address.storage));
}

void QuicConnection::come_up() {
  up_ = true;
  known_remote_ = address_of(ngtcp2_conn_get_path(conn_)->remote);
}

bool QuicConnection::moved() {
  if (has_remote(known_remote_)) return false;
  known_remote_ = address_of(ngtcp2_conn_get_path(conn_)->remote);
  at_home_ = at_home_ && known_remote_.is_loopback();
  return true;
}

void QuicConnection::read(const UdpAddress& from, std::span<const std::byte> datagram, Instant now) {
  now_ = now;
  if (state_ == State::closing) {
    // Answered ever more rarely, so that two closing ends do not keep each other awake.
    ++closing_heard_;
    if ((closing_heard_ & (closing_heard_ - 1)) == 0 && !close_packet_.empty()) close_unsent_ = true;
    return;
  }
  if (state_ == State::ended) return;
  const ngtcp2_path path = path_of(shared_.local, from);
  const ngtcp2_pkt_info info{};
  const int status = ngtcp2_conn_read_pkt(conn_, &path, &info, reinterpret_cast<const std::uint8_t*>(datagram.data()), datagram.size(), stamp(now));
  if (status == 0 || state_ != State::open) return;
  if (status == NGTCP2_ERR_DRAINING) return on_peer_closed();
  if (status == NGTCP2_ERR_CRYPTO) return fail_crypto();
  if (status == NGTCP2_ERR_DROP_CONN || status == NGTCP2_ERR_RETRY) return finish({DownReason::unreachable, "the handshake was not one"});
  fail_library(status);
}

bool QuicConnection::defers_answer() {
  const bool frames = std::exchange(read_of_frames_, false);
  if (frames) {
    heard_at_ = now_;
    ++unanswered_;
  }
  const bool may = at_home_ && up_ && state_ == State::open && in_company_ && unanswered_ <= kUnansweredMax;
  if (!may || queue_.urgent_waits() || queue_.bulk_waits()) {
    answer_due_ = Instant::never();
    return false;
  }
  if (frames) answer_due_ = std::min(answer_due_, now_ + kAnswerPatience);
  return answer_due_ != Instant::never();
}

void QuicConnection::on_peer_closed() {
  if (reset_by_peer_) return finish({DownReason::closed_by_peer, "the peer no longer knows this link: its process has restarted"});
  const QuicCloseReceived said = compat::received_close(conn_);
  if (said.by_application) return finish({DownReason::closed_by_peer, said.reason.empty() ? "without a word" : printable(said.reason)});
  if (said.code >= NGTCP2_CRYPTO_ERROR && said.code < NGTCP2_CRYPTO_ERROR + 0x100) {
    return finish({DownReason::closed_by_peer, "the peer refused the handshake (TLS alert " + std::to_string(said.code - NGTCP2_CRYPTO_ERROR) +
                                                   "): it speaks another version, or does not take our key"});
  }
  finish({DownReason::closed_by_peer, "the peer's transport gave up (QUIC error " + std::to_string(said.code) + ") " + printable(said.reason)});
}

void QuicConnection::fail_crypto() {
  const bool wrong_key = tls_->refused_peer();
  QuicEnd end{DownReason::unreachable, "the handshake failed: the other end speaks another protocol, or another version of it"};
  if (wrong_key) {
    end.reason = DownReason::wrong_identity;
    end.text = tls_->peer() ? "the key " + tls_->peer()->short_hex() + " answered, which is not the one dialled"
                            : "the other end showed no Ed25519 key";
  }
  end_ = std::move(end);
  close(QuicCloseCode::refused, "the handshake failed");
  if (const std::uint8_t alert = ngtcp2_conn_get_tls_alert(conn_); alert != 0) compat::set_tls_alert(close_error_, alert);
  else compat::set_library_error(close_error_, NGTCP2_ERR_CRYPTO);
}

void QuicConnection::fail_library(int error) {
  DownReason reason = DownReason::protocol_error;
  std::string text = std::string("the peer broke a rule of QUIC: ") + ngtcp2_strerror(error);
  if (error == NGTCP2_ERR_STREAM_LIMIT) text = "the peer broke a rule of the road: more streams than allowed";
  if (error == NGTCP2_ERR_FLOW_CONTROL) text = "the peer broke a rule of the road: more bytes than its window";
  if (error == NGTCP2_ERR_IDLE_CLOSE) return finish({DownReason::idle, "nothing was heard for the idle time-out"});
  if (error == NGTCP2_ERR_HANDSHAKE_TIMEOUT) return finish({DownReason::unreachable, "nobody answered"});
  if (error == NGTCP2_ERR_NOMEM || error == NGTCP2_ERR_INTERNAL) text = std::string("QUIC failed here: ") + ngtcp2_strerror(error);
  end_ = QuicEnd{reason, text};
  close(QuicCloseCode::protocol_error, text);
  compat::set_library_error(close_error_, error);
}

void QuicConnection::run_timers(Instant now) {
  now_ = now;
  if (answer_due_ <= now) in_company_ = false;
  answer_due_ = Instant::never();
  if (state_ != State::open) return;
  if (ngtcp2_conn_get_expiry(conn_) <= stamp(now)) {
    if (const int status = ngtcp2_conn_handle_expiry(conn_, stamp(now)); status != 0) return fail_library(status);
  }
  if (next_stall_check_ <= now) check_stalled(now);
}

void QuicConnection::check_stalled(Instant now) {
  next_stall_check_ = Instant::never();
  for (const auto& [stream, incoming] : incoming_) {
    if (!incoming.assembler.unfinished()) continue;
    const Instant due = incoming.last + stall_timeout();
    if (due <= now) {
      broke_rule("a frame stood still");
      return;
    }
    next_stall_check_ = std::min(next_stall_check_, due);
  }
}

Instant QuicConnection::deadline() const {
  if (state_ == State::ended) return Instant::never();
  if (state_ == State::closing) return closing_ends_;
  const ngtcp2_tstamp expiry = ngtcp2_conn_get_expiry(conn_);
  const Instant timer = expiry == UINT64_MAX ? Instant::never() : Instant::from_ns(static_cast<std::int64_t>(expiry) - 1);
  // ngtcp2's timer is also that of its own, shorter patience.
  return std::min(answer_due_ == Instant::never() ? timer : answer_due_, next_stall_check_);
}

bool QuicConnection::finished(Instant now) const {
  return state_ == State::ended || (state_ == State::closing && !close_unsent_ && now >= closing_ends_);
}

void QuicConnection::close(QuicCloseCode code, const std::string& text) {
  if (state_ != State::open) return;
  state_ = State::closing;
  close_text_ = text.substr(0, kCloseTextBytesMax);
  compat::set_application_error(close_error_, static_cast<std::uint64_t>(code), close_text_);
  close_unsent_ = true;
  closing_ends_ = now_ + kClosingTime;
}

std::size_t QuicConnection::write_close(Turn& turn) {
  if (!close_unsent_) return 0;
  close_unsent_ = false;
  if (close_packet_.empty()) {
    closing_ends_ = turn.now + kClosingTime;
    ngtcp2_path_storage path;
    ngtcp2_path_storage_zero(&path);
    ngtcp2_pkt_info info{};
    close_packet_.resize(kDatagramBytesMin);
    const auto size = ngtcp2_conn_write_connection_close(conn_, &path.path, &info, reinterpret_cast<std::uint8_t*>(close_packet_.data()),
                                                         close_packet_.size(), &close_error_, stamp(turn.now));
    if (size <= 0) {
      state_ = State::ended;  // nobody to tell: not a packet was exchanged yet
      return 0;
    }
    close_packet_.resize(static_cast<std::size_t>(size));
    close_to_ = address_of(path.path.remote);
  }
  std::copy(close_packet_.begin(), close_packet_.end(), turn.out.room().begin());
  turn.out.add(close_to_, close_packet_.size());
  return close_packet_.size();
}

std::size_t QuicConnection::datagram_bytes_max() const {
  if (!at_loopback_) return kDatagramBytesMax;
  return at_home_ ? kHomeDatagramBytes : kDatagramBytesMin;
}

std::size_t QuicConnection::write(Turn& turn) {
  now_ = turn.now;
  turn.written = 0;
  if (state_ == State::closing) return write_close(turn);
  if (state_ == State::ended) return 0;
  answer_due_ = Instant::never();
  unanswered_ = 0;
  queue_.unblock();
  const compat::RoadInfo road = compat::road_info(conn_);
  const bool shared = queue_.bulk_waits() && urgent_at_ + kSharedFor > now_;
  restraint_.observe(now_, {road.latest_round_trip, road.smoothed_round_trip, bytes_sent_, road.bytes_in_flight, shared});
  // Between processes of one machine a small boundary tensor goes whole, and wakes its receiver once.
  const std::size_t burst_bytes = at_home_ ? kHomeBurstBytes : ngtcp2_conn_get_send_quantum(conn_);
  const std::size_t datagram = std::min(datagram_bytes_max(), ngtcp2_conn_get_path_max_tx_udp_payload_size(conn_));
  const std::size_t burst = std::clamp<std::size_t>(burst_bytes / datagram, 1, UdpSocket::kBatchDatagramsMax);
  for (std::size_t packets = 0; packets < burst && turn.written < turn.bytes_max && !turn.out.blocked(); ++packets) {
    ngtcp2_path_storage path;
    ngtcp2_path_storage_zero(&path);
    const std::int64_t size = write_packet(turn.out.room().first(datagram_bytes_max()), path, turn);
    if (size <= 0) break;
    turn.out.add(address_of(path.path.remote), static_cast<std::size_t>(size));
    turn.written += static_cast<std::size_t>(size);
    ++packets_sent_;
  }
  hold_rate(turn);
  bytes_sent_ += turn.written;
  if (state_ == State::open) ngtcp2_conn_update_pkt_tx_time(conn_, stamp(turn.now));
  return state_ == State::closing ? turn.written + write_close(turn) : turn.written;
}

/// Marks what is sent from now on as limited by the application, until all that is in flight has arrived. ngtcp2 does that where a
/// packet without stream data was asked for and the window is open; there may be something else to send.
void QuicConnection::hold_rate(Turn& turn) {
  hold_.observe(turn.now, packets_sent_, packets_lost_);
  if (!hold_.holds() || turn.written == 0 || state_ != State::open || turn.out.blocked()) return;
  ngtcp2_path_storage path;
  ngtcp2_path_storage_zero(&path);
  ngtcp2_pkt_info info{};
  const std::span<std::byte> room = turn.out.room().first(datagram_bytes_max());
  const ngtcp2_ssize size = ngtcp2_conn_writev_stream(conn_, &path.path, &info, reinterpret_cast<std::uint8_t*>(room.data()), room.size(),
                                                      nullptr, NGTCP2_WRITE_STREAM_FLAG_NONE, -1, nullptr, 0, stamp(turn.now));
  if (size < 0) return fail_library(static_cast<int>(size));
  if (size == 0) return;
  turn.out.add(address_of(path.path.remote), static_cast<std::size_t>(size));
  turn.written += static_cast<std::size_t>(size);
  ++packets_sent_;
}

std::int64_t QuicConnection::write_packet(std::span<std::byte> room, ngtcp2_path_storage& path, Turn& turn) {
  open_streams();
  const bool window_open = ngtcp2_conn_get_max_data_left(conn_) > 0;
  ngtcp2_pkt_info info{};
  for (;;) {
    const bool contended = turn.others_urgent || queue_.urgent_waits();
    const bool bulk_rests = !restraint_.may_send(turn.written);
    const auto bulk = bulk_rests                  ? QuicSendQueue::Bulk::waits
                      : !contended                ? QuicSendQueue::Bulk::after_urgent
                      : turn.floor.bulk_is_due() ? QuicSendQueue::Bulk::first
                                                 : QuicSendQueue::Bulk::waits;
    QuicSendQueue::Piece piece;
    const bool answer = !answers_.empty();
    const bool have = answer || (window_open && queue_.next(bulk, piece));
    if (answer) {
      piece.stream = answers_.back();
      piece.end = true;
    }
    std::array<ngtcp2_vec, QuicSendQueue::Piece::kPartsMax> parts;
    for (std::size_t i = 0; i < piece.count; ++i) {
      parts[i] = {reinterpret_cast<std::uint8_t*>(const_cast<std::byte*>(piece.parts[i].data())), piece.parts[i].size()};
    }
    const std::uint32_t flags = !have ? NGTCP2_WRITE_STREAM_FLAG_NONE
                                      : NGTCP2_WRITE_STREAM_FLAG_MORE | (piece.end ? NGTCP2_WRITE_STREAM_FLAG_FIN : 0);
    ngtcp2_ssize taken = -1;
    const ngtcp2_ssize size =
        ngtcp2_conn_writev_stream(conn_, &path.path, &info, reinterpret_cast<std::uint8_t*>(room.data()), room.size(), &taken, flags,
                                  have ? piece.stream : -1, parts.data(), piece.count, stamp(turn.now));
    if (answer && (taken >= 0 || size == NGTCP2_ERR_STREAM_SHUT_WR || size == NGTCP2_ERR_STREAM_NOT_FOUND)) answers_.pop_back();
    if (have && !answer && taken >= 0) account(piece, static_cast<std::uint64_t>(taken), contended, turn);
    if (size >= 0) return size;
    if (size == NGTCP2_ERR_WRITE_MORE) continue;
    if (size == NGTCP2_ERR_STREAM_DATA_BLOCKED && !answer) {
      queue_.blocked(piece);
    } else if (answer && (size == NGTCP2_ERR_STREAM_SHUT_WR || size == NGTCP2_ERR_STREAM_NOT_FOUND)) {
      continue;  // the peer gave the stream up first
    } else if (size == NGTCP2_ERR_STREAM_SHUT_WR || size == NGTCP2_ERR_STREAM_NOT_FOUND) {
      broke_rule("a stream was refused");
      return 0;
    } else {
      fail_library(static_cast<int>(size));
      return 0;
    }
  }
}

void QuicConnection::account(const QuicSendQueue::Piece& piece, std::uint64_t bytes, bool contended, Turn& turn) {
  in_company_ = turn.now - heard_at_ <= kAnswerPatience;
  if (!piece.bulk) turn.floor.urgent_sent(bytes);
  if (!piece.bulk && piece.frame != nullptr) urgent_at_ = turn.now;
  if (piece.bulk && contended) turn.floor.bulk_sent(bytes);
  queue_.wrote(piece, bytes);
}

void QuicConnection::open_streams() {
  queue_.for_frames_without_stream([this](QuicSendQueue::Frame& frame) {
    // Lower classes leave some streams to higher ones, which must not wait a round trip for the peer to allow more.
    const std::uint64_t allowed = ngtcp2_conn_get_remote_transport_params(conn_)->initial_max_streams_bidi;
    const std::uint64_t spare = std::min<std::uint64_t>(16, allowed / 8);
    const std::uint64_t kept = frame.order.priority == link::Priority::bulk ? spare : frame.order.priority == link::Priority::forward ? spare / 2 : 0;
    if (ngtcp2_conn_get_streams_bidi_left(conn_) <= kept) return;
    std::int64_t stream = QuicSendQueue::kNoStream;
    if (ngtcp2_conn_open_bidi_stream(conn_, &stream, &frame) == 0) frame.stream = stream;
  });
}

link::LinkStats QuicConnection::stats() const {
  link::LinkStats stats;
  stats.round_trip = compat::road_info(conn_).smoothed_round_trip;
  stats.bytes_sent = queue_.bytes_written();
  stats.bytes_received = bytes_received_;
  stats.packets_sent = packets_sent_;
  stats.packets_lost = packets_lost_ + ngtcp2_conn_get_stream_loss_count(conn_, 0);
  stats.bytes_queued = queue_.bytes_queued();
  return stats;
}

}  // namespace stagecoach::world::real
