// Device: the compute thread's side of a worker: a brain's requests carried out by a compute::Stage.
//
// In:      worker::ComputeRequest values and a stage that was opened. Out: worker::ComputeResult values or errors.
// Thread:  compute. Made on the loop thread, used on the compute thread only.
// Why:     the one place where the words of the brain meet the words of torch's seam; it does no arithmetic of its own.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "compute/stage.h"
#include "data/batches.h"
#include "worker/brain.h"

namespace stagecoach::world::real {

class Device {
 public:
  struct Options {
    std::string library;  // path of libstagecoach_compute
    std::string device;   // "cpu", "cuda", "mps", "auto"
    compute::Recompute recompute = compute::Recompute::automatic;
    std::int64_t kept_bytes_max = 0;  // as in compute::StageOptions
  };

  /// What Prepare asks for, once state and shards are in local files.
  struct Setup {
    model::TrainConfig config;
    model::Split split;
    std::uint64_t stage = 0;
    int versions_kept = 1;
    base::WeightVersion version;
    std::vector<std::string> state_files;      // safetensors, where version > 0
    std::optional<std::string> shards_folder;  // at the head
  };

  explicit Device(Options options) : options_(std::move(options)) {}

  /// Opens the library and builds the stage.
  ///
  /// errors: those of open_library, of Stage, of the shards and the state files, with what was being done before them
  base::Result<worker::PrepareDone> prepare(const Setup& setup);

  /// errors: those of compute::Stage and of BatchCutter
  base::Result<worker::ComputeResult> run(const worker::ComputeRequest& request);

 private:
  base::Result<compute::StageInput> input(const worker::Input& from, worker::ComputeResult& result) const;
  base::Result<worker::ComputeResult> run_one(const worker::Forward& request);
  base::Result<worker::ComputeResult> run_one(const worker::Evaluate& request);
  base::Result<worker::ComputeResult> run_one(const worker::Backward& request);
  base::Result<worker::ComputeResult> run_one(const worker::ReadSum& request);
  base::Result<worker::ComputeResult> run_one(const worker::AddParts& request);
  base::Result<worker::ComputeResult> run_one(const worker::WriteReduced& request);
  base::Result<worker::ComputeResult> run_one(const worker::Apply& request);
  base::Result<worker::ComputeResult> run_one(const worker::ApplyNothing& request);
  base::Result<worker::ComputeResult> run_one(const worker::VoidAttemptsBefore& request);
  base::Result<worker::ComputeResult> run_one(const worker::ExportState& request);

  Options options_;
  std::unique_ptr<compute::Stage> stage_;
  std::optional<data::BatchCutter> cutter_;
};

}  // namespace stagecoach::world::real
