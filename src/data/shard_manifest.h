// The manifest of a set of token shards: what they hold, how they are divided, and their hashes.
//
// In:      manifest.json. Out: a checked struct, and back. Format: docs/formats/shards.md.
// Thread:  any; plain values.
// Why:     its hash names the data of a run: peers, checkpoints and joiners compare that one value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "data/tokenizer.h"

namespace stagecoach::data {

inline constexpr std::int64_t kManifestVersion = 2;
inline constexpr std::int64_t kManifestVersionWithoutDocuments = 1;  // read, and no longer written
inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr std::size_t kShardHeaderBytes = 32;
inline constexpr std::size_t kShardManifestBytesMax = 64u << 20;
inline constexpr std::int64_t kTokensMax = std::int64_t{1} << 44;
inline constexpr std::int64_t kVocabMax = std::int64_t{1} << 31;

/// One shard file.
struct ShardInfo {
  std::string file;               // shard_file_name(position)
  std::int64_t tokens = 0;        // > 0
  base::Sha256 sha256;            // of the whole file
  std::int64_t documents = 0;     // that begin in it
  base::Sha256 documents_sha256;  // of the file that says where
  bool operator==(const ShardInfo&) const = default;
};

/// One file that the shards were made of.
struct SourceInfo {
  std::string format;       // as data::to_string(InputFormat) names it
  std::uint64_t bytes = 0;  // of the file as it lay there
  base::Sha256 sha256;      // of the same
  bool operator==(const SourceInfo&) const = default;
};

struct ShardManifest {
  std::int64_t version = kManifestVersion;
  TokenizerId tokenizer;
  std::int64_t vocab = 0;
  std::int64_t token_bytes = 0;                 // 1, 2 or 4, little-endian
  std::optional<std::int32_t> end_of_document;  // the id that stands after each document
  std::string text_field;                       // of JSONL and Parquet
  std::vector<SourceInfo> sources;
  std::int64_t tokens_per_shard = 0;  // in all shards but the last
  std::int64_t documents = 0;
  std::int64_t empty_documents = 0;  // left out, for they gave no token
  std::int64_t broken_records = 0;   // lines, rows and files left out
  std::int64_t text_bytes = 0;       // of the documents' texts
  double holdout_fraction = 0;       // as asked for
  std::int64_t train_tokens = 0;     // the first ones; the rest is validation
  std::int64_t validation_tokens = 0;
  std::vector<ShardInfo> shards;

  bool operator==(const ShardManifest&) const = default;
  std::int64_t tokens() const { return train_tokens + validation_tokens; }
};

/// "shard-00000.tokens"
std::string shard_file_name(std::size_t position);

/// "shard-00000.documents"
std::string document_file_name(std::size_t position);

/// 1 up to 256 ids, 2 up to 65,536, else 4.
std::int64_t token_bytes_for(std::int64_t vocab);

/// How many of `tokens` are held out: the last ⌊tokens · fraction⌋.
std::int64_t validation_tokens_of(std::int64_t tokens, double holdout_fraction);

/// The bytes of manifest.json in the newest version: keys sorted, two spaces of indent, a newline at the end. Their
/// SHA-256 is the manifest hash.
std::string canonical_text(const ShardManifest& manifest);

/// errors: corrupt   not a manifest, or its numbers contradict each other: says where
///         mismatch  of another format version
base::Result<ShardManifest> parse_shard_manifest(const std::string& text);

}  // namespace stagecoach::data
