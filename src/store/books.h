// The coordinator's books: what must be on the disk before anybody is told (PROTOCOL B2, B6, B10, B11).
//
// In:      terms, views, commits, incarnations, checkpoints. Out: the same after a restart.
// Thread:  disk (one thread at a time); each write waits for the disk and is one transaction.
// Why:     a coordinator that restarts, or two that both believe to be it, must find and leave one consistent story.
//          Format: docs/formats/books.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace stagecoach::store {

/// What the run is. Written once.
struct RunRecord {
  base::RunId run;
  base::ConfigId config;
  std::string config_text;  // model::canonical_text(TrainConfig)
  std::string layout_text;  // model::canonical_text(Split)
  std::int64_t created_unix_s = 0;
  bool operator==(const RunRecord&) const = default;
};

struct ViewMember {
  base::PeerId peer;
  base::Incarnation incarnation;
  bool operator==(const ViewMember&) const = default;
};

/// Who is in a stage's group.
struct StageView {
  base::StageIndex stage;
  base::ViewNumber number;
  std::vector<ViewMember> members;
  bool operator==(const StageView&) const = default;
};

/// The views that one decision changed, with the attempt that holds from then on.
struct ViewRow {
  base::Attempt attempt;
  std::vector<StageView> views;
};

/// What a stage was prepared with.
struct StageResult {
  base::ViewNumber view;
  std::uint64_t hash = 0;
  bool operator==(const StageResult&) const = default;
};

/// One committed step (B6).
struct CommitRow {
  base::Step step;
  base::Attempt attempt;
  std::vector<StageResult> stages;  // by stage index
  double global_norm = 0;
  std::vector<double> train_losses;  // by microbatch index, nats summed over the microbatch
  std::vector<double> eval_losses;
};

enum class Standing : std::uint8_t { admitted, evicted };

/// One start of one peer that was ever admitted. An evicted one never comes back (B11).
struct IncarnationRow {
  base::PeerId peer;
  base::Incarnation incarnation;
  base::StageIndex stage;
  Standing standing = Standing::admitted;
  std::string reason;
  bool operator==(const IncarnationRow&) const = default;
};

struct CheckpointRow {
  base::Step step;
  std::string path;
  bool operator==(const CheckpointRow&) const = default;
};

/// All that a restart needs.
struct BookState {
  RunRecord run;
  base::Term term;                           // the newest; 0 before the first
  base::Attempt attempt;                     // the highest ever written: the next one is above it
  std::optional<CommitRow> newest_commit;    // none: nothing is committed, the step is 0
  std::vector<StageView> views;              // the newest of each stage, by stage
  std::vector<IncarnationRow> incarnations;  // all there ever were, by peer and incarnation
  std::vector<CheckpointRow> checkpoints;    // ascending by step
  base::Step newest_step() const { return newest_commit ? newest_commit->step : base::Step(); }
};

/// errors of every function: corrupt       damaged or not ours: restore it, or resume from a checkpoint with new books
///                           out_of_space  nothing was written
///                           unavailable   another process holds the file
///                           io_error
class Books {
 public:
  /// New books for a new run.
  ///
  /// errors: already_exists  there are books at `path`
  static base::Result<Books> create(const std::filesystem::path& path, const RunRecord& run);
  /// The books of an earlier start.
  ///
  /// errors: not_found · mismatch  another format version
  static base::Result<Books> open(const std::filesystem::path& path);
  /// As open, and they must be those of this run and config.
  ///
  /// errors: mismatch  another run, config or layout: says which
  static base::Result<Books> open_for(const std::filesystem::path& path, const RunRecord& expected);

  Books(Books&&) noexcept;
  Books& operator=(Books&&) noexcept;
  ~Books();

  /// Everything, as it stands on the disk.
  base::Result<BookState> load();

  /// Starts a new term, one above the newest. From then on writes under older ones are refused.
  base::Result<base::Term> begin_term();

  // Each write below is durable when it returns.
  // errors: refused  the term is not the newest (another coordinator took over: stop), or the function's rule is broken

  /// Rule: an attempt above all others, or the present one if this term opened it; each stage's number above its
  /// earlier ones.
  base::Result<void> write_view(base::Term term, const ViewRow& row);
  /// Rule: the step after the newest committed one, under the highest attempt.
  base::Result<void> write_commit(base::Term term, const CommitRow& row);
  /// Rule: what was evicted stays evicted.
  base::Result<void> write_incarnation(base::Term term, const IncarnationRow& row);
  /// Rule: of a committed step, or of step 0.
  base::Result<void> write_checkpoint(base::Term term, const CheckpointRow& row);
  /// Rolls back to a checkpoint: commits of later steps move into the table rolled_back, rows of later checkpoints go.
  /// Attempts stay used.
  ///
  /// Rule: not beyond the newest committed step.
  base::Result<void> truncate_after(base::Term term, base::Step step);

  /// The commits of steps first … last that there are, ascending.
  base::Result<std::vector<CommitRow>> commits(base::Step first, base::Step last);

 private:
  class Database;
  explicit Books(std::unique_ptr<Database> database);
  base::Result<RunRecord> read_run();
  std::unique_ptr<Database> database_;
};

}  // namespace stagecoach::store
