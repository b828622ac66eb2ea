// A SentencePiece model, by its own library. The loaded model is shared and immutable.
#include <sentencepiece_processor.h>

#include "base/files.h"
#include "data/sentencepiece_words.h"
#include "data/trained_tokenizers.h"
#include "digest/digest.h"

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
using Processor = sentencepiece::SentencePieceProcessor;

class SentencePieceTokenizer final : public Tokenizer {
 public:
  /// `by_words`: falls_apart_at_spaces
  SentencePieceTokenizer(std::shared_ptr<const Processor> model, TokenizerId id, bool by_words)
      : model_(std::move(model)), id_(std::move(id)), by_words_(by_words) {}

  TokenizerId id() const override { return id_; }
  std::int64_t vocab() const override { return model_->GetPieceSize(); }
  std::optional<std::int32_t> end_of_document() const override {
    const int eos = model_->eos_id();
    return eos < 0 ? std::nullopt : std::optional<std::int32_t>(eos);
  }
  bool takes_any_bytes() const override { return false; }
  Result<std::unique_ptr<Tokenizer>> another() const override {
    return std::unique_ptr<Tokenizer>(std::make_unique<SentencePieceTokenizer>(model_, id_, by_words_));
  }

  Result<Encoded> encode(std::span<const std::string_view> texts) override {
    Encoded out;
    for (const std::string_view text : texts) {
      for (std::size_t first = 0; first < text.size();) {
        const std::size_t last = by_words_ ? chunk_end(text, first) : text.size();
        RETURN_IF_ERROR(encode_chunk(text.substr(first, last - first), out.ids));
        first = last + 1;
      }
      out.ends.push_back(out.ids.size());
    }
    return out;
  }

  Result<std::string> decode(std::span<const std::int32_t> tokens) override {
    for (const std::int32_t token : tokens) {
      if (token < 0 || token >= vocab()) {
        return Error{ErrorCode::invalid_argument, "token " + std::to_string(token) +
                                                      " is outside the SentencePiece model's vocabulary of " +
                                                      std::to_string(vocab())};
      }
    }
    std::string text;
    const auto status = model_->Decode(std::vector<int>(tokens.begin(), tokens.end()), &text);
    if (!status.ok()) return Error{ErrorCode::internal, "SentencePiece cannot decode: " + status.ToString()};
    return text;
  }

  std::optional<std::int32_t> id_of(std::string_view token) override {
    const int id = model_->PieceToId({token.data(), token.size()});
    if (id < 0 || id >= vocab() || model_->IdToPiece(id) != token) return std::nullopt;
    return id;
  }

 private:
  Result<void> encode_chunk(std::string_view chunk, std::vector<std::int32_t>& out) {
    auto ids = by_words_ ? words_.find(chunk) : std::nullopt;
    if (!ids) {
      const auto status = model_->Encode({chunk.data(), chunk.size()}, &scratch_);
      if (!status.ok()) return Error{ErrorCode::internal, "SentencePiece cannot encode: " + status.ToString()};
      if (by_words_) words_.put(chunk, scratch_);
      ids = scratch_;
    }
    out.insert(out.end(), ids->begin(), ids->end());
    return {};
  }

  std::shared_ptr<const Processor> model_;
  TokenizerId id_;
  bool by_words_;
  WordIds words_;
  std::vector<int> scratch_;
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> open_sentencepiece(const std::filesystem::path& file) {
  auto bytes = base::read_text_file(file, kTokenizerBytesMax);
  if (!bytes) return bytes.error().within("tokenizer");
  auto model = std::make_shared<Processor>();
  // An empty text is a valid model to protobuf, and CHECK-fails inside the library when it is used.
  if (bytes->empty() || !model->LoadFromSerializedProto({bytes->data(), bytes->size()}).ok() ||
      model->GetPieceSize() < 1) {
    return Error{ErrorCode::corrupt,
                 file.string() + " is not a SentencePiece model: give the .model file that " + "spm_train wrote"};
  }
  TokenizerId id{std::string(kSentencePiece), digest::sha256(*bytes)};
  return std::unique_ptr<Tokenizer>(std::make_unique<SentencePieceTokenizer>(std::move(model), std::move(id), falls_apart_at_spaces(*bytes)));
}

}  // namespace stagecoach::data
