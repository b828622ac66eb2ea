#include "data/shards.h"

#include <algorithm>
#include <cmath>
#include <system_error>

#include "digest/digest.h"

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
namespace fs = std::filesystem;

constexpr char kManifestFile[] = "manifest.json";
constexpr std::string_view kMagic = "SCTOKENS";
constexpr std::size_t kKeyDigits = 16;

/// The same for the same inputs, and for no others.
std::string folder_name(const ShardManifest& manifest, const ShardOptions& options) {
  const std::string key = std::to_string(kShardFormatVersion) + "\n" + manifest.tokenizer.name + "\n" +
                          manifest.tokenizer.hash.hex() + "\n" + manifest.source_sha256.hex() + "\n" +
                          std::to_string(manifest.validation_tokens) + "\n" + std::to_string(options.tokens_per_shard) +
                          "\n";
  return manifest.tokenizer.name + "-" + digest::sha256(key).short_hex(kKeyDigits);
}

base::Bytes header_of(const ShardManifest& manifest, std::int64_t tokens) {
  base::ByteWriter header;
  header.raw(base::as_bytes(kMagic));
  header.u32(static_cast<std::uint32_t>(kShardFormatVersion));
  header.u32(static_cast<std::uint32_t>(manifest.token_bytes));
  header.u64(static_cast<std::uint64_t>(tokens));
  header.u64(static_cast<std::uint64_t>(manifest.vocab));
  return header.take();
}

Result<base::Sha256> write_file(const fs::path& path, std::span<const std::byte> bytes) {
  auto file = base::FileWriter::create(path);
  if (!file.ok()) return file.error();
  RETURN_IF_ERROR(file->write(bytes));
  RETURN_IF_ERROR(file->finish());
  return digest::sha256(bytes);
}

base::Bytes shard_bytes(const ShardManifest& manifest, std::span<const std::int32_t> tokens) {
  base::Bytes bytes = header_of(manifest, static_cast<std::int64_t>(tokens.size()));
  const auto width = static_cast<std::size_t>(manifest.token_bytes);
  bytes.reserve(bytes.size() + tokens.size() * width);
  for (const std::int32_t token : tokens) {
    CHECK(token >= 0 && token < manifest.vocab, "a tokenizer gives ids of its own vocabulary");
    for (std::size_t i = 0; i < width; ++i) bytes.push_back(static_cast<std::byte>(token >> (8 * i)));
  }
  return bytes;
}

/// Writes all files into `partial`, manifest last.
Result<void> write_shards(const fs::path& partial, ShardManifest& manifest, std::span<const std::int32_t> tokens,
                          const ShardOptions& options) {
  RETURN_IF_ERROR(base::remove_tree(partial));
  RETURN_IF_ERROR(base::make_directories(partial));
  while (!tokens.empty()) {
    const auto count = std::min(tokens.size(), static_cast<std::size_t>(options.tokens_per_shard));
    ShardInfo shard{shard_file_name(manifest.shards.size()), static_cast<std::int64_t>(count), {}};
    auto hash = write_file(partial / shard.file, shard_bytes(manifest, tokens.first(count)));
    if (!hash.ok()) return hash.error();
    shard.sha256 = *hash;
    manifest.shards.push_back(std::move(shard));
    tokens = tokens.subspan(count);
  }
  auto written = write_file(partial / kManifestFile, base::as_bytes(canonical_text(manifest)));
  if (!written.ok()) return written.error();
  return base::sync_directory(partial);
}

/// The first thing that is wrong with a shard file, or nothing.
std::string problem_of(std::span<const std::byte> file, const ShardManifest& manifest, const ShardInfo& shard) {
  const base::Bytes header = header_of(manifest, shard.tokens);
  const std::uint64_t expected = kShardHeaderBytes + static_cast<std::uint64_t>(shard.tokens * manifest.token_bytes);
  if (file.size() != expected) {
    return std::string(file.size() < expected ? "is truncated" : "is too long") + ": it has " +
           std::to_string(file.size()) + " bytes where the manifest's " + std::to_string(shard.tokens) +
           " tokens take " + std::to_string(expected);
  }
  if (!std::equal(header.begin(), header.end(), file.begin()))
    return "has a header that does not agree with the manifest";
  return {};
}

Error use_again_error(const Error& error, const fs::path& directory) {
  return Error{error.code, error.message + ". Remove " + directory.string() + " and it is built anew"};
}

}  // namespace

Result<BuiltShards> build_shards(const fs::path& root, std::string_view text, const Tokenizer& tokenizer,
                                 const ShardOptions& options) {
  if (!(options.holdout_fraction > 0 && options.holdout_fraction < 1)) {
    return Error{ErrorCode::invalid_argument,
                 "the held-out fraction must lie between 0 and 1 (a usual one is 0.05), not be " +
                     std::to_string(options.holdout_fraction)};
  }
  if (options.tokens_per_shard < 1) return Error{ErrorCode::invalid_argument, "a shard must hold at least one token"};
  const std::vector<std::int32_t> tokens = tokenizer.encode(text);
  if (tokens.empty()) return Error{ErrorCode::invalid_argument, "the corpus is empty: it gives no token to learn from"};

  ShardManifest manifest;
  manifest.tokenizer = tokenizer.id();
  manifest.vocab = tokenizer.vocab();
  manifest.token_bytes = token_bytes_for(manifest.vocab);
  manifest.source_sha256 = digest::sha256(text);
  manifest.holdout_fraction = options.holdout_fraction;
  const auto total = static_cast<std::int64_t>(tokens.size());
  manifest.validation_tokens =
      static_cast<std::int64_t>(std::floor(static_cast<double>(total) * options.holdout_fraction));
  manifest.train_tokens = total - manifest.validation_tokens;

  RETURN_IF_ERROR(base::make_directories(root));
  // Whoever holds the lock may take a left-over .partial folder for what it is: the work of a process that died.
  auto lock = base::FileLock::take(root / ".lock", {.wait = true});
  if (!lock.ok()) return lock.error();
  const std::string name = folder_name(manifest, options);
  std::error_code failed;
  const BuiltShards built{root / name, fs::exists(root / name, failed)};
  if (built.reused) {
    auto opened = TokenShards::open(built.directory, {.model_vocab = manifest.vocab});
    if (!opened.ok()) return use_again_error(opened.error(), built.directory);
    return built;
  }
  const fs::path partial = root / ("." + name + ".partial");
  if (auto written = write_shards(partial, manifest, tokens, options); !written.ok()) {
    // The first error is the one to report; what cannot be removed now is removed by the next build.
    static_cast<void>(base::remove_tree(partial));
    return written.error();
  }
  fs::rename(partial, built.directory, failed);
  if (failed) return base::file_error("rename to", built.directory, failed.value());
  RETURN_IF_ERROR(base::sync_directory(root));
  return built;
}

Result<TokenShards> TokenShards::open(const fs::path& directory, const OpenOptions& options) {
  const fs::path manifest_path = directory / kManifestFile;
  auto text = base::read_text_file(manifest_path, kShardManifestBytesMax);
  if (!text.ok() && text.error().code == ErrorCode::not_found) {
    return Error{ErrorCode::not_found,
                 "there are no token shards in " + directory.string() + ": it has no " + kManifestFile};
  }
  if (!text.ok()) return text.error();
  auto manifest = parse_shard_manifest(*text);
  if (!manifest.ok()) return Error{manifest.error().code, manifest_path.string() + ": " + manifest.error().message};

  TokenShards opened;
  opened.directory_ = directory;
  opened.manifest_ = std::move(*manifest);
  opened.manifest_hash_ = digest::sha256(*text);
  const ShardManifest& m = opened.manifest_;
  if (options.model_vocab != 0 && options.model_vocab != m.vocab) {
    return Error{ErrorCode::mismatch,
                 "the token shards in " + directory.string() + " have a vocabulary of " + std::to_string(m.vocab) +
                     " (" + m.tokenizer.name + ") and the model one of " + std::to_string(options.model_vocab) +
                     ": set the model's vocabulary to " + std::to_string(m.vocab) + " or use other shards"};
  }
  std::int64_t first = 0;
  for (const ShardInfo& shard : m.shards) {
    auto file = base::MappedFile::open(directory / shard.file);
    if (!file.ok() && file.error().code == ErrorCode::not_found) {
      return Error{ErrorCode::corrupt, (directory / shard.file).string() + " is missing, and the manifest names it"};
    }
    if (!file.ok()) return file.error();
    std::string problem = problem_of(file->bytes(), m, shard);
    if (problem.empty() && options.verify_hashes && digest::sha256(file->bytes()) != shard.sha256) {
      problem = "does not have the SHA-256 that the manifest gives: it was damaged or changed";
    }
    if (!problem.empty()) return Error{ErrorCode::corrupt, (directory / shard.file).string() + " " + problem};
    opened.shards_.push_back({std::move(*file), first});
    first += shard.tokens;
  }
  return opened;
}

Result<void> TokenShards::copy(std::int64_t first, std::span<std::int32_t> out) const {
  CHECK(first >= 0 && first + static_cast<std::int64_t>(out.size()) <= tokens(), "tokens are read inside the shards");
  auto shard = std::upper_bound(shards_.begin(), shards_.end(), first,
                                [](std::int64_t position, const Shard& s) { return position < s.first; });
  --shard;
  const auto width = static_cast<std::size_t>(manifest_.token_bytes);
  while (!out.empty()) {
    const auto tokens_here = (shard->file.bytes().size() - kShardHeaderBytes) / width;
    const auto skip = static_cast<std::size_t>(first - shard->first);
    const auto count = std::min(out.size(), tokens_here - skip);
    const std::byte* from = shard->file.bytes().data() + kShardHeaderBytes + skip * width;
    for (std::size_t i = 0; i < count; ++i, from += width) {
      std::uint32_t token = 0;
      for (std::size_t b = 0; b < width; ++b) token |= static_cast<std::uint32_t>(from[b]) << (8 * b);
      if (token >= static_cast<std::uint64_t>(manifest_.vocab)) {
        const auto name = manifest_.shards[static_cast<std::size_t>(shard - shards_.begin())].file;
        return Error{ErrorCode::corrupt, (directory_ / name).string() + " holds token " + std::to_string(token) +
                                             ", which is not in the vocabulary of " + std::to_string(manifest_.vocab)};
      }
      out[i] = static_cast<std::int32_t>(token);
    }
    out = out.subspan(count);
    first += static_cast<std::int64_t>(count);
    ++shard;
  }
  return {};
}

}  // namespace stagecoach::data
