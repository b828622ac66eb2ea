// Tokenizers: text to token ids and back.
//
// In:      text, as bytes. Out: ids in [0, vocab).
// Thread:  any; immutable.
// Why:     shards, models and `generate` must agree on the ids' meaning, and an id with a hash lets them check that.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace stagecoach::data {

/// Two tokenizers are the same where both fields are.
struct TokenizerId {
  std::string name;   // "byte-256"
  base::Sha256 hash;  // of all that defines it: for byte-256 its name, for a trained one its model file
  bool operator==(const TokenizerId&) const = default;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual TokenizerId id() const = 0;
  /// Ids are below this.
  virtual std::int64_t vocab() const = 0;
  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;
  /// errors: invalid_argument  an id is outside [0, vocab)
  virtual base::Result<std::string> decode(std::span<const std::int32_t> tokens) const = 0;
};

/// Each byte is its own token: vocabulary 256, any text, nothing trained.
std::unique_ptr<Tokenizer> make_byte_tokenizer();

/// The tokenizer of this name.
///
/// errors: not_found  no such tokenizer: names those there are
base::Result<std::unique_ptr<Tokenizer>> open_tokenizer(std::string_view name);

}  // namespace stagecoach::data
