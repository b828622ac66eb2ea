#include "world/real/quic_tls.h"

#include <cstring>
#include <string>

#include "link/ed25519_der.h"

namespace stagecoach::world::real {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

// GnuTLS' ChaCha20 is fifteen times slower than its AES-GCM; one cipher, one group and one signature leave nothing to negotiate.
constexpr const char* kPriority =
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:-GROUP-ALL:+GROUP-X25519:-SIGN-ALL:+SIGN-EDDSA-ED25519:"
    "-CTYPE-ALL:+CTYPE-CLI-RAWPK:+CTYPE-SRV-RAWPK:%DISABLE_TLS13_COMPAT_MODE";

Error tls_error(const std::string& doing, int status) {
  return Error{ErrorCode::internal, "GnuTLS failed at " + doing + ": " + gnutls_strerror(status)};
}

}  // namespace

Result<std::unique_ptr<TlsContext>> TlsContext::create(const link::Identity& identity) {
  std::unique_ptr<TlsContext> context(new TlsContext);
  int status = gnutls_certificate_allocate_credentials(&context->credentials_);
  if (status != 0) return tls_error("making credentials", status);
  auto public_der = link::ed25519_public_der(identity.peer_id());
  auto private_der = link::ed25519_private_der(identity.seed());
  const gnutls_datum_t public_half{public_der.data(), static_cast<unsigned>(public_der.size())};
  const gnutls_datum_t private_half{private_der.data(), static_cast<unsigned>(private_der.size())};
  status = gnutls_certificate_set_rawpk_key_mem(context->credentials_, &public_half, &private_half, GNUTLS_X509_FMT_DER, nullptr,
                                                GNUTLS_KEY_DIGITAL_SIGNATURE, nullptr, 0, 0);
  if (status != 0) return tls_error("taking the identity's key", status);
  gnutls_certificate_set_verify_function(context->credentials_, TlsSession::verify);
  status = gnutls_priority_init(&context->priority_, kPriority, nullptr);
  if (status != 0) return tls_error("choosing algorithms", status);
  return context;
}

TlsContext::~TlsContext() {
  if (priority_ != nullptr) gnutls_priority_deinit(priority_);
  if (credentials_ != nullptr) gnutls_certificate_free_credentials(credentials_);
}

Result<std::unique_ptr<TlsSession>> TlsSession::create(const TlsContext& context, Side side, std::optional<base::PeerId> expected) {
  std::unique_ptr<TlsSession> tls(new TlsSession);
  tls->expected_ = expected;
  const bool client = side == Side::client;
  const unsigned flags = (client ? GNUTLS_CLIENT : GNUTLS_SERVER) | GNUTLS_ENABLE_RAWPK | GNUTLS_NO_TICKETS;
  int status = gnutls_init(&tls->session_, flags);
  if (status == 0) status = gnutls_priority_set(tls->session_, context.priority_);
  if (status == 0) status = gnutls_credentials_set(tls->session_, GNUTLS_CRD_CERTIFICATE, context.credentials_);
  const gnutls_datum_t alpn{reinterpret_cast<unsigned char*>(const_cast<char*>(kAlpn)), static_cast<unsigned>(std::strlen(kAlpn))};
  if (status == 0) status = gnutls_alpn_set_protocols(tls->session_, &alpn, 1, GNUTLS_ALPN_MANDATORY);
  if (status == 0) {
    status = client ? ngtcp2_crypto_gnutls_configure_client_session(tls->session_)
                    : ngtcp2_crypto_gnutls_configure_server_session(tls->session_);
  }
  if (status != 0) return tls_error("making a session", status);
  if (!client) gnutls_certificate_server_set_request(tls->session_, GNUTLS_CERT_REQUIRE);
  tls->reference_.get_conn = [](ngtcp2_crypto_conn_ref* reference) { return static_cast<TlsSession*>(reference->user_data)->connection_; };
  tls->reference_.user_data = tls.get();
  gnutls_session_set_ptr(tls->session_, &tls->reference_);
  return tls;
}

TlsSession::~TlsSession() {
  if (session_ != nullptr) gnutls_deinit(session_);
}

void TlsSession::attach(ngtcp2_conn* connection) {
  connection_ = connection;
  ngtcp2_conn_set_tls_native_handle(connection, session_);
}

bool TlsSession::speaks_our_protocol() const {
  gnutls_datum_t chosen{};
  if (gnutls_alpn_get_selected_protocol(session_, &chosen) != 0) return false;
  return std::string_view(reinterpret_cast<const char*>(chosen.data), chosen.size) == kAlpn;
}

int TlsSession::verify(gnutls_session_t session) {
  auto* reference = static_cast<ngtcp2_crypto_conn_ref*>(gnutls_session_get_ptr(session));
  auto& self = *static_cast<TlsSession*>(reference->user_data);
  unsigned count = 0;
  const gnutls_datum_t* shown = gnutls_certificate_get_peers(session, &count);
  const bool raw = gnutls_certificate_type_get2(session, GNUTLS_CTYPE_PEERS) == GNUTLS_CRT_RAWPK;
  if (raw && shown != nullptr && count == 1) self.peer_ = link::ed25519_from_public_der({shown->data, shown->size});
  self.refused_peer_ = !self.peer_ || (self.expected_ && *self.peer_ != *self.expected_);
  return self.refused_peer_ ? -1 : 0;
}

}  // namespace stagecoach::world::real
