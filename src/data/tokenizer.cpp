#include "data/tokenizer.h"

#include "digest/digest.h"

namespace stagecoach::data {
namespace {

constexpr std::string_view kByteName = "byte-256";
constexpr std::int64_t kByteVocab = 256;

class ByteTokenizer final : public Tokenizer {
 public:
  TokenizerId id() const override { return {std::string(kByteName), digest::sha256(kByteName)}; }
  std::int64_t vocab() const override { return kByteVocab; }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::vector<std::int32_t> tokens;
    tokens.reserve(text.size());
    for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
    return tokens;
  }

  base::Result<std::string> decode(std::span<const std::int32_t> tokens) const override {
    std::string text;
    text.reserve(tokens.size());
    for (const std::int32_t token : tokens) {
      if (token < 0 || token >= kByteVocab) {
        return base::Error{base::ErrorCode::invalid_argument,
                           "token " + std::to_string(token) +
                               " is outside the vocabulary of byte-256: is the model's vocabulary larger?"};
      }
      text.push_back(static_cast<char>(token));
    }
    return text;
  }
};

}  // namespace

std::unique_ptr<Tokenizer> make_byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }

base::Result<std::unique_ptr<Tokenizer>> open_tokenizer(std::string_view name) {
  if (name == kByteName) return make_byte_tokenizer();
  return base::Error{base::ErrorCode::not_found,
                     "there is no tokenizer \"" + std::string(name) + "\": \"byte-256\" is the one built in"};
}

}  // namespace stagecoach::data
