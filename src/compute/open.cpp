// The one symbol that the compute library exports.
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

}  // namespace
}  // namespace stagecoach::compute

extern "C" __attribute__((visibility("default"))) stagecoach::compute::Library* stagecoach_compute_open() {
  static stagecoach::compute::TorchLibrary library;
  return &library;
}
