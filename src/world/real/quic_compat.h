// The differences between ngtcp2 0.12 (Debian 12, Ubuntu 24.04) and 1.x (Debian 13) that we meet, in one place.
//
// In/out:  the names of 1.x, or small functions where names are not enough.
// Thread:  loop.
// Why:     everything else in this folder is written once and builds against both.
#pragma once

#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>

#include <cstdint>
#include <span>
#include <string>

#include "base/time.h"

namespace stagecoach::world::real {

#if NGTCP2_VERSION_NUM >= 0x010000
using QuicCloseError = ngtcp2_ccerr;
inline constexpr ngtcp2_cc_algo kQuicBbr = NGTCP2_CC_ALGO_BBR;
#else
using QuicCloseError = ngtcp2_connection_close_error;
inline constexpr ngtcp2_cc_algo kQuicBbr = NGTCP2_CC_ALGO_BBR2;
#endif

/// What a peer's CONNECTION_CLOSE said.
struct QuicCloseReceived {
  bool by_application = false;
  std::uint64_t code = 0;
  std::string reason;
};

namespace compat {

// Fields that exist in only one generation are found by their name, which needs templates.

template <class Params>
void mark_original_dcid([[maybe_unused]] Params& params) {
  if constexpr (requires { params.original_dcid_present; }) params.original_dcid_present = 1;
}

/// From 1.15 on a limiter counts wholly duplicate stream frames as an attack, which reordering on a fast link alone brings about.
template <class Settings>
void raise_glitch_limit([[maybe_unused]] Settings& settings) {
  if constexpr (requires { settings.glitch_ratelim_burst; }) {
    settings.glitch_ratelim_burst = 1'000'000'000;
    settings.glitch_ratelim_rate = 1'000'000'000;
  }
}

template <class Header>
std::span<const std::uint8_t> token_of(const Header& header) {
  if constexpr (requires { header.tokenlen; }) {
    return {header.token, header.tokenlen};
  } else {
    return {header.token.base, header.token.len};
  }
}

template <class Settings>
void set_token(Settings& settings, std::span<const std::uint8_t> token) {
  if constexpr (requires { settings.tokenlen; }) {
    settings.token = token.data();
    settings.tokenlen = token.size();
  } else {
    settings.token = {const_cast<std::uint8_t*>(token.data()), token.size()};
  }
}

inline const std::uint8_t* bytes_of(const std::string& text) { return reinterpret_cast<const std::uint8_t*>(text.data()); }

/// owns: `reason` outlives `error`.
inline void set_application_error(QuicCloseError& error, std::uint64_t code, const std::string& reason) {
#if NGTCP2_VERSION_NUM >= 0x010000
  ngtcp2_ccerr_default(&error);
  ngtcp2_ccerr_set_application_error(&error, code, bytes_of(reason), reason.size());
#else
  ngtcp2_connection_close_error_default(&error);
  ngtcp2_connection_close_error_set_application_error(&error, code, bytes_of(reason), reason.size());
#endif
}

inline void set_library_error(QuicCloseError& error, int library_error) {
#if NGTCP2_VERSION_NUM >= 0x010000
  ngtcp2_ccerr_default(&error);
  ngtcp2_ccerr_set_liberr(&error, library_error, nullptr, 0);
#else
  ngtcp2_connection_close_error_default(&error);
  ngtcp2_connection_close_error_set_transport_error_liberr(&error, library_error, nullptr, 0);
#endif
}

inline void set_tls_alert(QuicCloseError& error, std::uint8_t alert) {
#if NGTCP2_VERSION_NUM >= 0x010000
  ngtcp2_ccerr_default(&error);
  ngtcp2_ccerr_set_tls_alert(&error, alert, nullptr, 0);
#else
  ngtcp2_connection_close_error_default(&error);
  ngtcp2_connection_close_error_set_transport_error_tls_alert(&error, alert, nullptr, 0);
#endif
}

inline QuicCloseReceived received_close(ngtcp2_conn* connection) {
#if NGTCP2_VERSION_NUM >= 0x010000
  const ngtcp2_ccerr& error = *ngtcp2_conn_get_ccerr(connection);
  const bool by_application = error.type == NGTCP2_CCERR_TYPE_APPLICATION;
#else
  ngtcp2_connection_close_error error;
  ngtcp2_conn_get_connection_close_error(connection, &error);
  const bool by_application = error.type == NGTCP2_CONNECTION_CLOSE_ERROR_CODE_TYPE_APPLICATION;
#endif
  return {by_application, error.error_code, std::string(reinterpret_cast<const char*>(error.reason), error.reasonlen)};
}

/// RESET_STREAM. We never send one: a frame is delivered or its link goes down. Peers that do are made with this in tests.
inline int abandon_stream(ngtcp2_conn* connection, std::int64_t stream) {
#if NGTCP2_VERSION_NUM >= 0x010000
  return ngtcp2_conn_shutdown_stream_write(connection, 0, stream, 0);
#else
  return ngtcp2_conn_shutdown_stream_write(connection, stream, 0);
#endif
}

/// How the road is, in the terms of either generation.
struct RoadInfo {
  base::Duration latest_round_trip;
  base::Duration smoothed_round_trip;
  std::uint64_t bytes_in_flight = 0;
};
inline RoadInfo road_info(ngtcp2_conn* connection) {
#if NGTCP2_VERSION_NUM >= 0x010000
  ngtcp2_conn_info info;
  ngtcp2_conn_get_conn_info(connection, &info);
#else
  ngtcp2_conn_stat info;
  ngtcp2_conn_get_conn_stat(connection, &info);
#endif
  return {base::Duration::nanoseconds(static_cast<std::int64_t>(info.latest_rtt)),
          base::Duration::nanoseconds(static_cast<std::int64_t>(info.smoothed_rtt)), info.bytes_in_flight};
}

}  // namespace compat
}  // namespace stagecoach::world::real
