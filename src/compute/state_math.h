// The arithmetic over all of a stage's parameters, one tensor at a time: adding gradients, norms, updates.
//
// In/out:  flat tensors of one device: sums in int64 (fixed64), float32 or bfloat16; weights and moments in float32 or bfloat16.
// Thread:  compute, and torch's threads below it; the bits do not depend on how many.
// Why:     one seam with two sides: loops over this machine's memory (sums.h, optimizer.h), and torch's operators for devices
//          whose memory those cannot reach.
#pragma once

#include <memory>
#include <vector>

#include "compute/optimizer.h"
#include "compute/torch.h"

namespace stagecoach::compute {

at::ScalarType scalar_type(model::SumKind kind);
at::ScalarType scalar_type(model::FloatKind kind);

/// One parameter tensor's part of the state. All flat, of one length, contiguous.
struct TensorState {
  at::Tensor sums;           // the group's
  at::Tensor weight;         // in numbers.state
  at::Tensor copy;           // bfloat16, refreshed with the weight; undefined where the weight itself is computed with
  at::Tensor moment;         // in numbers.state
  at::Tensor second_moment;  // in numbers.state; undefined under Muon
  bool decayed = true;
  NoiseKey noise;            // rounds a bfloat16 weight
};

class StateMath {
 public:
  virtual ~StateMath() = default;

  /// sums += gradient · scale, rounded once. Returns false where a value does not fit (sums.h); everything was added all the same.
  [[nodiscard]] virtual bool add_gradient(const at::Tensor& gradient, double scale, const at::Tensor& sums) const = 0;

  /// Takes back, to the bit, what add_gradient added to fixed64 sums.
  virtual void subtract_gradient(const at::Tensor& gradient, double scale, const at::Tensor& sums) const = 0;

  /// Σ (sums · unit)² of each tensor, in fp64, in an order that depends on its length alone.
  virtual std::vector<double> sums_of_squares(const std::vector<at::Tensor>& tensors, double unit) const = 0;

  /// As Optimizer::update.
  virtual void update(const UpdateFactors& factors, const TensorState& state) const = 0;

  /// As Optimizer::muon_momentum; returns the direction, float32 and flat.
  virtual at::Tensor muon_momentum(const UpdateFactors& factors, const TensorState& state) const = 0;

  /// As Optimizer::muon_weight.
  virtual void muon_weight(const UpdateFactors& factors, const TensorState& state, float rate, const at::Tensor& direction) const = 0;
};

/// For tensors in this machine's memory.
const StateMath& host_math();

/// For tensors of any device that has float64 and int64. Sums of fixed64 are those of host_math() to the bit; all else differs from
/// it by the rounding of fp32 operations that a device may fuse.
const StateMath& device_math();

}  // namespace stagecoach::compute
