// Identity: an Ed25519 key pair; the public half is the PeerId.
//
// In:      randomness of the system, or a key file. Out: keys and signatures.
// Thread:  any; immutable.
// Why:     a peer is its key: TLS proves it to the other end, signatures prove it to third parties (DESIGN §5).
#pragma once

#include <array>
#include <string>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/result.h"

namespace stagecoach::link {

class Identity {
 public:
  /// A new key pair from the system's randomness.
  static base::Result<Identity> generate();
  /// From a 32-byte secret seed (RFC 8032).
  static base::Result<Identity> from_seed(const std::array<std::uint8_t, 32>& seed);
  /// Reads the key file at `path`, or makes one (mode 0600) where there is none.
  ///
  /// errors: corrupt  the file is not a key: says what to delete · io_error
  static base::Result<Identity> load_or_create(const std::string& path);

  base::PeerId peer_id() const { return public_; }
  const std::array<std::uint8_t, 32>& seed() const { return seed_; }

 private:
  Identity() = default;
  std::array<std::uint8_t, 32> seed_{};
  base::PeerId public_;
};

/// The join link: "stagecoach://<64 hex digits of the coordinator's key>@<host>:<port>".
struct JoinLink {
  base::PeerId coordinator;
  std::string host;
  std::uint16_t port = 0;
};
std::string to_string(const JoinLink& link);
/// errors: invalid_argument  names what is wrong with the text and shows a good one
base::Result<JoinLink> parse_join_link(const std::string& text);

}  // namespace stagecoach::link
