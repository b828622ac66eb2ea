// The manifest of a set of token shards: what they hold, how they are divided, and their hashes.
//
// In:      manifest.json. Out: a checked struct, and back. Format: docs/formats/shards.md.
// Thread:  any; plain values.
// Why:     its hash names the data of a run: peers, checkpoints and joiners compare that one value.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "data/tokenizer.h"

namespace stagecoach::data {

inline constexpr std::int64_t kShardFormatVersion = 1;
inline constexpr std::size_t kShardHeaderBytes = 32;
inline constexpr std::size_t kShardManifestBytesMax = 16u << 20;
inline constexpr std::int64_t kTokensMax = std::int64_t{1} << 44;
inline constexpr std::int64_t kVocabMax = std::int64_t{1} << 31;

/// One shard file.
struct ShardInfo {
  std::string file;         // shard_file_name(position)
  std::int64_t tokens = 0;  // > 0
  base::Sha256 sha256;      // of the whole file
  bool operator==(const ShardInfo&) const = default;
};

struct ShardManifest {
  TokenizerId tokenizer;
  std::int64_t vocab = 0;
  std::int64_t token_bytes = 0;   // 1, 2 or 4, little-endian
  base::Sha256 source_sha256;     // of the text
  double holdout_fraction = 0;    // as asked for
  std::int64_t train_tokens = 0;  // the first ones; the rest is validation
  std::int64_t validation_tokens = 0;
  std::vector<ShardInfo> shards;

  bool operator==(const ShardManifest&) const = default;
  std::int64_t tokens() const { return train_tokens + validation_tokens; }
};

/// "shard-00000.tokens"
std::string shard_file_name(std::size_t position);

/// 1 up to 256 ids, 2 up to 65,536, else 4.
std::int64_t token_bytes_for(std::int64_t vocab);

/// The bytes of manifest.json: keys sorted, two spaces of indent, a newline at the end. Their SHA-256 is the manifest
/// hash.
std::string canonical_text(const ShardManifest& manifest);

/// errors: corrupt   not a manifest, or its numbers contradict each other: says where
///         mismatch  of another format version
base::Result<ShardManifest> parse_shard_manifest(const std::string& text);

}  // namespace stagecoach::data
