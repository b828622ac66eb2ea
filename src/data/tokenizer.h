// Tokenizers: text to token ids and back.
//
// In:      texts, as bytes. Out: ids in [0, vocab).
// Thread:  one at a time; another() makes one for another thread.
// Why:     shards, models and `generate` must agree on the ids' meaning, and an id with a hash lets them check that.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace stagecoach::data {

inline constexpr std::size_t kTokenizerBytesMax = 256u << 20;  // of a tokenizer's file
inline constexpr std::string_view kByteTokenizer = "byte-256";
inline constexpr std::string_view kSentencePiece = "sentencepiece";
inline constexpr std::string_view kHuggingFace = "tokenizer.json";

/// Two tokenizers are the same where both fields are.
struct TokenizerId {
  std::string name;   // "byte-256", "sentencepiece" or "tokenizer.json"
  base::Sha256 hash;  // of all that defines it: for byte-256 its name, for a trained one its file
  bool operator==(const TokenizerId&) const = default;
};

/// The ids of several texts, one after another.
struct Encoded {
  std::vector<std::int32_t> ids;
  std::vector<std::size_t> ends;  // for each text, one past its last id
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual TokenizerId id() const = 0;
  /// Ids are below this.
  virtual std::int64_t vocab() const = 0;
  /// The id to put after each document, where the tokenizer has a usual one.
  virtual std::optional<std::int32_t> end_of_document() const = 0;
  /// False where texts must be UTF-8.
  virtual bool takes_any_bytes() const = 0;
  /// The same tokenizer for another thread.
  ///
  /// errors: those of open_tokenizer
  virtual base::Result<std::unique_ptr<Tokenizer>> another() const = 0;
  /// The ids of `texts`, without a mark at a text's begin or end.
  ///
  /// errors: internal  the library or the helper process behind it failed
  virtual base::Result<Encoded> encode(std::span<const std::string_view> texts) = 0;
  base::Result<std::vector<std::int32_t>> encode(std::string_view text);
  /// errors: invalid_argument  an id is outside [0, vocab) · internal
  virtual base::Result<std::string> decode(std::span<const std::int32_t> tokens) = 0;
  /// The id of a token by its exact spelling ("</s>"), for those that a tokenizer's file names.
  virtual std::optional<std::int32_t> id_of(std::string_view token) = 0;
};

/// Each byte is its own token: vocabulary 256, any text, nothing trained. After a document comes the byte 0, which
/// texts do not hold.
std::unique_ptr<Tokenizer> make_byte_tokenizer();

struct TokenizerOptions {
  std::string python;  // the interpreter whose `tokenizers` package reads a tokenizer.json; empty = none is known
};

/// The tokenizer that `spec` means: "byte" (or "byte-256"), a SentencePiece model (*.model) or a Hugging Face
/// tokenizer.json (*.json).
///
/// errors: not_found  no such tokenizer or file: names what there is
///         corrupt    the file is not what its name says
///         unavailable  a tokenizer.json needs Python and its package `tokenizers`: says what to install
///         io_error · too_large
base::Result<std::unique_ptr<Tokenizer>> open_tokenizer(const std::string& spec, const TokenizerOptions& options = {});

/// The name under which a tokenizer's file lies beside shards and checkpoints; empty for byte-256, which has none.
std::string tokenizer_file_name(std::string_view tokenizer);

/// The tokenizer's file in `folder`, whichever it is; empty where there is none.
std::filesystem::path tokenizer_file_in(const std::filesystem::path& folder);

}  // namespace stagecoach::data
