// Token shards: a corpus as files of fixed-width token ids, complete or not there.
//
// In:      text, or text files, and a tokenizer; later the folder. Out: token ids by position, first training then
// validation. Thread:  any; open shards are immutable. Building and opening wait for the disk. Why:     any worker cuts
// any microbatch from these files alone; equal manifest hashes say that two hold the same ones.
//          Format: docs/formats/shards.md.
#pragma once

#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "data/shard_manifest.h"
#include "data/tokenizer.h"

namespace stagecoach::data {

struct ShardOptions {
  double holdout_fraction = 0.05;  // of the tokens, the last ones, for validation; in (0, 1)
  std::int64_t tokens_per_shard = std::int64_t{1} << 28;
};

struct BuiltShards {
  std::filesystem::path directory;
  bool reused = false;  // shards of the same text, tokenizer and options were already there
};

/// Cuts `text` into shards in a folder of `root` that is named after tokenizer, text and options, or finds them there.
/// The text is one document, without a mark at its end. Several processes may do this at once: one builds, the others
/// wait and reuse.
///
/// errors: invalid_argument  the corpus is empty, or an option is out of range
///         corrupt, mismatch  a folder of that name holds something else: says what to remove
///         out_of_space · io_error  nothing is left behind
base::Result<BuiltShards> build_shards(const std::filesystem::path& root, std::string_view text,
                                       const Tokenizer& tokenizer, const ShardOptions& options = {});

/// The same from text files, in order; each is one document. They are read twice and never held.
///
/// errors: as above, and not_found
base::Result<BuiltShards> build_shards_of_files(const std::filesystem::path& root,
                                                std::span<const std::filesystem::path> files,
                                                const Tokenizer& tokenizer, const ShardOptions& options = {});

/// Shards that were checked and are mapped.
class TokenShards {
 public:
  struct OpenOptions {
    std::int64_t model_vocab = 0;  // what the model was built for; 0 = do not compare
    bool verify_hashes = false;    // read everything once and compare SHA-256
  };
  /// errors: not_found  no manifest there: no shards, or an unfinished copy
  ///         corrupt    a file is truncated, too long or not what the manifest says: names file, expected and found
  ///         mismatch   another vocabulary than the model's, or another format version
  ///         io_error
  static base::Result<TokenShards> open(const std::filesystem::path& directory, const OpenOptions& options);

  const std::filesystem::path& directory() const { return directory_; }
  const ShardManifest& manifest() const { return manifest_; }
  /// SHA-256 of manifest.json: the name of this data everywhere.
  const base::Sha256& manifest_hash() const { return manifest_hash_; }
  std::int64_t tokens() const { return manifest_.tokens(); }

  /// Fills `out` with the tokens from position `first` on, which must lie inside [0, tokens()).
  ///
  /// errors: corrupt  an id is not in the vocabulary: the shard was damaged after it was built
  base::Result<void> copy(std::int64_t first, std::span<std::int32_t> out) const;

 private:
  struct Shard {
    base::MappedFile file;
    std::int64_t first = 0;  // position of its first token
  };
  TokenShards() = default;
  std::filesystem::path directory_;
  ShardManifest manifest_;
  base::Sha256 manifest_hash_;
  std::vector<Shard> shards_;
};

}  // namespace stagecoach::data
