// Digests: xxh3 finds accidents, SHA-256 finds liars.
//
// In:      bytes. Out: 64-bit or 256-bit digests.
// Thread:  any.
// Why:     base/ is std only and compute/ builds on it without distribution packages, so the two library calls live here.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/bytes.h"
#include "base/ids.h"

namespace stagecoach::digest {

/// XXH3-64 of `bytes`: integrity of frames and equality of reduced results, not security.
std::uint64_t xxh3(std::span<const std::byte> bytes);

/// SHA-256 of `bytes`: content ids, config ids, manifests.
base::Sha256 sha256(std::span<const std::byte> bytes);
base::Sha256 sha256(std::string_view text);

/// SHA-256 of bytes that come in pieces.
class Sha256Stream {
 public:
  Sha256Stream();
  ~Sha256Stream();
  Sha256Stream(Sha256Stream&&) noexcept;
  Sha256Stream& operator=(Sha256Stream&&) noexcept;
  void update(std::span<const std::byte> bytes);
  /// The digest of all that was given; the stream starts anew.
  base::Sha256 finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace stagecoach::digest
