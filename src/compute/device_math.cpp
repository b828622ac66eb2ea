// The state's arithmetic in torch's operators. See state_math.h.
//
// A chunk of a tensor at a time: each operator makes a tensor of its own, and those of a whole embedding would be gigabytes.
#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "compute/state_math.h"

namespace stagecoach::compute {
namespace {

constexpr std::int64_t kChunk = 1 << 24;  // elements; a power of two, so that no chunk crosses the 2^32nd (noise_key_at)
constexpr double kFixedLimit = 0x1.0p51;

/// Calls work(first, count) for every chunk of `count` elements.
template <class Work>
void for_each_chunk(std::int64_t count, const Work& work) {
  for (std::int64_t first = 0; first < count; first += kChunk) work(first, std::min(kChunk, count - first));
}

at::Tensor mean_gradient(const at::Tensor& sums, const UpdateFactors& factors) {
  if (sums.scalar_type() == at::kLong) return (sums.to(at::kDouble) * factors.gradient_unit).to(at::kFloat);
  return sums.to(at::kFloat) * static_cast<float>(factors.gradient_unit);
}

/// noise() of float_bits.h for elements first … first + count − 1; 32-bit arithmetic inside int64, which torch multiplies.
at::Tensor noise_of(NoiseKey key, std::int64_t first, std::int64_t count, const at::Device& device) {
  constexpr std::int64_t kMask = 0xffffffff;
  key = noise_key_at(key, first);
  at::Tensor x = at::arange(count, at::TensorOptions(at::kLong).device(device));
  x.add_((first & kMask) + static_cast<std::int64_t>(key.low)).bitwise_and_(kMask);
  x.bitwise_xor_(at::bitwise_right_shift(x, 16));
  x.mul_(0x7feb352d).bitwise_and_(kMask).bitwise_xor_(static_cast<std::int64_t>(key.high));
  x.bitwise_xor_(at::bitwise_right_shift(x, 15));
  x.mul_(static_cast<std::int64_t>(0x846ca68b)).bitwise_and_(kMask);
  return at::bitwise_right_shift(x, 16).to(at::kInt);
}

/// Stores float32 values in a chunk of a weight, rounding stochastically where it is bfloat16, and in its copy.
void store_weight(const TensorState& state, std::int64_t first, const at::Tensor& values) {
  const std::int64_t count = values.numel();
  const at::Tensor weight = state.weight.narrow(0, first, count);
  if (weight.scalar_type() == at::kFloat) {
    weight.copy_(values);
    if (state.copy.defined()) state.copy.narrow(0, first, count).copy_(values);
    return;
  }
  const at::Tensor bits = values.view(at::kInt) + noise_of(state.noise, first, count, values.device());
  weight.copy_(at::bitwise_right_shift(bits, 16).to(at::kShort).view(at::kBFloat16));
}

class DeviceMath final : public StateMath {
 public:
  bool add_gradient(const at::Tensor& gradient, double scale, const at::Tensor& sums) const override {
    bool fits = true;
    for_each_chunk(sums.numel(), [&](std::int64_t first, std::int64_t count) {
      const at::Tensor from = gradient.narrow(0, first, count), to = sums.narrow(0, first, count);
      if (sums.scalar_type() == at::kLong) {
        const at::Tensor scaled = from.to(at::kDouble) * scale;
        fits = at::lt(scaled.abs(), kFixedLimit).all().item<bool>() && fits;  // NaN compares false
        to.add_(scaled.round().to(at::kLong));                                 // ties to even
      } else {
        const at::Tensor total = to.to(at::kFloat) + from.to(at::kFloat) * static_cast<float>(scale);
        fits = at::isfinite(total).all().item<bool>() && fits;
        to.copy_(total);
      }
    });
    return fits;
  }

  void subtract_gradient(const at::Tensor& gradient, double scale, const at::Tensor& sums) const override {
    CHECK(sums.scalar_type() == at::kLong, "only integers can be taken back to the bit");
    for_each_chunk(sums.numel(), [&](std::int64_t first, std::int64_t count) {
      sums.narrow(0, first, count).sub_((gradient.narrow(0, first, count).to(at::kDouble) * scale).round().to(at::kLong));
    });
  }

  std::vector<double> sums_of_squares(const std::vector<at::Tensor>& tensors, double unit) const override {
    std::vector<double> totals;
    for (const at::Tensor& sums : tensors) {
      double& total = totals.emplace_back(0);
      for_each_chunk(sums.numel(), [&](std::int64_t first, std::int64_t count) {
        total += (sums.narrow(0, first, count).to(at::kDouble) * unit).square().sum().item<double>();
      });
    }
    return totals;
  }

  void update(const UpdateFactors& f, const TensorState& state) const override {
    for_each_chunk(state.weight.numel(), [&](std::int64_t first, std::int64_t count) {
      const at::Tensor g = mean_gradient(state.sums.narrow(0, first, count), f);
      const at::Tensor moment = state.moment.narrow(0, first, count), second = state.second_moment.narrow(0, first, count);
      const at::Tensor m_before = moment.to(at::kFloat);
      const at::Tensor m = m_before + (g - m_before) * f.one_minus_beta1;
      const at::Tensor v = second.to(at::kFloat) * f.beta2 + g.square() * f.one_minus_beta2;
      moment.copy_(m);
      second.copy_(v);
      const at::Tensor denominator = v.sqrt().mul_(f.second_correction).add_(f.eps);
      at::Tensor change = m * f.moment_step;
      if (f.gradient_step != 0) change += g * f.gradient_step;
      const at::Tensor weight = state.weight.narrow(0, first, count).to(at::kFloat);
      store_weight(state, first, weight * (state.decayed ? f.decay : 1.0f) - change.div_(denominator));
    });
  }

  at::Tensor muon_momentum(const UpdateFactors& f, const TensorState& state) const override {
    at::Tensor direction = at::empty({state.weight.numel()}, state.weight.options().dtype(at::kFloat));
    for_each_chunk(state.weight.numel(), [&](std::int64_t first, std::int64_t count) {
      const at::Tensor g = mean_gradient(state.sums.narrow(0, first, count), f);
      const at::Tensor moment = state.moment.narrow(0, first, count);
      const at::Tensor before = moment.to(at::kFloat);
      const at::Tensor m = before + (g - before) * f.one_minus_muon_momentum;
      moment.copy_(m);
      direction.narrow(0, first, count).copy_(g + (m - g) * f.muon_momentum);
    });
    return direction;
  }

  void muon_weight(const UpdateFactors& f, const TensorState& state, float rate, const at::Tensor& direction) const override {
    for_each_chunk(state.weight.numel(), [&](std::int64_t first, std::int64_t count) {
      const at::Tensor weight = state.weight.narrow(0, first, count).to(at::kFloat);
      const at::Tensor step = direction.narrow(0, first, count) * rate;
      store_weight(state, first, weight * (state.decayed ? f.muon_decay : 1.0f) - step);
    });
  }
};

}  // namespace

const StateMath& device_math() {
  static const DeviceMath math;
  return math;
}

}  // namespace stagecoach::compute
