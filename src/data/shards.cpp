#include "data/shards.h"

#include <algorithm>
#include <system_error>

#include "data/build_journal.h"
#include "data/shard_build.h"
#include "data/shard_writer.h"
#include "digest/digest.h"

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
namespace fs = std::filesystem;

constexpr std::size_t kKeyDigits = 16;

/// The same for the same inputs, and for no others.
std::string folder_name(const BuildPlan& plan, const Tokenizer& tokenizer, std::span<const SourceInfo> sources) {
  std::string key =
      std::to_string(kManifestVersion) + "\n" + tokenizer.id().name + "\n" + tokenizer.id().hash.hex() + "\n";
  std::uint64_t bytes = 0;
  for (const SourceInfo& source : sources) {
    key += source.sha256.hex() + "\n";
    bytes += source.bytes;
  }
  // The fraction itself may differ where what it comes to does not: one byte is one token here.
  key += std::to_string(validation_tokens_of(static_cast<std::int64_t>(bytes), plan.holdout_fraction)) + "\n" +
         std::to_string(plan.tokens_per_shard) + "\n";
  return tokenizer.id().name + "-" + digest::sha256(key).short_hex(kKeyDigits);
}

/// The first thing that is wrong with a shard file, or nothing.
std::string problem_of(std::span<const std::byte> file, const ShardManifest& manifest, const ShardInfo& shard) {
  const base::Bytes header = shard_header(manifest.vocab, shard.tokens);
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

Result<BuiltShards> build_cached(const fs::path& root, BuildPlan plan, const Tokenizer& tokenizer,
                                 const ShardOptions& options) {
  plan.holdout_fraction = options.holdout_fraction;
  plan.tokens_per_shard = options.tokens_per_shard;
  plan.text_field.clear();
  if (std::string problem = problem_of(plan, tokenizer); !problem.empty())
    return Error{ErrorCode::invalid_argument, problem};
  std::vector<SourceInfo> sources;
  for (const Input& input : plan.inputs) {
    auto source = source_of(input);
    if (!source) return source.error().within("corpus");
    sources.push_back(std::move(*source));
  }
  RETURN_IF_ERROR(base::make_directories(root));
  // Whoever holds the lock may take a left-over .partial folder for what it is: the work of a process that died.
  auto lock = base::FileLock::take(root / ".lock", {.wait = true});
  if (!lock.ok()) return lock.error();
  const std::string name = folder_name(plan, tokenizer, sources);
  std::error_code failed;
  const BuiltShards built{root / name, fs::exists(root / name, failed)};
  if (built.reused) {
    auto opened = TokenShards::open(built.directory, {.model_vocab = tokenizer.vocab()});
    if (!opened.ok()) return use_again_error(opened.error(), built.directory);
    return built;
  }
  const fs::path partial = root / ("." + name + ".partial");
  if (!BuildJournal::exists(partial)) RETURN_IF_ERROR(base::remove_tree(partial));
  auto made = build_in(partial, plan, tokenizer);
  if (!made && made.error().code == ErrorCode::mismatch) {  // of the same bytes in other files: not worth going on with
    RETURN_IF_ERROR(base::remove_tree(partial));
    made = build_in(partial, plan, tokenizer);
  }
  if (!made) {
    // The first error is the one to report; what cannot be removed now is removed by the next build.
    static_cast<void>(base::remove_tree(partial));
    return made.error();
  }
  fs::rename(partial, built.directory, failed);
  if (failed) return base::file_error("rename to", built.directory, failed.value());
  RETURN_IF_ERROR(base::sync_directory(root));
  return built;
}

}  // namespace

Result<BuiltShards> build_shards(const fs::path& root, std::string_view text, const Tokenizer& tokenizer,
                                 const ShardOptions& options) {
  BuildPlan plan;
  plan.inputs.push_back(Input{.bytes = text.size(), .memory = text});
  return build_cached(root, std::move(plan), tokenizer, options);
}

Result<BuiltShards> build_shards_of_files(const fs::path& root, std::span<const fs::path> files,
                                          const Tokenizer& tokenizer, const ShardOptions& options) {
  BuildPlan plan;
  for (const fs::path& file : files) {
    std::error_code failed;
    if (!fs::is_regular_file(file, failed))
      return Error{failed || !fs::exists(file) ? ErrorCode::not_found : ErrorCode::io_error,
                   "corpus: cannot read the text file " + file.string() + ": there is no such file"};
    plan.inputs.push_back(Input{.name = file.string(), .path = file, .bytes = fs::file_size(file, failed)});
  }
  return build_cached(root, std::move(plan), tokenizer, options);
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
    return Error{ErrorCode::mismatch, "the token shards in " + directory.string() + " have a vocabulary of " +
                                          std::to_string(m.vocab) + " (" + m.tokenizer.name +
                                          ") and the model one of " + std::to_string(options.model_vocab) +
                                          ": set model.vocab=" + std::to_string(m.vocab) + " or use other shards"};
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
