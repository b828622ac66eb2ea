// AdamW, NAdam and Muon's two elementwise halves over plain memory, one pass per tensor.
//
// In:      reduced sums, the step, the global norm. Out: weights and moments, changed in place.
// Thread:  any; plain memory, no torch. A tensor may be given in pieces, to several threads: the bits are the same.
// Why:     an update must not depend on where a tensor lies in a stage. Each element is the same few IEEE operations, in fp32,
//          whatever its neighbours; torch's kernels treat the tail of a vector otherwise than its body.
#pragma once

#include <cstdint>

#include "base/ids.h"
#include "compute/float_bits.h"
#include "model/config.h"

namespace stagecoach::compute {

/// What one step's updates have in common. Computed in fp64, used in fp32.
struct UpdateFactors {
  base::Step step;
  double gradient_unit = 0;     // mean gradient, clipped = sum · gradient_unit
  float decay = 1;              // decayed weights are multiplied by this first: 1 − lr · weight_decay
  float one_minus_beta1 = 0;
  float beta2 = 0;
  float one_minus_beta2 = 0;
  float second_correction = 1;  // 1 / sqrt(1 − β2^t)
  float eps = 0;
  float gradient_step = 0;      // weight −= gradient_step · g / denominator (NAdam; 0 in AdamW)
  float moment_step = 0;        // weight −= moment_step · m / denominator
  double muon_rate = 0;         // the schedule's rate × muon_rate
  float muon_decay = 1;         // 1 − that · weight_decay
  float muon_momentum = 0;
  float one_minus_muon_momentum = 0;
};

/// A piece of one tensor's memory: elements first … first + count − 1 of it. Pointers are to the piece.
struct StatePiece {
  std::int64_t first = 0;
  std::int64_t count = 0;
  model::SumKind sum_kind = model::SumKind::fixed64;
  const void* sums = nullptr;       // int64, float32 or bfloat16
  model::FloatKind state_kind = model::FloatKind::float32;
  void* weight = nullptr;           // of state_kind
  std::uint16_t* copy = nullptr;    // the weight to the nearest bfloat16, where a float32 weight is multiplied with in bfloat16
  void* moment = nullptr;           // of state_kind: exponential mean of g (Muon: its momentum)
  void* second_moment = nullptr;    // of state_kind: of g²; null under Muon
  bool decayed = true;
  NoiseKey noise;                   // of the tensor; rounds a bfloat16 weight
};

class Optimizer {
 public:
  explicit Optimizer(const model::TrainConfig& config);

  /// The factors of `step`: clipping as torch.nn.utils.clip_grad_norm_, bias corrections and NAdam's product of momenta from the
  /// step's number alone, so that nothing of them needs to be stored.
  UpdateFactors factors(base::Step step, double global_norm);

  /// torch.optim.AdamW, or torch.optim.NAdam with decoupled_weight_decay (Loshchilov & Hutter 2019; Dozat 2016). Computed in
  /// fp32; a bfloat16 weight is rounded stochastically, bfloat16 moments to the nearest.
  static void update(const UpdateFactors& factors, const StatePiece& piece);

  /// Muon's first half: steps the momentum and writes what is to be orthogonalised, g + μ·(momentum − g) (Nesterov), as fp32.
  static void muon_momentum(const UpdateFactors& factors, const StatePiece& piece, float* direction);

  /// Muon's second half: decays the weight and takes `rate` · direction from it.
  static void muon_weight(const UpdateFactors& factors, const StatePiece& piece, float rate, const float* direction);

  /// Mean gradient = sum · unit: the sums' unit over the step's tokens.
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
