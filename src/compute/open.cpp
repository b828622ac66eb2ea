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

/// Keeps the memory of freed tensors. The allocator's defaults give it back to the kernel after every microbatch, and the page faults
/// that fetch it again take a fifth of a small stage's forward. Of a wide model they take little, since the arithmetic of a byte
/// grows with the width, while fragments of large kept blocks take a third of the stage's memory: there only small ones are kept.
void keep_freed_memory(const model::ModelConfig& model) {
#if defined(__GLIBC__)
  constexpr std::int64_t kWide = 1'024;
  constexpr int kKeptBlockBytesMax = 32 << 20;  // the most that glibc accepts
  constexpr int kKeptBlockBytesMaxWide = 4 << 20;
  constexpr int kTrimThresholdBytes = 256 << 20;
  mallopt(M_MMAP_THRESHOLD, model.dim < kWide ? kKeptBlockBytesMax : kKeptBlockBytesMaxWide);
  mallopt(M_TRIM_THRESHOLD, kTrimThresholdBytes);
#else
  static_cast<void>(model);
#endif
}

class TorchLibrary final : public Library {
 public:
  base::Result<std::unique_ptr<Stage>> make_stage(const StageOptions& options) override {
    keep_freed_memory(options.config.model);
    return LocalStage::make(options);
  }
  base::Result<std::unique_ptr<Generator>> make_generator(const model::ModelConfig& model,
                                                          const std::vector<base::NamedTensor>& weights,
                                                          int threads) override {
    keep_freed_memory(model);
    auto made = LocalGenerator::make(model, weights, threads);
    if (!made.ok()) return made.error();
    return std::unique_ptr<Generator>(std::move(*made));
  }
  std::string describe() const override { return describe_devices(); }
};

}  // namespace
}  // namespace stagecoach::compute

extern "C" __attribute__((visibility("default"))) stagecoach::compute::Library* stagecoach_compute_open() {
  static stagecoach::compute::TorchLibrary library;
  return &library;
}
