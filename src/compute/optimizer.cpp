// The update loops and their factors. See optimizer.h.
#include "compute/optimizer.h"

#include <algorithm>
#include <cmath>

#include "compute/ahead.h"
#include "compute/clones.h"
#include "compute/sums.h"

namespace stagecoach::compute {
namespace {

using model::FloatKind;
using model::SumKind;

inline float mean_gradient(std::int64_t sum, double unit) { return static_cast<float>(static_cast<double>(sum) * unit); }
inline float mean_gradient(float sum, float unit) { return sum * unit; }
inline float mean_gradient(std::uint16_t sum, float unit) { return widen(sum) * unit; }

template <class Sum>
using UnitOf = std::conditional_t<std::is_same_v<Sum, std::int64_t>, double, float>;

inline void store_moment(float value, float& to) { to = value; }
inline void store_moment(float value, std::uint16_t& to) { to = nearest(value); }

/// Writes a weight, and its copy where it has one.
template <class State, bool kCopied>
[[gnu::always_inline]] inline void store_weight(float value, [[maybe_unused]] NoiseKey key, [[maybe_unused]] std::uint32_t element,
                                                State& to, [[maybe_unused]] std::uint16_t* __restrict copy) {
  if constexpr (std::is_same_v<State, float>) to = value;
  else to = stochastic(value, noise(key, element));
  if constexpr (kCopied) *copy = nearest(value);
}

template <class Sum, class State, bool kCopied>
[[gnu::always_inline]] inline void adam_loop(const UpdateFactors& f, const StatePiece& piece) {
  const auto* __restrict sums = static_cast<const Sum*>(piece.sums);
  auto* __restrict weight = static_cast<State*>(piece.weight);
  auto* __restrict moment = static_cast<State*>(piece.moment);
  auto* __restrict second_moment = static_cast<State*>(piece.second_moment);
  std::uint16_t* __restrict copy = piece.copy;
  const auto unit = static_cast<UnitOf<Sum>>(f.gradient_unit);
  const float decay = piece.decayed ? f.decay : 1.0f;
  const float one_minus_beta1 = f.one_minus_beta1, beta2 = f.beta2, one_minus_beta2 = f.one_minus_beta2;
  const float correction = f.second_correction, eps = f.eps;
  const float gradient_step = f.gradient_step, moment_step = f.moment_step;
  const NoiseKey key = noise_key_at(piece.noise, piece.first);
  const auto first = static_cast<std::uint32_t>(piece.first);
  const auto element = [&](std::int64_t i) [[gnu::always_inline]] {
    const float g = mean_gradient(sums[i], unit);
    const float m_before = widen(moment[i]);
    const float m = m_before + one_minus_beta1 * (g - m_before);
    const float v = widen(second_moment[i]) * beta2 + one_minus_beta2 * (g * g);
    const float denominator = std::sqrt(v) * correction + eps;
    store_moment(m, moment[i]);
    store_moment(v, second_moment[i]);
    const float w = widen(weight[i]) * decay - (gradient_step * g + moment_step * m) / denominator;
    store_weight<State, kCopied>(w, key, first + static_cast<std::uint32_t>(i), weight[i], copy + (kCopied ? i : 0));
  };
  if constexpr (kCopied) with_memory_ahead(piece.count, element, sums, weight, moment, second_moment, copy);
  else with_memory_ahead(piece.count, element, sums, weight, moment, second_moment);
}

template <class Sum, class State>
[[gnu::always_inline]] inline void momentum_loop(const UpdateFactors& f, const StatePiece& piece, float* __restrict direction) {
  const auto* __restrict sums = static_cast<const Sum*>(piece.sums);
  auto* __restrict moment = static_cast<State*>(piece.moment);
  const auto unit = static_cast<UnitOf<Sum>>(f.gradient_unit);
  const float momentum = f.muon_momentum, one_minus_momentum = f.one_minus_muon_momentum;
  const auto element = [&](std::int64_t i) [[gnu::always_inline]] {
    const float g = mean_gradient(sums[i], unit);
    const float m_before = widen(moment[i]);
    const float m = m_before + one_minus_momentum * (g - m_before);
    store_moment(m, moment[i]);
    direction[i] = g + momentum * (m - g);
  };
  with_memory_ahead(piece.count, element, sums, moment);
}

template <class State, bool kCopied>
[[gnu::always_inline]] inline void weight_loop(float decay, const StatePiece& piece, float rate, const float* __restrict direction) {
  auto* __restrict weight = static_cast<State*>(piece.weight);
  std::uint16_t* __restrict copy = piece.copy;
  const NoiseKey key = noise_key_at(piece.noise, piece.first);
  const auto first = static_cast<std::uint32_t>(piece.first);
  const std::int64_t count = piece.count;
  for (std::int64_t i = 0; i < count; ++i) {
    const float w = widen(weight[i]) * decay - rate * direction[i];
    store_weight<State, kCopied>(w, key, first + static_cast<std::uint32_t>(i), weight[i], copy + (kCopied ? i : 0));
  }
}

// One function a combination: the compiler makes several versions of each, but none of a template.
#define ADAM_LOOP(name, Sum, State, copied) \
  STAGECOACH_CLONES void name(const UpdateFactors& f, const StatePiece& piece) { adam_loop<Sum, State, copied>(f, piece); }
ADAM_LOOP(adam_fixed_f32, std::int64_t, float, false)
ADAM_LOOP(adam_fixed_f32_copied, std::int64_t, float, true)
ADAM_LOOP(adam_fixed_bf16, std::int64_t, std::uint16_t, false)
ADAM_LOOP(adam_f32_f32, float, float, false)
ADAM_LOOP(adam_f32_f32_copied, float, float, true)
ADAM_LOOP(adam_f32_bf16, float, std::uint16_t, false)
ADAM_LOOP(adam_bf16_f32, std::uint16_t, float, false)
ADAM_LOOP(adam_bf16_f32_copied, std::uint16_t, float, true)
ADAM_LOOP(adam_bf16_bf16, std::uint16_t, std::uint16_t, false)
#undef ADAM_LOOP

#define MOMENTUM_LOOP(name, Sum, State)                                                            \
  STAGECOACH_CLONES void name(const UpdateFactors& f, const StatePiece& piece, float* direction) { \
    momentum_loop<Sum, State>(f, piece, direction);                                                \
  }
MOMENTUM_LOOP(momentum_fixed_f32, std::int64_t, float)
MOMENTUM_LOOP(momentum_fixed_bf16, std::int64_t, std::uint16_t)
MOMENTUM_LOOP(momentum_f32_f32, float, float)
MOMENTUM_LOOP(momentum_f32_bf16, float, std::uint16_t)
MOMENTUM_LOOP(momentum_bf16_f32, std::uint16_t, float)
MOMENTUM_LOOP(momentum_bf16_bf16, std::uint16_t, std::uint16_t)
#undef MOMENTUM_LOOP

#define WEIGHT_LOOP(name, State, copied)                                                                    \
  STAGECOACH_CLONES void name(float decay, const StatePiece& piece, float rate, const float* direction) { \
    weight_loop<State, copied>(decay, piece, rate, direction);                                            \
  }
WEIGHT_LOOP(weight_f32, float, false)
WEIGHT_LOOP(weight_f32_copied, float, true)
WEIGHT_LOOP(weight_bf16, std::uint16_t, false)
#undef WEIGHT_LOOP

/// The one of three functions for int64, float32 and bfloat16 sums.
template <class Function>
Function by_sum(SumKind kind, Function fixed, Function f32, Function bf16) {
  return kind == SumKind::fixed64 ? fixed : kind == SumKind::float32 ? f32 : bf16;
}

}  // namespace

Optimizer::Optimizer(const model::TrainConfig& config) : optimizer_(config.optimizer), schedule_(config.schedule) {
  const model::BatchConfig& batch = config.batch;
  mean_gradient_unit_ =
      1.0 / sum_scale(config.numbers.sums, batch.tokens_per_microbatch()) / static_cast<double>(batch.tokens_per_step());
}

double Optimizer::momentum(std::uint64_t step) const {
  return optimizer_.beta1 * (1.0 - 0.5 * std::pow(0.96, static_cast<double>(step) * optimizer_.momentum_decay));
}

UpdateFactors Optimizer::factors(base::Step step, double global_norm) {
  const double t = static_cast<double>(step.value());
  const double rate = schedule_.rate(step);
  const double clip = optimizer_.clip_norm > 0 ? std::min(1.0, optimizer_.clip_norm / (global_norm + 1e-6)) : 1.0;
  UpdateFactors f;
  f.step = step;
  f.gradient_unit = mean_gradient_unit_ * clip;
  f.decay = static_cast<float>(1.0 - rate * optimizer_.weight_decay);
  f.one_minus_beta1 = static_cast<float>(1.0 - optimizer_.beta1);
  f.beta2 = static_cast<float>(optimizer_.beta2);
  f.one_minus_beta2 = static_cast<float>(1.0 - optimizer_.beta2);
  f.second_correction = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(optimizer_.beta2, t)));
  f.eps = static_cast<float>(optimizer_.eps);
  f.muon_rate = rate * optimizer_.muon_rate;
  f.muon_decay = static_cast<float>(1.0 - f.muon_rate * optimizer_.weight_decay);
  f.muon_momentum = static_cast<float>(optimizer_.muon_momentum);
  f.one_minus_muon_momentum = static_cast<float>(1.0 - optimizer_.muon_momentum);
  if (optimizer_.kind != model::OptimizerKind::nadam) {
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

void Optimizer::update(const UpdateFactors& factors, const StatePiece& piece) {
  if (piece.state_kind == FloatKind::bfloat16)
    return by_sum(piece.sum_kind, adam_fixed_bf16, adam_f32_bf16, adam_bf16_bf16)(factors, piece);
  if (piece.copy) return by_sum(piece.sum_kind, adam_fixed_f32_copied, adam_f32_f32_copied, adam_bf16_f32_copied)(factors, piece);
  by_sum(piece.sum_kind, adam_fixed_f32, adam_f32_f32, adam_bf16_f32)(factors, piece);
}

void Optimizer::muon_momentum(const UpdateFactors& factors, const StatePiece& piece, float* direction) {
  if (piece.state_kind == FloatKind::bfloat16)
    return by_sum(piece.sum_kind, momentum_fixed_bf16, momentum_f32_bf16, momentum_bf16_bf16)(factors, piece, direction);
  by_sum(piece.sum_kind, momentum_fixed_f32, momentum_f32_f32, momentum_bf16_f32)(factors, piece, direction);
}

void Optimizer::muon_weight(const UpdateFactors& factors, const StatePiece& piece, float rate, const float* direction) {
  const float decay = piece.decayed ? factors.muon_decay : 1.0f;
  if (piece.state_kind == FloatKind::bfloat16) return weight_bf16(decay, piece, rate, direction);
  (piece.copy ? weight_f32_copied : weight_f32)(decay, piece, rate, direction);
}

}  // namespace stagecoach::compute
