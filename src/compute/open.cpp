// The one symbol that the compute library exports.
#if __has_include(<malloc.h>)
#include <malloc.h>
#endif

#include "compute/device.h"
#include "compute/local_generator.h"
#include "compute/local_stage.h"
#include "compute/stage.h"

namespace stagecoach::compute {
namespace {

class TorchLibrary final : public Library {
 public:
  base::Result<std::unique_ptr<Stage>> make_stage(const StageOptions& options) override { return LocalStage::make(options); }
  base::Result<std::unique_ptr<Generator>> make_generator(const model::ModelConfig& model,
                                                          const std::vector<base::NamedTensor>& weights,
                                                          int threads) override {
    auto made = LocalGenerator::make(model, weights, threads);
    if (!made.ok()) return made.error();
    return std::unique_ptr<Generator>(std::move(*made));
  }
  std::string describe() const override { return describe_devices(); }
};

/// Keeps the memory of freed tensors. The allocator's defaults give it back to the kernel after every microbatch, and the page faults
/// that fetch it again take a fifth of a small stage's forward.
void keep_freed_memory() {
#if defined(__GLIBC__)
  constexpr int kMmapThresholdBytes = 32 << 20;  // the most that glibc accepts
  constexpr int kTrimThresholdBytes = 256 << 20;
  mallopt(M_MMAP_THRESHOLD, kMmapThresholdBytes);
  mallopt(M_TRIM_THRESHOLD, kTrimThresholdBytes);
#endif
}

}  // namespace
}  // namespace stagecoach::compute

extern "C" __attribute__((visibility("default"))) stagecoach::compute::Library* stagecoach_compute_open() {
  static stagecoach::compute::TorchLibrary library;
  static const bool memory_is_kept = (stagecoach::compute::keep_freed_memory(), true);
  static_cast<void>(memory_is_kept);
  return &library;
}
