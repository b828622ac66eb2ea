// AdamW and NAdam over plain memory, one pass per tensor.
//
// In:      reduced fixed64 sums, the step, the global norm. Out: weights and moments, changed in place.
// Thread:  compute; plain memory, no torch.
// Why:     an update must not depend on where a tensor lies in a stage. Each element is the same few IEEE operations, in fp32,
//          whatever its neighbours; torch's kernels treat the tail of a vector otherwise than its body.
#pragma once

#include <cstdint>

#include "base/ids.h"
#include "model/config.h"

namespace stagecoach::compute {

/// What one step's updates have in common. Computed in fp64, used in fp32.
struct UpdateFactors {
  double gradient_unit = 0;     // mean gradient, clipped = sum · gradient_unit
  float decay = 1;              // decayed weights are multiplied by this first: 1 − lr · weight_decay
  float one_minus_beta1 = 0;
  float beta2 = 0;
  float one_minus_beta2 = 0;
  float second_correction = 1;  // 1 / sqrt(1 − β2^t)
  float eps = 0;
  float gradient_step = 0;      // weight −= gradient_step · g / denominator (NAdam; 0 in AdamW)
  float moment_step = 0;        // weight −= moment_step · m / denominator
};

/// One tensor's memory.
struct UpdatedTensor {
  std::int64_t count = 0;
  const std::int64_t* sums = nullptr;
  float* weight = nullptr;
  float* moment = nullptr;         // exponential mean of g
  float* second_moment = nullptr;  // of g²
  bool decayed = true;
};

class Optimizer {
 public:
  explicit Optimizer(const model::TrainConfig& config);

  /// The factors of `step`: clipping as torch.nn.utils.clip_grad_norm_, bias corrections and NAdam's product of momenta from the
  /// step's number alone, so that nothing of them needs to be stored.
  UpdateFactors factors(base::Step step, double global_norm);

  /// torch.optim.AdamW, or torch.optim.NAdam with decoupled_weight_decay (Loshchilov & Hutter 2019; Dozat 2016).
  static void update(const UpdateFactors& factors, const UpdatedTensor& tensor);

  /// Mean gradient = sum · unit: fixed64's unit over the step's tokens.
  double mean_gradient_unit() const { return mean_gradient_unit_; }

 private:
  double momentum(std::uint64_t step) const;

  const model::OptimizerConfig optimizer_;
  const model::ScheduleConfig schedule_;
  double mean_gradient_unit_ = 0;
  std::uint64_t product_step_ = 0;  // momentum_product_ is over steps 1 … product_step_
  double momentum_product_ = 1;
};

}  // namespace stagecoach::compute
