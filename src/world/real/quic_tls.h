// TLS 1.3 for QUIC with raw Ed25519 public keys on both sides (RFC 7250): the key is the identity.
//
// In:      our Identity; the key that a dial expects. Out: GnuTLS sessions for ngtcp2, and the key that the peer has shown.
// Thread:  loop.
// Why:     no certificate of a stranger is ever parsed: 44 bytes are compared, and the handshake proves possession.
#pragma once

#include <gnutls/gnutls.h>

#include <memory>
#include <optional>

#include "base/ids.h"
#include "base/result.h"
#include "link/identity.h"
#include "world/real/quic_compat.h"

namespace stagecoach::world::real {

/// Names the protocol and its version to the other end; peers of different versions never get past the handshake.
inline constexpr const char* kAlpn = "stagecoach/2";

/// What all sessions of an endpoint share.
class TlsContext {
 public:
  /// errors: internal  GnuTLS refuses the key or lacks an algorithm
  static base::Result<std::unique_ptr<TlsContext>> create(const link::Identity& identity);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

 private:
  friend class TlsSession;
  TlsContext() = default;
  gnutls_certificate_credentials_t credentials_ = nullptr;
  gnutls_priority_t priority_ = nullptr;
};

class TlsSession {
 public:
  enum class Side { client, server };
  /// For a connection; a client names the key it expects. owns: `context` outlives this.
  ///
  /// errors: internal  GnuTLS has no memory
  static base::Result<std::unique_ptr<TlsSession>> create(const TlsContext& context, Side side, std::optional<base::PeerId> expected);
  ~TlsSession();
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

  /// Binds session and connection to each other. owns: `connection` outlives its use here.
  void attach(ngtcp2_conn* connection);

  /// The key that the peer has shown. Proven only once the handshake has completed.
  const std::optional<base::PeerId>& peer() const { return peer_; }
  /// The peer showed another key than expected, or something that is no key.
  bool refused_peer() const { return refused_peer_; }
  /// The other end speaks our version of the protocol.
  bool speaks_our_protocol() const;

 private:
  TlsSession() = default;
  static int verify(gnutls_session_t session);
  friend class TlsContext;

  gnutls_session_t session_ = nullptr;
  ngtcp2_conn* connection_ = nullptr;
  ngtcp2_crypto_conn_ref reference_{};
  std::optional<base::PeerId> expected_;
  std::optional<base::PeerId> peer_;
  bool refused_peer_ = false;
};

}  // namespace stagecoach::world::real
