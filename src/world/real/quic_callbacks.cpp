// What ngtcp2 reports about one connection: streams, acknowledgements, connection ids.
#include <gnutls/crypto.h>

#include <algorithm>

#include "world/real/quic_connection.h"

namespace stagecoach::world::real {

using base::Error;

namespace {

constexpr std::int64_t kControlStream = 0;  // the dialler's first bidirectional stream
constexpr std::size_t kGreetingBytes = 24;
/// What a peer may send before its greeting, where it overtook it on the way.
constexpr std::uint64_t kEarlyBytesMax = 64u << 20;

void random_bytes(std::uint8_t* out, std::size_t size) {
  CHECK(gnutls_rnd(GNUTLS_RND_RANDOM, out, size) == 0, "the system gives randomness");
}

}  // namespace

/// ngtcp2's C callbacks; user data is the connection.
struct QuicCallbacks {
  static QuicConnection& self(void* user_data) { return *static_cast<QuicConnection*>(user_data); }
  static int verdict(bool fine) { return fine ? 0 : NGTCP2_ERR_CALLBACK_FAILURE; }

  static int handshake_completed(ngtcp2_conn*, void* user) {
    self(user).handshake_done_ = true;
    return 0;
  }
  static int stream_opened(ngtcp2_conn*, std::int64_t stream, void* user) { return verdict(self(user).on_stream_opened(stream)); }
  static int stream_bytes(ngtcp2_conn* conn, std::uint32_t flags, std::int64_t stream, std::uint64_t, const std::uint8_t* data,
                          std::size_t size, void* user, void*) {
    const bool finished = (flags & NGTCP2_STREAM_DATA_FLAG_FIN) != 0;
    if (stream != kControlStream && ngtcp2_conn_is_local_stream(conn, stream) != 0) {
      return verdict(size == 0 || self(user).broke_rule("bytes came back on the stream of a frame"));
    }
    if (!self(user).on_stream_bytes(stream, std::as_bytes(std::span(data, size)), finished)) return NGTCP2_ERR_CALLBACK_FAILURE;
    ngtcp2_conn_extend_max_offset(conn, size);
    return finished ? 0 : verdict(ngtcp2_conn_extend_max_stream_offset(conn, stream, size) == 0);
  }
  static int stream_closed(ngtcp2_conn* conn, std::uint32_t, std::int64_t stream, std::uint64_t, void* user, void* frame) {
    self(user).packets_lost_ += ngtcp2_conn_is_local_stream(conn, stream) != 0 ? ngtcp2_conn_get_stream_loss_count(conn, stream) : 0;
    if (!self(user).on_stream_closed(stream, frame)) return NGTCP2_ERR_CALLBACK_FAILURE;
    if (ngtcp2_conn_is_local_stream(conn, stream) == 0) ngtcp2_conn_extend_max_streams_bidi(conn, 1);
    return 0;
  }
  static int stream_reset(ngtcp2_conn*, std::int64_t, std::uint64_t, std::uint64_t, void* user, void*) {
    return verdict(self(user).broke_rule("a stream was abandoned inside its frame"));
  }
  static int stop_sending(ngtcp2_conn*, std::int64_t, std::uint64_t, void* user, void*) {
    return verdict(self(user).broke_rule("a stream was refused"));
  }
  static int acknowledged(ngtcp2_conn*, std::int64_t stream, std::uint64_t offset, std::uint64_t size, void* user, void*) {
    if (stream == kControlStream) self(user).queue_.control_acknowledged(offset + size);
    return 0;
  }
  static int reset_by_peer(ngtcp2_conn*, const ngtcp2_pkt_stateless_reset*, void* user) {
    self(user).reset_by_peer_ = true;
    return 0;
  }
  static void random(std::uint8_t* out, std::size_t size, const ngtcp2_rand_ctx*) { random_bytes(out, size); }
  static int new_connection_id(ngtcp2_conn*, ngtcp2_cid* id, std::uint8_t* token, std::size_t size, void* user) {
    QuicShared& shared = self(user).shared_;
    id->datalen = size;
    random_bytes(id->data, size);
    if (ngtcp2_crypto_generate_stateless_reset_token(token, shared.reset_key.data(), shared.reset_key.size(), id) != 0) {
      return NGTCP2_ERR_CALLBACK_FAILURE;
    }
    shared.ids.add(*id, &self(user));
    return 0;
  }
  static int connection_id_removed(ngtcp2_conn*, const ngtcp2_cid* id, void* user) {
    self(user).shared_.ids.remove(*id);
    return 0;
  }
};

ngtcp2_callbacks QuicConnection::callbacks() {
  ngtcp2_callbacks c{};
  c.client_initial = ngtcp2_crypto_client_initial_cb;
  c.recv_client_initial = ngtcp2_crypto_recv_client_initial_cb;
  c.recv_crypto_data = ngtcp2_crypto_recv_crypto_data_cb;
  c.encrypt = ngtcp2_crypto_encrypt_cb;
  c.decrypt = ngtcp2_crypto_decrypt_cb;
  c.hp_mask = ngtcp2_crypto_hp_mask_cb;
  c.recv_retry = ngtcp2_crypto_recv_retry_cb;
  c.update_key = ngtcp2_crypto_update_key_cb;
  c.delete_crypto_aead_ctx = ngtcp2_crypto_delete_crypto_aead_ctx_cb;
  c.delete_crypto_cipher_ctx = ngtcp2_crypto_delete_crypto_cipher_ctx_cb;
  c.get_path_challenge_data = ngtcp2_crypto_get_path_challenge_data_cb;
  c.version_negotiation = ngtcp2_crypto_version_negotiation_cb;
  c.handshake_completed = QuicCallbacks::handshake_completed;
  c.stream_open = QuicCallbacks::stream_opened;
  c.recv_stream_data = QuicCallbacks::stream_bytes;
  c.stream_close = QuicCallbacks::stream_closed;
  c.stream_reset = QuicCallbacks::stream_reset;
  c.stream_stop_sending = QuicCallbacks::stop_sending;
  c.acked_stream_data_offset = QuicCallbacks::acknowledged;
  c.recv_stateless_reset = QuicCallbacks::reset_by_peer;
  c.rand = QuicCallbacks::random;
  c.get_new_connection_id = QuicCallbacks::new_connection_id;
  c.remove_connection_id = QuicCallbacks::connection_id_removed;
  return c;
}

bool QuicConnection::on_stream_opened(std::int64_t stream) {
  const bool control = stream == kControlStream;
  if (ngtcp2_is_bidi_stream(stream) == 0) return broke_rule("a unidirectional stream was opened");
  if (!control && !dialled_ && !up_) return broke_rule("a frame came before the link's greeting");
  if (incoming_.size() > shared_.limits.incoming_streams_max) return broke_rule("more frames at once than allowed");
  const auto kind = control ? link::FrameAssembler::Stream::control : link::FrameAssembler::Stream::single_frame;
  incoming_.try_emplace(stream, kind, budget_).first->second.last = now_;
  if (next_stall_check_ == Instant::never()) next_stall_check_ = now_ + stall_timeout();
  return true;
}

bool QuicConnection::on_stream_bytes(std::int64_t stream, std::span<const std::byte> bytes, bool finished) {
  read_of_frames_ = true;
  auto at = incoming_.find(stream);
  if (at == incoming_.end()) {
    // Our own control stream is not announced as opened; every other one is.
    if (!on_stream_opened(stream)) return false;
    at = incoming_.find(stream);
  }
  Incoming& incoming = at->second;
  incoming.last = now_;
  if (next_stall_check_ == Instant::never()) next_stall_check_ = now_ + stall_timeout();
  std::vector<link::AssembledFrame> frames;
  if (const auto fed = incoming.assembler.feed(bytes, finished, frames); !fed.ok()) return broke_rule(fed.error().message);
  for (link::AssembledFrame& frame : frames) {
    if (stream == kControlStream && !their_greeting_) {
      if (!on_control_frame(std::move(frame))) return false;
      continue;
    }
    bytes_received_ += frame.bytes.size();
    if (!up_) arrived_early_bytes_ += frame.bytes.size();
    if (arrived_early_bytes_ > std::min(kEarlyBytesMax, shared_.limits.receive_buffer_bytes_max)) {
      return broke_rule("too many frames came before the link's greeting");
    }
    arrived_.push_back(std::move(frame));
  }
  if (finished) {
    incoming_.erase(at);
    answers_.push_back(stream);
  }
  return true;
}

bool QuicConnection::on_control_frame(link::AssembledFrame frame) {
  if (frame.bytes.size() != kGreetingBytes) return broke_rule("the first control frame is not a greeting");
  base::ByteReader reader(frame.bytes);
  link::Greeting greeting;
  greeting.start = reader.u64();
  greeting.tick = reader.u64();
  const std::uint64_t loopback = reader.u64();
  at_home_ = at_loopback_ && loopback != 0 && loopback == shared_.loopback;
  their_greeting_ = greeting;
  return true;
}

bool QuicConnection::on_stream_closed(std::int64_t stream, void* frame) {
  incoming_.erase(stream);
  if (frame == nullptr || queue_.frame_acknowledged(static_cast<QuicSendQueue::Frame*>(frame))) return true;
  return broke_rule("a stream ended before its frame was sent");
}

bool QuicConnection::broke_rule(const std::string& rule) {
  end_ = QuicEnd{link::DownReason::protocol_error, "the peer broke a rule of the road: " + rule};
  close(QuicCloseCode::protocol_error, rule);
  return false;
}

void QuicConnection::greet(const link::Greeting& greeting) {
  if (dialled_) {
    std::int64_t stream = QuicSendQueue::kNoStream;
    if (const int status = ngtcp2_conn_open_bidi_stream(conn_, &stream, nullptr); status != 0 || stream != kControlStream) {
      broke_rule("no control stream is allowed");
      return;
    }
  }
  queue_.open_control(kControlStream);
  base::ByteWriter writer;
  writer.u64(greeting.start);
  writer.u64(greeting.tick);
  writer.u64(at_loopback_ ? shared_.loopback : 0);
  queue_.push_greeting(base::make_payload(writer.take()));
}

}  // namespace stagecoach::world::real
