// The update loop and its factors. See optimizer.h.
#include "compute/optimizer.h"

#include <algorithm>
#include <cmath>

#include "compute/clones.h"
#include "compute/fixed64.h"

namespace stagecoach::compute {
namespace {

STAGECOACH_CLONES void update_elements(const UpdateFactors& f, float decay, std::int64_t count,
                                       const std::int64_t* __restrict sums, float* __restrict weight,
                                       float* __restrict moment, float* __restrict second_moment) {
  const double unit = f.gradient_unit;
  const float one_minus_beta1 = f.one_minus_beta1, beta2 = f.beta2, one_minus_beta2 = f.one_minus_beta2;
  const float correction = f.second_correction, eps = f.eps;
  const float gradient_step = f.gradient_step, moment_step = f.moment_step;
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = static_cast<float>(static_cast<double>(sums[i]) * unit);
    const float m = moment[i] + one_minus_beta1 * (g - moment[i]);
    const float v = second_moment[i] * beta2 + one_minus_beta2 * (g * g);
    const float denominator = std::sqrt(v) * correction + eps;
    moment[i] = m;
    second_moment[i] = v;
    weight[i] = weight[i] * decay - (gradient_step * g + moment_step * m) / denominator;
  }
}

}  // namespace

Optimizer::Optimizer(const model::TrainConfig& config) : optimizer_(config.optimizer), schedule_(config.schedule) {
  const model::BatchConfig& batch = config.batch;
  mean_gradient_unit_ = 1.0 / fixed64_scale(batch.sequences * batch.tokens) / static_cast<double>(batch.tokens_per_step());
}

double Optimizer::momentum(std::uint64_t step) const {
  return optimizer_.beta1 * (1.0 - 0.5 * std::pow(0.96, static_cast<double>(step) * optimizer_.momentum_decay));
}

UpdateFactors Optimizer::factors(base::Step step, double global_norm) {
  const double t = static_cast<double>(step.value());
  const double rate = schedule_.rate(step);
  const double clip = optimizer_.clip_norm > 0 ? std::min(1.0, optimizer_.clip_norm / (global_norm + 1e-6)) : 1.0;
  UpdateFactors f;
  f.gradient_unit = mean_gradient_unit_ * clip;
  f.decay = static_cast<float>(1.0 - rate * optimizer_.weight_decay);
  f.one_minus_beta1 = static_cast<float>(1.0 - optimizer_.beta1);
  f.beta2 = static_cast<float>(optimizer_.beta2);
  f.one_minus_beta2 = static_cast<float>(1.0 - optimizer_.beta2);
  f.second_correction = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(optimizer_.beta2, t)));
  f.eps = static_cast<float>(optimizer_.eps);
  if (optimizer_.kind == model::OptimizerKind::adamw) {
    f.moment_step = static_cast<float>(rate / (1.0 - std::pow(optimizer_.beta1, t)));
    return f;
  }
  if (product_step_ > step.value()) {
    product_step_ = 0;
    momentum_product_ = 1;
  }
  while (product_step_ < step.value()) momentum_product_ *= momentum(++product_step_);
  const double now = momentum(step.value());
  const double next = momentum(step.value() + 1);
  f.gradient_step = static_cast<float>(rate * (1.0 - now) / (1.0 - momentum_product_));
  f.moment_step = static_cast<float>(rate * next / (1.0 - momentum_product_ * next));
  return f;
}

void Optimizer::update(const UpdateFactors& factors, const UpdatedTensor& tensor) {
  update_elements(factors, tensor.decayed ? factors.decay : 1.0f, tensor.count, tensor.sums, tensor.weight, tensor.moment,
                  tensor.second_moment);
}

}  // namespace stagecoach::compute
