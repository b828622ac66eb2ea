// PacedDevice: a device that takes its time and computes nothing: provenance instead of numbers, a timer instead of kernels.
//
// In:      worker::ComputeRequest values. Out: the answers of a paced::ProvenanceStage, when the device would have had them.
// Thread:  compute; check() and the constructor on the loop thread.
// Why:     48 workers of a 100 B run fit on two cores, with everything real but the arithmetic (docs/formats/device.md).
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "world/paced/pace.h"
#include "world/paced/provenance.h"
#include "world/paced/tensors.h"
#include "world/real/device.h"

namespace stagecoach::world::real {

class PacedDevice {
 public:
  struct Options {
    paced::DeviceSpeed speed;
    double slowdown = 1;    // of arithmetic
    double bulk_scale = 1;  // share of its bytes that a reduce really carries
    bool recompute = true;
  };
  /// What is resident of sums, per worker, at most: a reduce holds its parts and its sums in memory.
  static constexpr std::int64_t kSumBytesMax = std::int64_t{1} << 30;

  explicit PacedDevice(Options options) : options_(std::move(options)) {}

  /// What the sizes of the worker's tensors will be; known before the device is prepared, on the loop thread.
  static paced::TensorSizes sizes_of(const Device::Setup& setup);

  /// errors: invalid_argument  times for other stages, tensors below eight bytes, sums beyond kSumBytesMax: what to change
  ///         corrupt, not_found  a state that is not of a paced run · those of SafetensorsFile
  base::Result<worker::PrepareDone> prepare(const Device::Setup& setup);

  /// Returns when the device would have done it: what was asked for at `asked` begins after what was asked for before.
  base::Result<worker::ComputeResult> run(const worker::ComputeRequest& request, base::Instant asked);
  /// When the work that run() returned last began, by the device's own clock.
  base::Instant began() const { return began_; }

 private:
  base::Result<void> restore(const Device::Setup& setup);
  double share_of(const worker::ComputeRequest& request) const;
  void name_as_checkpoint(std::vector<base::NamedTensor>& state) const;

  Options options_;
  paced::StageLoad load_;
  std::int64_t elements_ = 0;
  model::FloatKind state_kind_ = model::FloatKind::float32;
  std::optional<paced::ProvenanceStage> stage_;
  paced::Occupied occupied_;
  base::Instant began_;
};

}  // namespace stagecoach::world::real
