// Datagrams of an endpoint: to whom they belong, what strangers are answered, and who may write next.
#include <gnutls/crypto.h>

#include <algorithm>

#include "world/real/quic_endpoint.h"

namespace stagecoach::world::real {
namespace {

using base::Instant;

constexpr std::size_t kReceivesMax = 256;           // system calls in one advance(), so that timers are never starved
constexpr std::size_t kWriteBytesMax = 512u << 10;  // in one advance(), so that arriving packets do not overflow the socket meanwhile
constexpr std::size_t kStatelessAnswersMax = 32;    // in one advance(): strangers cost little
constexpr std::size_t kInitialBytesMin = 1200;      // RFC 9000, section 14.1
// RFC 9000, section 10.3: a reset is one byte shorter than what it answers, so that two such ends cannot feed each other.
constexpr std::size_t kResetBytesMin = NGTCP2_MIN_STATELESS_RESET_RANDLEN + NGTCP2_STATELESS_RESET_TOKENLEN;
constexpr std::size_t kResetBytesMax = 43;
constexpr base::Duration kRetryTokenLife = base::Duration::seconds(10);

const std::uint8_t* octets(std::span<const std::byte> bytes) { return reinterpret_cast<const std::uint8_t*>(bytes.data()); }
std::uint8_t* octets(std::span<std::byte> bytes) { return reinterpret_cast<std::uint8_t*>(bytes.data()); }

}  // namespace

void QuicEndpoint::receive() {
  for (std::size_t i = 0; i < kReceivesMax; ++i) {
    const auto received = socket_.receive();
    if (!received) return;
    look_at_clock();
    for (std::size_t at = 0; at < received->bytes.size(); at += received->datagram_size) {
      on_datagram(received->from, received->bytes.subspan(at, std::min(received->datagram_size, received->bytes.size() - at)));
    }
  }
}

void QuicEndpoint::on_datagram(const UdpAddress& from, std::span<const std::byte> datagram) {
  if (datagram.empty()) return;
  ngtcp2_version_cid header;
  const int status = ngtcp2_pkt_decode_version_cid(&header, octets(datagram), datagram.size(), QuicConnectionIds::kOurBytes);
  if (status == NGTCP2_ERR_VERSION_NEGOTIATION) return answer_version(from, datagram, header);
  if (status != 0) return;
  const std::span<const std::uint8_t> id(header.dcid, header.dcidlen);
  QuicConnection* connection = shared_.ids.find(id);
  if (connection == nullptr) return on_unknown(from, datagram, id);
  connection->read(from, datagram, now_);
  if (!connection->defers_answer()) connection->notes.wants_write = true;
}

void QuicEndpoint::on_unknown(const UdpAddress& from, std::span<const std::byte> datagram, std::span<const std::uint8_t> id) {
  const bool long_header = (static_cast<std::uint8_t>(datagram[0]) & 0x80) != 0;
  if (!long_header) {
    // A peer's reset names no connection of ours: its end is a token, which only the connections to its address can know.
    for (const auto& connection : connections_) {
      if (connection->has_remote(from)) connection->read(from, datagram, now_);
    }
    return answer_reset(from, datagram.size(), id);
  }
  QuicIncoming incoming;
  incoming.from = from;
  if (ngtcp2_accept(&incoming.header, octets(datagram), datagram.size()) != 0) return;
  if (!validate_address(incoming)) return;
  auto connection = QuicConnection::accept(shared_, incoming, now_);
  if (!connection.ok()) return;
  (*connection)->read(from, datagram, now_);
  connections_.push_back(std::move(connection).value());
}

std::size_t QuicEndpoint::pending_accepts() const {
  return static_cast<std::size_t>(std::count_if(connections_.begin(), connections_.end(), [](const auto& connection) {
    return !connection->dialled() && !connection->is_up();
  }));
}

/// Lets few strangers in at once. When they are many, they first prove by a Retry that they receive at their address.
bool QuicEndpoint::validate_address(QuicIncoming& incoming) {
  const std::size_t pending = pending_accepts();
  const std::size_t limit = shared_.limits.handshakes_max;
  if (pending >= limit) return false;
  const auto token = compat::token_of(incoming.header);
  if (token.empty()) {
    if (pending < limit - limit / 4) return true;
    answer_retry(incoming);
    return false;
  }
  ngtcp2_cid original{};
  const int status = ngtcp2_crypto_verify_retry_token(
      &original, token.data(), token.size(), shared_.retry_key.data(), shared_.retry_key.size(), incoming.header.version, incoming.from.get(),
      incoming.from.length, &incoming.header.dcid, static_cast<ngtcp2_duration>(kRetryTokenLife.ns()), static_cast<ngtcp2_tstamp>(now_.ns()));
  if (status != 0) return false;
  incoming.original_id = original;
  return true;
}

void QuicEndpoint::answer_retry(const QuicIncoming& incoming) {
  if (++stateless_answers_ > kStatelessAnswersMax || out_.blocked()) return;
  ngtcp2_cid id{};
  id.datalen = QuicConnectionIds::kOurBytes;
  if (gnutls_rnd(GNUTLS_RND_NONCE, id.data, id.datalen) != 0) return;
  std::array<std::uint8_t, NGTCP2_CRYPTO_MAX_RETRY_TOKENLEN> token;
  const auto token_size = ngtcp2_crypto_generate_retry_token(
      token.data(), shared_.retry_key.data(), shared_.retry_key.size(), incoming.header.version, incoming.from.get(), incoming.from.length, &id,
      &incoming.header.dcid, static_cast<ngtcp2_tstamp>(now_.ns()));
  if (token_size < 0) return;
  const auto room = out_.room();
  const auto size = ngtcp2_crypto_write_retry(octets(room), room.size(), incoming.header.version, &incoming.header.scid, &id,
                                              &incoming.header.dcid, token.data(), static_cast<std::size_t>(token_size));
  if (size <= 0) return;
  out_.add(incoming.from, static_cast<std::size_t>(size));
  out_.flush();
}

void QuicEndpoint::answer_version(const UdpAddress& from, std::span<const std::byte> datagram, const ngtcp2_version_cid& header) {
  if (datagram.size() < kInitialBytesMin || ++stateless_answers_ > kStatelessAnswersMax || out_.blocked()) return;
  std::uint8_t unused = 0;
  if (gnutls_rnd(GNUTLS_RND_NONCE, &unused, 1) != 0) return;
  const std::uint32_t versions[] = {NGTCP2_PROTO_VER_V1};
  const auto room = out_.room();
  const auto size = ngtcp2_pkt_write_version_negotiation(octets(room), room.size(), unused, header.scid, header.scidlen, header.dcid,
                                                         header.dcidlen, versions, std::size(versions));
  if (size <= 0) return;
  out_.add(from, static_cast<std::size_t>(size));
  out_.flush();
}

/// Tells a peer of an earlier process with our key that its connection is gone.
void QuicEndpoint::answer_reset(const UdpAddress& from, std::size_t datagram_size, std::span<const std::uint8_t> id) {
  if (datagram_size <= kResetBytesMin || ++stateless_answers_ > kStatelessAnswersMax || out_.blocked()) return;
  ngtcp2_cid unknown{};
  ngtcp2_cid_init(&unknown, id.data(), id.size());
  std::array<std::uint8_t, NGTCP2_STATELESS_RESET_TOKENLEN> token;
  if (ngtcp2_crypto_generate_stateless_reset_token(token.data(), shared_.reset_key.data(), shared_.reset_key.size(), &unknown) != 0) return;
  std::array<std::uint8_t, kResetBytesMax> noise;
  const std::size_t noise_size = std::min(datagram_size - 1, kResetBytesMax) - NGTCP2_STATELESS_RESET_TOKENLEN;
  if (gnutls_rnd(GNUTLS_RND_NONCE, noise.data(), noise_size) != 0) return;
  const auto room = out_.room();
  const auto size = ngtcp2_pkt_write_stateless_reset(octets(room), room.size(), token.data(), noise.data(), noise_size);
  if (size <= 0) return;
  out_.add(from, static_cast<std::size_t>(size));
  out_.flush();
}

bool QuicEndpoint::urgent_moves(const QuicConnection& connection) const {
  return connection.is_up() && connection.urgent_waits() && connection.notes.urgent_progress + kUrgentPatience > now_;
}

std::size_t QuicEndpoint::count_urgent() const {
  return static_cast<std::size_t>(
      std::count_if(connections_.begin(), connections_.end(), [this](const auto& connection) { return urgent_moves(*connection); }));
}

/// Rounds of one burst each, until nobody can write or it has been enough for once: a busy link does not keep the others waiting longer than a burst.
void QuicEndpoint::write_all() {
  bool wrote = !connections_.empty();
  written_bytes_ = 0;
  while (wrote) {
    wrote = false;
    const std::size_t urgent = count_urgent();
    ++first_to_write_;
    for (std::size_t i = 0; i < connections_.size(); ++i) {
      if (out_.blocked() || !uplink_.may_send() || written_bytes_ >= kWriteBytesMax) return;
      QuicConnection& connection = *connections_[(first_to_write_ + i) % connections_.size()];
      const bool released = connection.notes.held && (urgent == 0 || floor_.bulk_is_due());
      if (connection.notes.wants_write || released) wrote = write_one(connection, urgent) || wrote;
    }
  }
}

bool QuicEndpoint::write_one(QuicConnection& connection, std::size_t urgent) {
  look_at_clock();
  const bool others = urgent > (urgent_moves(connection) ? 1u : 0u);
  const bool had_urgent = connection.urgent_waits();
  const std::uint64_t before = connection.bytes_written();
  QuicConnection::Turn turn{now_, uplink_.share_bytes(), others, floor_, out_};
  const std::size_t bytes = connection.write(turn);
  out_.flush();
  uplink_.sent(bytes);
  written_bytes_ += bytes;
  if (had_urgent && connection.bytes_written() > before) connection.notes.urgent_progress = now_;
  connection.notes.held = others && connection.bulk_waits();
  connection.notes.wants_write = bytes > 0;
  return bytes > 0;
}

}  // namespace stagecoach::world::real
