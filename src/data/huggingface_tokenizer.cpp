// A Hugging Face tokenizer.json, by the Python package `tokenizers` in a process of its own, one a thread.
//
// Thread:  one at a time; waits for the process.
// Why:     the package is the definition of the format; a second reader of it would be another tokenizer.
#include "base/files.h"
#include "data/python_child.h"
#include "data/shard_manifest.h"
#include "data/trained_tokenizers.h"
#include "digest/digest.h"

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::uint32_t kEncode = 1;
constexpr std::uint32_t kDecode = 2;
constexpr std::uint32_t kIdOf = 3;

class HuggingFaceTokenizer final : public Tokenizer {
 public:
  static Result<std::unique_ptr<Tokenizer>> open(const std::filesystem::path& file, const std::string& python,
                                                 TokenizerId id) {
    auto child = PythonChild::start(python, {"tokenizer", file.string()});
    if (!child) return child.error().within(file.string());
    auto hello = child->receive();
    if (!hello) return hello.error();
    base::ByteReader reader(*hello);
    const auto vocab = static_cast<std::int64_t>(reader.u64());
    const auto end = static_cast<std::int32_t>(reader.u32());
    if (!reader.finished() || vocab > kVocabMax || end >= vocab) return nonsense();
    if (vocab < 1) return Error{ErrorCode::corrupt, file.string() + " has no token"};
    auto out = std::unique_ptr<HuggingFaceTokenizer>(new HuggingFaceTokenizer(std::move(*child)));
    out->file_ = file;
    out->python_ = python;
    out->id_ = std::move(id);
    out->vocab_ = vocab;
    if (end >= 0) out->end_ = end;
    return std::unique_ptr<Tokenizer>(std::move(out));
  }

  TokenizerId id() const override { return id_; }
  std::int64_t vocab() const override { return vocab_; }
  std::optional<std::int32_t> end_of_document() const override { return end_; }
  bool takes_any_bytes() const override { return false; }
  Result<std::unique_ptr<Tokenizer>> another() const override { return open(file_, python_, id_); }

  Result<Encoded> encode(std::span<const std::string_view> texts) override {
    base::ByteWriter request;
    request.u32(kEncode);
    request.u32(static_cast<std::uint32_t>(texts.size()));
    for (const std::string_view text : texts) request.u32(static_cast<std::uint32_t>(text.size()));
    for (const std::string_view text : texts) request.raw(base::as_bytes(text));
    auto answer = ask(request);
    if (!answer) return answer.error();
    base::ByteReader reader(*answer);
    Encoded out;
    std::size_t tokens = 0;
    for (std::size_t i = 0; i < texts.size(); ++i) out.ends.push_back(tokens += reader.u32());
    if (!reader.ok() || reader.remaining() != tokens * 4) return nonsense();
    out.ids.resize(tokens);
    for (std::int32_t& id : out.ids) {
      id = static_cast<std::int32_t>(reader.u32());
      if (id < 0 || id >= vocab_) return nonsense();
    }
    return out;
  }

  Result<std::string> decode(std::span<const std::int32_t> tokens) override {
    base::ByteWriter request;
    request.u32(kDecode);
    request.u32(static_cast<std::uint32_t>(tokens.size()));
    for (const std::int32_t token : tokens) {
      if (token < 0 || token >= vocab_) {
        return Error{
            ErrorCode::invalid_argument,
            "token " + std::to_string(token) + " is outside the tokenizer's vocabulary of " + std::to_string(vocab_)};
      }
      request.u32(static_cast<std::uint32_t>(token));
    }
    auto answer = ask(request);
    if (!answer) return answer.error();
    return std::string(base::as_text(*answer));
  }

  std::optional<std::int32_t> id_of(std::string_view token) override {
    base::ByteWriter request;
    request.u32(kIdOf);
    request.u32(static_cast<std::uint32_t>(token.size()));
    request.raw(base::as_bytes(token));
    auto answer = ask(request);
    if (!answer || answer->size() != 4) return std::nullopt;
    const auto id = static_cast<std::int32_t>(base::ByteReader(*answer).u32());
    return id < 0 ? std::nullopt : std::optional(id);
  }

 private:
  explicit HuggingFaceTokenizer(PythonChild child) : child_(std::move(child)) {}
  static Error nonsense() {
    return {ErrorCode::internal, "the Python package `tokenizers` gave an answer that cannot be right"};
  }
  Result<base::Bytes> ask(base::ByteWriter& request) {
    RETURN_IF_ERROR(child_.send(request.take()));
    return child_.receive();
  }

  PythonChild child_;
  std::filesystem::path file_;
  std::string python_;
  TokenizerId id_;
  std::int64_t vocab_ = 0;
  std::optional<std::int32_t> end_;
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> open_huggingface(const std::filesystem::path& file, const std::string& python) {
  auto bytes = base::read_text_file(file, kTokenizerBytesMax);
  if (!bytes) return bytes.error().within("tokenizer");
  return HuggingFaceTokenizer::open(file, python, {std::string(kHuggingFace), digest::sha256(*bytes)});
}

}  // namespace stagecoach::data
