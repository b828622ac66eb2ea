// Checkpoints: the whole model's state in a folder that is complete or does not exist.
//
// In:      each stage's tensors under their global names, and what the run is. Out: <dir>/step-00000100/, and back.
// Thread:  any, one writer a folder (a lock sees to it); waits for the disk.
// Why:     a kill, a full disk or a rotten sector must never cost more than the steps since the checkpoint before.
//          Format: docs/formats/checkpoint.md.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/ids.h"
#include "base/result.h"
#include "base/tensor_bytes.h"
#include "model/config.h"

namespace stagecoach::store {

/// What a checkpoint belongs to.
struct CheckpointMeta {
  base::RunId run;
  std::string config_text;  // model::canonical_text(TrainConfig)
  base::Step step;          // the weights are those after its commit
  model::Split split;       // of the writer; any other loads it too
  std::string numerics_class;
  base::Sha256 shards_manifest;
};

/// One stage's file in a checkpoint.
struct CheckpointFile {
  base::StageIndex stage;
  std::string file;  // "stage-00.safetensors"
  std::uint64_t bytes = 0;
  base::Sha256 sha256;
};

struct CheckpointManifest {
  CheckpointMeta meta;
  std::vector<CheckpointFile> files;  // ascending by stage
  base::Sha256 weights_sha256;  // of the weights alone: equal for equal models, whatever split and optimizer state
  base::Sha256 state_sha256;    // of weights and optimizer state: equal for runs that go on alike
};

struct CheckpointOptions {
  std::size_t keep = 3;  // complete checkpoints, the newest ones; ≥ 1
};

/// Writes one checkpoint. Abandoned (destroyed before commit, or the process dies) it leaves nothing that is taken for
/// one.
class CheckpointWriter {
 public:
  /// Takes the folder for this process and removes what dead writers left in it.
  ///
  /// errors: unavailable  another process writes there · out_of_space · io_error
  static base::Result<CheckpointWriter> begin(const std::filesystem::path& directory, const CheckpointMeta& meta,
                                              const CheckpointOptions& options = {});
  CheckpointWriter(CheckpointWriter&&) = default;
  CheckpointWriter& operator=(CheckpointWriter&&) = delete;
  ~CheckpointWriter();

  /// Writes one stage's state, durably. Once for each stage, in any order.
  ///
  /// errors: invalid_argument  a stage or a tensor name twice, a stage beyond the split, bytes that do not fit a shape
  ///         out_of_space  says what to free; the older checkpoints are untouched · io_error
  base::Result<void> add_stage_file(base::StageIndex stage, std::span<const base::NamedTensor> tensors);

  /// Writes the manifest, gives the folder its name, then removes checkpoints beyond `keep`. Returns the checkpoint's
  /// path. A checkpoint of the same step is replaced in one move.
  ///
  /// errors: invalid_argument  a stage's file is missing · out_of_space · io_error  the older checkpoints are untouched
  base::Result<std::filesystem::path> commit();

 private:
  CheckpointWriter(std::filesystem::path directory, CheckpointMeta meta, CheckpointOptions options,
                   base::FileLock lock);
  base::Result<void> put_in_place(const std::filesystem::path& final_path);
  base::Result<void> prune() const;
  base::Error explained(const base::Error& error) const;

  struct PartialFolder {  // moved-from: empty
    std::filesystem::path path;
    PartialFolder(std::filesystem::path p) : path(std::move(p)) {}
    PartialFolder(PartialFolder&& other) noexcept : path(std::exchange(other.path, {})) {}
  };
  std::filesystem::path directory_;
  CheckpointManifest manifest_;
  CheckpointOptions options_;
  base::FileLock lock_;
  PartialFolder partial_;
  std::map<std::string, base::Sha256> tensor_hashes_;  // by global name
};

/// A checkpoint that must not be used.
struct DamagedCheckpoint {
  std::filesystem::path path;
  std::string reason;
};

struct NewestCheckpoint {
  std::filesystem::path path;
  CheckpointManifest manifest;
  std::vector<DamagedCheckpoint> damaged;  // newer ones that were passed over
  std::string report;                      // a sentence about those; empty where the newest is complete
};

/// "step-00000100"
std::string checkpoint_name(base::Step step);
/// "stage-00.safetensors"
std::string stage_file_name(base::StageIndex stage);

/// Folders with a checkpoint's name, newest step first; empty where `directory` is missing. Nothing is verified.
///
/// errors: io_error
base::Result<std::vector<std::filesystem::path>> list_checkpoints(const std::filesystem::path& directory);

/// The newest checkpoint whose files all have the hashes of its manifest.
///
/// errors: not_found  there is none, or corrupt  all are damaged: each with its reason · io_error
base::Result<NewestCheckpoint> newest_complete(const std::filesystem::path& directory);

/// The manifest of one checkpoint, files unread.
///
/// errors: not_found  no such checkpoint · corrupt · mismatch  another format version · io_error
base::Result<CheckpointManifest> read_checkpoint(const std::filesystem::path& path);

/// Compares every file with the manifest.
///
/// errors: corrupt  names the file and what is wrong with it · io_error
base::Result<void> verify_checkpoint(const std::filesystem::path& path, const CheckpointManifest& manifest);

/// The tensors of these names, in that order, from whichever files hold them; all tensors in name order where `names`
/// is none. Verifies the hash of each file.
///
/// errors: not_found  a name is in no file · those of read_checkpoint and verify_checkpoint
base::Result<std::vector<base::NamedTensor>> read_tensors(
    const std::filesystem::path& path, const std::optional<std::vector<std::string>>& names = std::nullopt);

/// The hash that checkpoints carry, of tensors in memory: to compare a run with a checkpoint or with another run.
/// Independent of the order given; optimizer state ("optimizer.…") is left out of weights_sha256.
base::Sha256 weights_sha256(std::span<const base::NamedTensor> tensors);
base::Sha256 state_sha256(std::span<const base::NamedTensor> tensors);

/// The bytes of manifest.json, and back.
///
/// errors: corrupt · mismatch  another format version
std::string canonical_text(const CheckpointManifest& manifest);
base::Result<CheckpointManifest> parse_checkpoint_manifest(const std::string& text);

}  // namespace stagecoach::store
