// A SentencePiece model, by its own library. The loaded model is shared and immutable.
#include <sentencepiece_processor.h>

#include "base/files.h"
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
  SentencePieceTokenizer(std::shared_ptr<const Processor> model, TokenizerId id)
      : model_(std::move(model)), id_(std::move(id)) {}

  TokenizerId id() const override { return id_; }
  std::int64_t vocab() const override { return model_->GetPieceSize(); }
  std::optional<std::int32_t> end_of_document() const override {
    const int eos = model_->eos_id();
    return eos < 0 ? std::nullopt : std::optional<std::int32_t>(eos);
  }
  bool takes_any_bytes() const override { return false; }
  Result<std::unique_ptr<Tokenizer>> another() const override {
    return std::unique_ptr<Tokenizer>(std::make_unique<SentencePieceTokenizer>(model_, id_));
  }

  Result<Encoded> encode(std::span<const std::string_view> texts) override {
    Encoded out;
    std::vector<int> ids;
    for (const std::string_view text : texts) {
      const auto status = model_->Encode({text.data(), text.size()}, &ids);
      if (!status.ok()) return Error{ErrorCode::internal, "SentencePiece cannot encode: " + status.ToString()};
      out.ids.insert(out.ids.end(), ids.begin(), ids.end());
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
  std::shared_ptr<const Processor> model_;
  TokenizerId id_;
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
  return std::unique_ptr<Tokenizer>(std::make_unique<SentencePieceTokenizer>(std::move(model), std::move(id)));
}

}  // namespace stagecoach::data
