// How far a build of shards has come, on the disk: what a restart goes on from.
//
// In:      a folder. Out: build.json (what is being built) and shard-00000.done for each shard that is whole.
// Thread:  one; waits for the disk.
// Why:     a build of a terabyte is killed some time, and what is finished must not be made twice.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/input.h"
#include "data/shard_manifest.h"

namespace stagecoach::data {

/// The state of a build before a block.
struct BuildCursor {
  std::uint64_t input = 0;     // the block's
  Place at;                    // where it begins
  std::int64_t position = 0;   // tokens before it
  std::int64_t documents = 0;  // that begin before it
  bool in_document = false;    // a text has begun and has given a token
  std::int64_t empty = 0;
  std::int64_t broken = 0;
  std::int64_t text_bytes = 0;
  bool operator==(const BuildCursor&) const = default;
};

/// What is whole, and the block to begin again with.
struct BuildState {
  std::vector<ShardInfo> shards;
  std::vector<SourceEnd> sources;  // of the inputs before the cursor's
  BuildCursor cursor;
};

class BuildJournal {
 public:
  /// Takes up the journal in `directory`, or begins one. `what` names all that decides how the shards come out, as
  /// lines "key=value".
  ///
  /// errors: mismatch  it is the journal of another build: names the first difference
  ///         already_exists  the folder holds files, and no journal · io_error and the others of base/files.h
  static base::Result<BuildJournal> open(const std::filesystem::path& directory, const std::string& what);

  const BuildState& state() const { return state_; }

  /// Writes that a shard is whole and that `cursor` is the state before the block in which it ended; `sources` are
  /// those of all inputs before that.
  base::Result<void> record(const ShardInfo& shard, const BuildCursor& cursor, std::span<const SourceEnd> sources);

  /// Removes what open and record wrote: the shards are complete.
  static base::Result<void> remove(const std::filesystem::path& directory);

  static bool exists(const std::filesystem::path& directory);

 private:
  explicit BuildJournal(std::filesystem::path directory) : directory_(std::move(directory)) {}
  base::Result<void> load();

  std::filesystem::path directory_;
  BuildState state_;
};

/// The text of a .done file, and back; `state` is what the files before it came to.
std::string journal_entry(const ShardInfo& shard, const BuildCursor& cursor, std::span<const SourceEnd> sources);
/// errors: corrupt
base::Result<void> add_journal_entry(const std::string& text, BuildState& state);

/// Writes a file under another name, syncs it and renames it: there is all of it or none.
base::Result<void> write_whole_file(const std::filesystem::path& path, std::string_view text);

}  // namespace stagecoach::data
