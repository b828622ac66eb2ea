// RunStore: everything durable of a run, behind the disk thread: the books, the checkpoints, the objects for joiners.
//
// In:      the brain's records and state chunks. Out: results, when the disk has them.
// Thread:  open() loop, before anything runs; all else on the disk thread.
// Why:     the brain says what must be written before what is said; this is the only place that writes it.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "fleet/brain.h"
#include "store/books.h"
#include "store/checkpoint.h"
#include "world/real/objects.h"

namespace stagecoach::world::real {

/// Takes the run's folder for this process: two that wrote there would each undo the other's steps.
///
/// errors: unavailable  another process runs this run · those of FileLock
base::Result<base::FileLock> lock_run(const std::filesystem::path& run_dir);

class RunStore {
 public:
  struct Options {
    std::filesystem::path run_dir;           // books.db and checkpoints/ lie here
    std::filesystem::path shards;            // folder of the token shards; unused where the run is paced
    bool resume = false;
    std::size_t keep_checkpoints = 3;
  };

  /// Creates the books of a new run, or opens those of an earlier start, begins a term and, on resume, rolls back to the newest
  /// complete checkpoint; newer ones, which no books know, are set aside. The caller holds lock_run(). Fills the parts of `fleet` that follow: run, term, attempts, step, objects.
  ///
  /// errors: already_exists  a run is there and resume was not asked for · not_found  there is none to resume
  ///         mismatch  another config, layout or data than the run's · those of Books and of checkpoints
  static base::Result<std::unique_ptr<RunStore>> open(Options options, fleet::Options& fleet);

  /// Sentences for the user about what was found on opening: damaged checkpoints that were passed over, commits to be redone.
  const std::vector<std::string>& findings() const { return findings_; }
  /// The checkpoint that the run goes on from; none where it begins at step 0.
  const std::optional<store::CheckpointRow>& resumed_from() const { return resumed_from_; }

  base::Result<void> write(const fleet::ViewRecord& record);
  base::Result<void> write(const fleet::CommitRecord& record);

  void begin_checkpoint(base::WeightVersion version);
  void add_chunk(base::StageIndex stage, const wire::StateChunk& chunk);
  void abandon_checkpoint();
  /// Writes the checkpoint that was begun. Returns its path.
  base::Result<std::string> finish_checkpoint(const std::string& numerics_class);

  wire::ObjectChunk read(const wire::ObjectRequest& request) const { return objects_.read(request); }

 private:
  explicit RunStore(Options options) : options_(std::move(options)) {}
  base::Result<void> open_books(fleet::Options& fleet);
  base::Result<void> offer_shards(fleet::Options& fleet);
  base::Result<void> go_back_to_checkpoint(fleet::Options& fleet);
  base::Result<void> set_aside_beyond(base::Step step, const std::string& why);
  base::Result<void> offer_state(const store::NewestCheckpoint& newest, fleet::Options& fleet);
  std::filesystem::path checkpoints() const { return options_.run_dir / "checkpoints"; }

  struct Gathered {
    base::DType dtype = base::DType::f32;
    std::vector<std::int64_t> shape;
    base::Bytes bytes;
  };

  Options options_;
  std::optional<store::Books> books_;      // always there after open()
  base::Term term_;
  store::CheckpointMeta meta_;
  ObjectServer objects_;
  std::vector<std::string> findings_;
  std::optional<store::CheckpointRow> resumed_from_;
  std::map<std::pair<base::PeerId, base::Incarnation>, store::Standing> standings_;
  std::map<base::StageIndex, std::map<std::string, Gathered>> gathered_;
};

}  // namespace stagecoach::world::real
