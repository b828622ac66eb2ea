#include "data/shard_check.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/files.h"
#include "data/document_index.h"
#include "data/shard_writer.h"
#include "data/trained_tokenizers.h"
#include "digest/digest.h"

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
namespace fs = std::filesystem;

/// One shard's tokens, mapped, with what was found out about them.
class TokensCheck {
 public:
  TokensCheck(std::span<const std::byte> file, const ShardManifest& manifest)
      : ids_(file.subspan(kShardHeaderBytes)),
        manifest_(manifest),
        width_(static_cast<std::size_t>(manifest.token_bytes)) {}

  std::uint64_t at(std::size_t place) const {
    std::uint64_t id = 0;
    for (std::size_t b = 0; b < width_; ++b) id |= static_cast<std::uint64_t>(ids_[place * width_ + b]) << (8 * b);
    return id;
  }

  /// The first id outside of the vocabulary, as a sentence; empty = none.
  std::string foreign_id() const {
    if (manifest_.vocab == std::int64_t{1} << (8 * width_)) return {};  // every value is an id
    for (std::size_t i = 0; i < ids_.size() / width_; ++i) {
      if (at(i) >= static_cast<std::uint64_t>(manifest_.vocab))
        return "holds token " + std::to_string(at(i)) + ", which is not in the vocabulary of " +
               std::to_string(manifest_.vocab);
    }
    return {};
  }

 private:
  std::span<const std::byte> ids_;
  const ShardManifest& manifest_;
  std::size_t width_;
};

/// Goes through the shards, remembering what a document that crosses an edge needs.
class Check {
 public:
  Check(const fs::path& directory, ShardCheck& out) : directory_(directory), out_(out) {}

  Result<void> shard(std::size_t number) {
    const ShardManifest& manifest = out_.manifest;
    const ShardInfo& info = manifest.shards[number];
    auto tokens = map(info.file);
    if (!tokens) return tokens.error();
    const bool whole = *tokens && check_tokens(**tokens, info);
    if (manifest.version == kManifestVersion) {
      auto documents = map(document_file_name(number));
      if (!documents) return documents.error();
      check_documents(number, *documents, whole ? &**tokens : nullptr);
    }
    first_token_ += info.tokens;
    first_document_ += info.documents;
    return {};
  }

 private:
  /// The file; nothing, and a problem, where it is missing.
  Result<std::optional<base::MappedFile>> map(const std::string& name) {
    auto file = base::MappedFile::open(directory_ / name);
    if (!file && file.error().code == ErrorCode::not_found) {
      problem(name, "is missing, and the manifest names it");
      return std::optional<base::MappedFile>();
    }
    if (!file) return file.error();
    out_.bytes += file->bytes().size();
    return std::optional(std::move(*file));
  }

  bool check_tokens(const base::MappedFile& file, const ShardInfo& info) {
    const base::Bytes header = shard_header(out_.manifest.vocab, info.tokens);
    const auto bytes = kShardHeaderBytes + static_cast<std::uint64_t>(info.tokens * out_.manifest.token_bytes);
    if (file.bytes().size() != bytes) {
      problem(info.file, "has " + std::to_string(file.bytes().size()) + " bytes where the manifest's tokens take " +
                             std::to_string(bytes));
      return false;
    }
    if (!std::equal(header.begin(), header.end(), file.bytes().begin()))
      problem(info.file, "has a header that does not agree with the manifest");
    if (digest::sha256(file.bytes()) != info.sha256)
      problem(info.file, "does not have the SHA-256 that the manifest gives");
    if (const std::string foreign = TokensCheck(file.bytes(), out_.manifest).foreign_id(); !foreign.empty())
      problem(info.file, foreign);
    return true;
  }

  void check_documents(std::size_t number, const std::optional<base::MappedFile>& file, const base::MappedFile* tokens);

  void problem(const std::string& file, const std::string& what) {
    out_.problems.push_back((directory_ / file).string() + " " + what);
  }

  const fs::path& directory_;
  ShardCheck& out_;
  std::int64_t first_token_ = 0, first_document_ = 0;
  std::optional<std::uint64_t> last_token_;  // of the shard before
};

void Check::check_documents(std::size_t number, const std::optional<base::MappedFile>& file,
                            const base::MappedFile* tokens) {
  const ShardManifest& manifest = out_.manifest;
  const ShardInfo& info = manifest.shards[number];
  const std::string name = document_file_name(number);
  const std::optional<std::uint64_t> before = std::exchange(last_token_, std::nullopt);
  if (!file) return;
  if (digest::sha256(file->bytes()) != info.documents_sha256)
    problem(name, "does not have the SHA-256 that the manifest gives");
  if (const std::string wrong = problem_of_documents(file->bytes(), info, first_token_, first_document_);
      !wrong.empty())
    return problem(name, wrong);
  if (tokens == nullptr) return;
  const TokensCheck ids(tokens->bytes(), manifest);
  const auto count = static_cast<std::size_t>(info.tokens);
  last_token_ = ids.at(count - 1);
  if (!manifest.end_of_document) return;
  const auto mark = static_cast<std::uint64_t>(*manifest.end_of_document);
  base::ByteReader positions(file->bytes().subspan(kShardHeaderBytes));
  for (std::int64_t i = 0; i < info.documents; ++i) {
    const auto start = static_cast<std::size_t>(positions.u64() - static_cast<std::uint64_t>(first_token_));
    const std::optional<std::uint64_t> last = start > 0 ? std::optional(ids.at(start - 1)) : before;
    if (last && *last != mark) {
      return problem(name, "lets document " + std::to_string(first_document_ + i) +
                               " begin where the token before it does not end one");
    }
  }
  if (number + 1 == manifest.shards.size() && *last_token_ != mark)
    problem(info.file, "does not end with the token that ends documents");
}

Result<void> check_tokenizer(const fs::path& directory, ShardCheck& out) {
  const std::string name = tokenizer_file_name(out.manifest.tokenizer.name);
  if (name.empty()) return {};
  auto bytes = base::read_text_file(directory / name, kTokenizerBytesMax);
  if (!bytes && bytes.error().code == ErrorCode::not_found) {
    out.problems.push_back((directory / name).string() + " is missing: without it the tokens cannot be turned to text");
    return {};
  }
  if (!bytes) return bytes.error();
  out.bytes += bytes->size();
  if (digest::sha256(*bytes) != out.manifest.tokenizer.hash)
    out.problems.push_back((directory / name).string() + " is not the tokenizer that the manifest names");
  return {};
}

}  // namespace

Result<ShardCheck> check_shards(const fs::path& directory,
                                const std::function<void(std::size_t shard, std::size_t shards)>& progress) {
  ShardCheck out;
  auto manifest = read_shard_manifest(directory);
  if (!manifest) return manifest.error();
  out.manifest = std::move(*manifest);
  RETURN_IF_ERROR(check_tokenizer(directory, out));
  Check check(directory, out);
  for (std::size_t i = 0; i < out.manifest.shards.size(); ++i) {
    RETURN_IF_ERROR(check.shard(i));
    if (progress) progress(i + 1, out.manifest.shards.size());
  }
  return out;
}

Result<ShardManifest> read_shard_manifest(const fs::path& directory) {
  const fs::path path = directory / kManifestFile;
  auto text = base::read_text_file(path, kShardManifestBytesMax);
  if (!text && text.error().code == ErrorCode::not_found) {
    return Error{ErrorCode::not_found,
                 "there are no token shards in " + directory.string() + ": it has no " + kManifestFile};
  }
  if (!text) return text.error();
  auto manifest = parse_shard_manifest(*text);
  if (!manifest) return Error{manifest.error().code, path.string() + ": " + manifest.error().message};
  return manifest;
}

}  // namespace stagecoach::data
