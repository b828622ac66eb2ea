#include "digest/digest.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <xxhash.h>

#include "base/check.h"

namespace stagecoach::digest {

std::uint64_t xxh3(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

base::Sha256 sha256(std::span<const std::byte> bytes) {
  base::Sha256 out;
  CHECK(gnutls_hash_fast(GNUTLS_DIG_SHA256, bytes.data(), bytes.size(), out.bytes.data()) == 0, "GnuTLS has SHA-256");
  return out;
}

base::Sha256 sha256(std::string_view text) { return sha256(base::as_bytes(text)); }

struct Sha256Stream::State {
  gnutls_hash_hd_t handle = nullptr;
  State() { CHECK(gnutls_hash_init(&handle, GNUTLS_DIG_SHA256) == 0, "GnuTLS has SHA-256"); }
  ~State() { gnutls_hash_deinit(handle, nullptr); }
};

Sha256Stream::Sha256Stream() : state_(std::make_unique<State>()) {}
Sha256Stream::~Sha256Stream() = default;
Sha256Stream::Sha256Stream(Sha256Stream&&) noexcept = default;
Sha256Stream& Sha256Stream::operator=(Sha256Stream&&) noexcept = default;

void Sha256Stream::update(std::span<const std::byte> bytes) {
  CHECK(gnutls_hash(state_->handle, bytes.data(), bytes.size()) == 0, "hashing memory cannot fail");
}

base::Sha256 Sha256Stream::finish() {
  base::Sha256 out;
  gnutls_hash_output(state_->handle, out.bytes.data());  // also resets the state
  return out;
}

}  // namespace stagecoach::digest
