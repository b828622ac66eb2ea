// Strong ids: a step is not a stage and neither is a number.
//
// In/out:  values without implicit conversion; ordered, so that they key ordered maps (brains never iterate unordered ones).
// Thread:  any.
// Why:     most protocol bugs are one integer where another was meant; the compiler finds those here.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstddef>
#include <string>
#include <string_view>

namespace stagecoach::base {

/// A 64-bit number that only equals numbers of its own kind.
template <class Tag>
class Id {
 public:
  constexpr Id() = default;
  explicit constexpr Id(std::uint64_t value) : value_(value) {}
  constexpr std::uint64_t value() const { return value_; }
  constexpr auto operator<=>(const Id&) const = default;
  constexpr Id next() const { return Id(value_ + 1); }

 private:
  std::uint64_t value_ = 0;
};

using StageIndex = Id<struct StageIndexTag>;        // 0 = head
using Step = Id<struct StepTag>;                    // 1, 2, …; 0 = before the first
using WeightVersion = Id<struct WeightVersionTag>;  // the step after whose commit these weights stand; 0 = the seeded start
using MicrobatchIndex = Id<struct MicrobatchIndexTag>;  // position inside a step: 0 … M−1, then the step's validation microbatches
using MicrobatchId = Id<struct MicrobatchIdTag>;    // position in data order over the whole run
using Attempt = Id<struct AttemptTag>;              // one counter a run, never reset
using ViewNumber = Id<struct ViewNumberTag>;        // per stage; 0 = no view yet
using Term = Id<struct TermTag>;                    // one more at each start of the coordinator
using Incarnation = Id<struct IncarnationTag>;      // this start of a worker process
using ShardIndex = Id<struct ShardIndexTag>;        // a slice of a stage's flat gradient in a reduce
using TensorIndex = Id<struct TensorIndexTag>;      // position of a parameter tensor in the whole model's name order
using OpId = Id<struct OpIdTag>;                    // names one asynchronous effect of one brain
using RunId = Id<struct RunIdTag>;                  // random at creation, kept on resume

/// A 256-bit value: a public key, a SHA-256 digest, a config hash.
struct Bytes32 {
  std::array<std::uint8_t, 32> bytes{};
  auto operator<=>(const Bytes32&) const = default;
  /// 64 lower-case hexadecimal digits.
  std::string hex() const;
  /// Sets the value from what hex() prints; false, and nothing changes, where `text` is anything else.
  bool parse_hex(std::string_view text);
  /// The first `digits` hexadecimal digits: enough for a person's eye.
  std::string short_hex(std::size_t digits = 8) const { return hex().substr(0, digits); }
};

/// A worker's or coordinator's raw Ed25519 public key. The key *is* the identity.
struct PeerId : Bytes32 {
  auto operator<=>(const PeerId&) const = default;
};

/// SHA-256 of the config keys that change the mathematics (model/config.h, canonical text).
struct ConfigId : Bytes32 {
  auto operator<=>(const ConfigId&) const = default;
};

/// SHA-256 of some bytes.
struct Sha256 : Bytes32 {
  auto operator<=>(const Sha256&) const = default;
};

}  // namespace stagecoach::base
