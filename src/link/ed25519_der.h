// Ed25519 keys as DER: the fixed headers of RFC 8410 before 32 bytes of key.
//
// In:      raw keys. Out: SubjectPublicKeyInfo and PKCS#8, byte for byte; and back from SubjectPublicKeyInfo.
// Thread:  any.
// Why:     GnuTLS takes and shows raw public keys only in this wrapping; it has one legal form, so comparing bytes is the whole parser.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "base/ids.h"

namespace stagecoach::link {

inline constexpr std::array<std::uint8_t, 12> kEd25519PublicHeader = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
                                                                      0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
inline constexpr std::array<std::uint8_t, 16> kEd25519PrivateHeader = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06,
                                                                       0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20};

/// SubjectPublicKeyInfo of a public key.
inline std::array<std::uint8_t, 44> ed25519_public_der(const base::PeerId& key) {
  std::array<std::uint8_t, 44> der{};
  std::copy(kEd25519PublicHeader.begin(), kEd25519PublicHeader.end(), der.begin());
  std::copy(key.bytes.begin(), key.bytes.end(), der.begin() + kEd25519PublicHeader.size());
  return der;
}

/// PKCS#8 of a secret seed.
inline std::array<std::uint8_t, 48> ed25519_private_der(const std::array<std::uint8_t, 32>& seed) {
  std::array<std::uint8_t, 48> der{};
  std::copy(kEd25519PrivateHeader.begin(), kEd25519PrivateHeader.end(), der.begin());
  std::copy(seed.begin(), seed.end(), der.begin() + kEd25519PrivateHeader.size());
  return der;
}

/// The key in a SubjectPublicKeyInfo; nothing where it is not exactly an Ed25519 key.
inline std::optional<base::PeerId> ed25519_from_public_der(std::span<const std::uint8_t> der) {
  base::PeerId key;
  if (der.size() != kEd25519PublicHeader.size() + key.bytes.size()) return std::nullopt;
  if (!std::equal(kEd25519PublicHeader.begin(), kEd25519PublicHeader.end(), der.begin())) return std::nullopt;
  std::copy(der.begin() + kEd25519PublicHeader.size(), der.end(), key.bytes.begin());
  return key;
}

}  // namespace stagecoach::link
