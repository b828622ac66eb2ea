// Writes token shards, front to back: the only code that does.
//
// In:      packed ids and the positions at which documents begin.
// Out:     shard-00000.tokens, shard-00000.documents, … in a folder. Format: docs/formats/shards.md.
// Thread:  one; waits for the disk. Holds no tokens.
// Why:     every corpus, whatever it was and whoever tokenised it, ends in the same files by the same hand.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <span>

#include "base/files.h"
#include "data/shard_manifest.h"
#include "digest/digest.h"

namespace stagecoach::data {

/// The first 32 bytes of a shard.
base::Bytes shard_header(std::int64_t vocab, std::int64_t tokens);
/// The first 32 bytes of the file that says where documents begin.
base::Bytes document_header(std::int64_t first_token, std::int64_t first_document);

class ShardWriter {
 public:
  struct Layout {
    std::int64_t vocab = 0;
    std::int64_t tokens_per_shard = 0;
  };
  /// Called when a shard and its documents are on the disk.
  using OnShard = std::function<base::Result<void>(const ShardInfo&)>;

  ShardWriter(std::filesystem::path directory, const Layout& layout, OnShard on_shard);

  /// Goes on after shards that are whole. The next append may begin before their end: what they hold already is passed
  /// over.
  ///
  /// `position`: of the first token of the next append; `documents`: those that begin before it.
  void go_on(std::vector<ShardInfo> whole, std::int64_t position, std::int64_t documents);

  /// Adds tokens; `starts` are positions in them, ascending, at which documents begin.
  ///
  /// errors: those of base::FileWriter and of on_shard
  base::Result<void> append(std::span<const std::byte> packed, std::span<const std::uint64_t> starts);

  /// Ends the last shard, which may be shorter.
  ///
  /// errors: as append
  base::Result<void> finish();

  std::int64_t position() const { return position_; }
  std::int64_t documents() const { return documents_; }
  const std::vector<ShardInfo>& shards() const { return shards_; }

 private:
  /// A file with its hash.
  struct HashedFile {
    base::FileWriter file;
    digest::Sha256Stream hash;
    base::Result<void> write(std::span<const std::byte> bytes);
  };
  struct Open {
    HashedFile tokens, documents;
    ShardInfo info;
  };
  base::Result<HashedFile> create(const std::string& name, const base::Bytes& header) const;
  base::Result<void> begin_shard();
  base::Result<void> end_shard();
  /// Gives a shard that ended early its own number of tokens, and returns the hash of what it then is.
  base::Result<base::Sha256> correct_header(const ShardInfo& info) const;

  std::filesystem::path directory_;
  Layout layout_;
  std::size_t token_bytes_;
  OnShard on_shard_;
  std::vector<ShardInfo> shards_;
  std::optional<Open> open_;
  std::int64_t position_ = 0;
  std::int64_t written_ = 0;    // tokens on the disk or in the open shard
  std::int64_t documents_ = 0;  // that begin before position_
};

}  // namespace stagecoach::data
