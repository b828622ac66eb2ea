#include "data/tokenizer.h"

#include "data/trained_tokenizers.h"
#include "digest/digest.h"

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
namespace fs = std::filesystem;

constexpr std::int64_t kByteVocab = 256;
constexpr char kSentencePieceFile[] = "tokenizer.model";
constexpr char kHuggingFaceFile[] = "tokenizer.json";

class ByteTokenizer final : public Tokenizer {
 public:
  TokenizerId id() const override { return {std::string(kByteTokenizer), digest::sha256(kByteTokenizer)}; }
  std::int64_t vocab() const override { return kByteVocab; }
  std::optional<std::int32_t> end_of_document() const override { return 0; }
  bool takes_any_bytes() const override { return true; }
  Result<std::unique_ptr<Tokenizer>> another() const override { return make_byte_tokenizer(); }

  Result<Encoded> encode(std::span<const std::string_view> texts) override {
    std::size_t bytes = 0;
    for (const std::string_view text : texts) bytes += text.size();
    Encoded out;
    out.ids.resize(bytes);
    std::int32_t* to = out.ids.data();
    for (const std::string_view text : texts) {
      for (std::size_t i = 0; i < text.size(); ++i) to[i] = static_cast<unsigned char>(text[i]);
      to += text.size();
      out.ends.push_back(static_cast<std::size_t>(to - out.ids.data()));
    }
    return out;
  }

  Result<std::string> decode(std::span<const std::int32_t> tokens) override {
    std::string text;
    text.reserve(tokens.size());
    for (const std::int32_t token : tokens) {
      if (token < 0 || token >= kByteVocab) {
        return Error{ErrorCode::invalid_argument,
                     "token " + std::to_string(token) +
                         " is outside the vocabulary of byte-256: is the model's vocabulary larger?"};
      }
      text.push_back(static_cast<char>(token));
    }
    return text;
  }

  std::optional<std::int32_t> id_of(std::string_view token) override {
    if (token.size() != 1) return std::nullopt;
    return static_cast<unsigned char>(token[0]);
  }
};

}  // namespace

Result<std::vector<std::int32_t>> Tokenizer::encode(std::string_view text) {
  auto encoded = encode(std::span(&text, 1));
  if (!encoded) return encoded.error();
  return std::move(encoded->ids);
}

std::unique_ptr<Tokenizer> make_byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }

Result<std::unique_ptr<Tokenizer>> open_tokenizer(const std::string& spec, const TokenizerOptions& options) {
  if (spec == "byte" || spec == kByteTokenizer) return make_byte_tokenizer();
  const fs::path file(spec);
  if (file.extension() == ".model") return open_sentencepiece(file);
  if (file.extension() == ".json") return open_huggingface(file, options.python);
  return Error{ErrorCode::not_found, "there is no tokenizer \"" + spec +
                                         "\": give byte (the one built in, byte-256), a SentencePiece model "
                                         "(FILE.model) or a Hugging Face tokenizer.json"};
}

std::string tokenizer_file_name(std::string_view tokenizer) {
  if (tokenizer == kSentencePiece) return kSentencePieceFile;
  if (tokenizer == kHuggingFace) return kHuggingFaceFile;
  return {};
}

fs::path tokenizer_file_in(const fs::path& folder) {
  std::error_code ignored;
  for (const char* name : {kSentencePieceFile, kHuggingFaceFile}) {
    if (fs::is_regular_file(folder / name, ignored)) return folder / name;
  }
  return {};
}

}  // namespace stagecoach::data
