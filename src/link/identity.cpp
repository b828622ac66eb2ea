#include "link/identity.h"

#include <fcntl.h>
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>

#include "link/ed25519_der.h"

namespace stagecoach::link {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr const char* kGoodLink = "stagecoach://<64 hex digits of the coordinator's key>@<host>:<port>";

std::optional<std::array<std::uint8_t, 32>> parse_hex32(std::string_view text) {
  std::array<std::uint8_t, 32> bytes{};
  if (text.size() != 2 * bytes.size()) return std::nullopt;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const char* first = text.data() + 2 * i;
    const auto [end, status] = std::from_chars(first, first + 2, bytes[i], 16);
    if (status != std::errc() || end != first + 2) return std::nullopt;
  }
  return bytes;
}

std::string hex32(const std::array<std::uint8_t, 32>& bytes) { return base::Bytes32{bytes}.hex(); }

Error system_error(const std::string& doing, const std::string& path) {
  return Error{ErrorCode::io_error, doing + " the key file " + path + " failed: " + std::strerror(errno)};
}

Result<Identity> load(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return Error{errno == ENOENT ? ErrorCode::not_found : ErrorCode::io_error, system_error("opening", path).message};
  char buffer[128];
  std::size_t have = 0;
  ssize_t got = 0;
  while (have < sizeof buffer && (got = ::read(file, buffer + have, sizeof buffer - have)) > 0) have += static_cast<std::size_t>(got);
  const bool failed = got < 0;
  const Error error = failed ? system_error("reading", path) : Error{};
  ::close(file);
  if (failed) return error;
  std::string_view text(buffer, have);
  if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  const auto seed = parse_hex32(text);
  if (!seed) {
    return Error{ErrorCode::corrupt, "the key file " + path + " is not a key (64 hexadecimal digits): restore it, or delete it " +
                                         "and the process gets a new identity"};
  }
  return Identity::from_seed(*seed);
}

/// Writes the seed beside `path` and links it into place: `path` is either whole or not there, and an existing key is never replaced.
Result<bool> store_new(const std::string& path, const Identity& identity) {
  const std::string temporary = path + ".new." + std::to_string(::getpid());
  const int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) return system_error("creating", temporary);
  const std::string text = hex32(identity.seed()) + "\n";
  const bool written = ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(file) == 0;
  const Error write_error = written ? Error{} : system_error("writing", temporary);
  ::close(file);
  const bool linked = written && ::link(temporary.c_str(), path.c_str()) == 0;
  const bool lost_race = written && !linked && errno == EEXIST;
  const Error link_error = linked || lost_race ? Error{} : system_error("creating", path);
  ::unlink(temporary.c_str());
  if (!written) return write_error;
  if (!linked && !lost_race) return link_error;
  return linked;
}

Error bad_link(const std::string& what) {
  return Error{ErrorCode::invalid_argument, "the join link is not right: " + what + "; a good one looks like " + kGoodLink};
}

}  // namespace

Result<Identity> Identity::generate() {
  std::array<std::uint8_t, 32> seed{};
  if (const int status = gnutls_rnd(GNUTLS_RND_KEY, seed.data(), seed.size()); status != 0) {
    return Error{ErrorCode::internal, std::string("the system gave no randomness for a key: ") + gnutls_strerror(status)};
  }
  return from_seed(seed);
}

Result<Identity> Identity::from_seed(const std::array<std::uint8_t, 32>& seed) {
  auto der = ed25519_private_der(seed);
  const gnutls_datum_t pkcs8{der.data(), static_cast<unsigned>(der.size())};
  gnutls_privkey_t key = nullptr;
  gnutls_datum_t public_half{};
  int status = gnutls_privkey_init(&key);
  if (status == 0) status = gnutls_privkey_import_x509_raw(key, &pkcs8, GNUTLS_X509_FMT_DER, nullptr, 0);
  if (status == 0) status = gnutls_privkey_export_ecc_raw(key, nullptr, &public_half, nullptr, nullptr);
  if (key != nullptr) gnutls_privkey_deinit(key);
  Identity identity;
  const bool good = status == 0 && public_half.size == identity.public_.bytes.size();
  if (good) std::memcpy(identity.public_.bytes.data(), public_half.data, public_half.size);
  gnutls_free(public_half.data);
  if (!good) return Error{ErrorCode::internal, std::string("GnuTLS could not make an Ed25519 key: ") + gnutls_strerror(status)};
  identity.seed_ = seed;
  return identity;
}

Result<Identity> Identity::load_or_create(const std::string& path) {
  Result<Identity> loaded = load(path);
  if (loaded.ok() || loaded.error().code != ErrorCode::not_found) return loaded;
  Result<Identity> fresh = generate();
  if (!fresh.ok()) return fresh;
  const Result<bool> stored = store_new(path, *fresh);
  if (!stored.ok()) return stored.error();
  return stored.value() ? fresh : load(path);  // another process of this user was first: its key is the key
}

std::string to_string(const JoinLink& link) {
  const bool bare_ipv6 = link.host.find(':') != std::string::npos;
  const std::string host = bare_ipv6 ? "[" + link.host + "]" : link.host;
  return "stagecoach://" + link.coordinator.hex() + "@" + host + ":" + std::to_string(link.port);
}

Result<JoinLink> parse_join_link(const std::string& text) {
  constexpr std::string_view kScheme = "stagecoach://";
  std::string_view rest = text;
  if (!rest.starts_with(kScheme)) return bad_link("it does not begin with " + std::string(kScheme));
  rest.remove_prefix(kScheme.size());
  const std::size_t at = rest.find('@');
  if (at == std::string_view::npos) return bad_link("there is no @ between key and host");
  const auto key = parse_hex32(rest.substr(0, at));
  if (!key) return bad_link("the key before the @ is not 64 hexadecimal digits (it has " + std::to_string(at) + " characters)");
  rest.remove_prefix(at + 1);

  const std::size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos) return bad_link("there is no :port after the host");
  std::string_view host = rest.substr(0, colon);
  const std::string_view port_text = rest.substr(colon + 1);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return bad_link("an IPv6 address stands in brackets, as in [::1]:4433");
  }
  if (host.empty()) return bad_link("the host is empty");
  if (host.find_first_of(" \t\r\n/@[]") != std::string_view::npos) return bad_link("the host has a character that no host has");

  JoinLink link;
  link.coordinator.bytes = *key;
  link.host = std::string(host);
  const auto [end, status] = std::from_chars(port_text.data(), port_text.data() + port_text.size(), link.port);
  if (status != std::errc() || end != port_text.data() + port_text.size() || link.port == 0) {
    return bad_link("the port is not a number from 1 to 65535");
  }
  return link;
}

}  // namespace stagecoach::link
