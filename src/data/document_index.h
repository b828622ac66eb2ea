// Where documents begin in token shards.
//
// In:      a folder of shards and its manifest. Out: documents by number, as ranges of tokens.
// Thread:  any; immutable.
// Why:     training reads windows and needs no documents; whoever looks at data does, and pays for this alone.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"
#include "data/shard_manifest.h"

namespace stagecoach::data {

/// The tokens [first, end) of the whole of the shards; the document's own mark is the last of them.
struct DocumentRange {
  std::int64_t first = 0, end = 0;
};

/// What is wrong with the bytes of a .documents file of `shard`, which holds the tokens from `first_token` on and
/// before which `first_document` documents begin; empty = nothing.
std::string problem_of_documents(std::span<const std::byte> file, const ShardInfo& shard, std::int64_t first_token,
                                 std::int64_t first_document);

class DocumentIndex {
 public:
  /// errors: not_found  the shards are of a format that has no documents
  ///         corrupt    a file is missing, or not what the manifest says: names it
  ///         io_error
  static base::Result<DocumentIndex> open(const std::filesystem::path& directory, const ShardManifest& manifest);

  std::int64_t documents() const { return documents_; }
  /// `number` is in [0, documents()).
  DocumentRange at(std::int64_t number) const;
  /// All of them, in order, faster than one by one.
  void for_each(const std::function<void(const DocumentRange&)>& take) const;

 private:
  struct File {
    base::MappedFile bytes;
    std::int64_t first = 0, count = 0;  // of the documents that begin in its shard
  };
  DocumentIndex() = default;
  std::int64_t start_of(const File& file, std::int64_t place) const;

  std::vector<File> files_;  // those with documents
  std::int64_t documents_ = 0, tokens_ = 0;
};

}  // namespace stagecoach::data
