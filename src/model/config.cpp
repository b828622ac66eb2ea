// What follows from a config alone: boundary widths, the learning rate, the plan of a step, all that is wrong with it.
// The split is in split.cpp, the canonical text in canonical.cpp.
#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <sstream>

namespace stagecoach::model {
namespace {

/// Collects one sentence per key that is wrong.
class Problems {
 public:
  /// `value` must lie in [low, high]; returns whether it does.
  template <class Number>
  bool between(const char* key, Number value, Number low, Number high) {
    if (value >= low && value <= high) return true;  // false for NaN too
    std::ostringstream text;
    text << key << " must be between " << low << " and " << high << ", not " << value;
    sentences_.push_back(text.str());
    return false;
  }
  void unless(bool fine, const std::string& sentence) {
    if (!fine) sentences_.push_back(sentence);
  }
  std::vector<std::string> take() { return std::move(sentences_); }

 private:
  std::vector<std::string> sentences_;
};

std::string number(std::int64_t value) { return std::to_string(value); }

// The bounds keep every product of two dimensions, and the whole model's element count, far inside 64 bits.
constexpr std::int64_t kVocabMax = 1 << 24;
constexpr std::int64_t kDimMax = 1 << 20;
constexpr std::int64_t kLayersMax = 1'000;  // names carry three digits
constexpr std::int64_t kFfnMax = 1 << 22;
constexpr std::int64_t kTokenWindowMax = 64;
constexpr std::int64_t kStepsMax = 1'000'000'000'000;
constexpr std::int64_t kMicrobatchTokensMax = 1 << 24;
constexpr std::int64_t kMicrobatchesMax = 4'096;  // fixed64 sums stay inside int64 (DESIGN §5)

void check_cuts(const ModelConfig& model, bool dimensions_fine, Problems& problems) {
  if (model.cut_kind == CutKind::none) return;  // edges may lie after any layer: the list says nothing
  if (!dimensions_fine) return;
  problems.between<std::int64_t>("model.cut_width", model.cut_width, 1, model.dim);
  if (model.cut_kind == CutKind::resbm_tokens) {
    problems.between<std::int64_t>("model.token_rank", model.token_rank, 1, model.dim);
    problems.between<std::int64_t>("model.token_window", model.token_window, 1, kTokenWindowMax);
  }
  std::int64_t previous = -1;
  for (const std::int64_t layer : model.cut_after) {
    if (layer <= previous || layer > model.layers - 2) {
      problems.unless(false, "model.cut_after must be ascending layers between 0 and " + number(model.layers - 2) +
                                 " (a cut lies between two layers), but it holds " + number(layer) +
                                 (previous >= 0 ? " after " + number(previous) : ""));
      return;
    }
    previous = layer;
  }
}

void check_model(const ModelConfig& model, Problems& problems) {
  problems.between<std::int64_t>("model.vocab", model.vocab, 2, kVocabMax);
  const bool dim = problems.between<std::int64_t>("model.dim", model.dim, 1, kDimMax);
  const bool layers = problems.between<std::int64_t>("model.layers", model.layers, 1, kLayersMax);
  const bool heads = problems.between<std::int64_t>("model.heads", model.heads, 1, kDimMax);
  const bool kv_heads = problems.between<std::int64_t>("model.kv_heads", model.kv_heads, 1, kDimMax);
  problems.between<std::int64_t>("model.ffn", model.ffn, 1, kFfnMax);
  problems.between<double>("model.norm_eps", model.norm_eps, 1e-12, 1.0);
  problems.between<double>("model.rope_base", model.rope_base, 1.0, 1e12);
  problems.between<double>("model.rope_scaling", model.rope_scaling, 1.0, 1e6);
  if (dim && heads) {
    problems.unless(model.dim % (2 * model.heads) == 0,
                    "model.dim must be a multiple of twice model.heads (RoPE turns pairs inside a head), not " +
                        number(model.dim) + " with " + number(model.heads) + " heads");
  }
  if (heads && kv_heads) {
    problems.unless(model.heads % model.kv_heads == 0, "model.kv_heads must divide model.heads, but " +
                                                           number(model.kv_heads) + " does not divide " +
                                                           number(model.heads));
  }
  check_cuts(model, dim && layers, problems);
}

void check_optimizer(const OptimizerConfig& optimizer, Problems& problems) {
  const double below_one = std::nextafter(1.0, 0.0);
  problems.between<double>("optimizer.beta1", optimizer.beta1, 0.0, below_one);
  problems.between<double>("optimizer.beta2", optimizer.beta2, 0.0, below_one);
  problems.between<double>("optimizer.eps", optimizer.eps, 1e-30, 1.0);
  problems.between<double>("optimizer.weight_decay", optimizer.weight_decay, 0.0, 1e3);
  problems.between<double>("optimizer.momentum_decay", optimizer.momentum_decay, 0.0, 1e3);
  if (optimizer.kind == OptimizerKind::muon) {
    problems.between<double>("optimizer.muon_momentum", optimizer.muon_momentum, 0.0, below_one);
    problems.between<double>("optimizer.muon_rate", optimizer.muon_rate, 0.0, 1e6);
    problems.between<std::int64_t>("optimizer.muon_steps", optimizer.muon_steps, 1, 100);
  }
  problems.between<double>("optimizer.clip_norm", optimizer.clip_norm, 0.0, 1e30);
}

void check_schedule(const ScheduleConfig& schedule, Problems& problems) {
  problems.between<double>("schedule.peak_lr", schedule.peak_lr, 1e-30, 1e3);
  problems.between<double>("schedule.floor_fraction", schedule.floor_fraction, 0.0, 1.0);
  if (!problems.between<std::int64_t>("schedule.steps", schedule.steps, 1, kStepsMax)) return;
  const bool warmup =
      problems.between<std::int64_t>("schedule.warmup_steps", schedule.warmup_steps, 0, schedule.steps);
  if (schedule.kind == ScheduleKind::wsd && warmup) {
    problems.between<std::int64_t>("schedule.decay_steps", schedule.decay_steps, 0,
                                   schedule.steps - schedule.warmup_steps);
  }
}

void check_batch(const BatchConfig& batch, Problems& problems) {
  const bool sequences = problems.between<std::int64_t>("batch.sequences", batch.sequences, 1, kMicrobatchTokensMax);
  const bool tokens = problems.between<std::int64_t>("batch.tokens", batch.tokens, 1, kMicrobatchTokensMax);
  if (sequences && tokens) {
    problems.between<std::int64_t>("batch.sequences × batch.tokens", batch.sequences * batch.tokens, 1,
                                   kMicrobatchTokensMax);
  }
  problems.between<std::int64_t>("batch.microbatches", batch.microbatches, 1, kMicrobatchesMax);
  problems.between<std::int64_t>("batch.eval_microbatches", batch.eval_microbatches, 0, kMicrobatchesMax);
  problems.between<std::int64_t>("batch.eval_every", batch.eval_every, 0, kStepsMax);
}

void check_numbers(const NumberConfig& numbers, Problems& problems) {
  problems.unless(numbers.state == FloatKind::float32 || numbers.compute == FloatKind::bfloat16,
                  "numbers.state = bfloat16 keeps no more of a weight than is computed with: it needs numbers.compute = bfloat16");
}

}  // namespace

std::vector<std::string> problems(const TrainConfig& config) {
  Problems found;
  check_model(config.model, found);
  check_optimizer(config.optimizer, found);
  check_schedule(config.schedule, found);
  check_batch(config.batch, found);
  check_numbers(config.numbers, found);
  found.between<std::int64_t>("threads", config.threads, 1, 1'024);
  return found.take();
}

bool ModelConfig::cut_follows(std::int64_t layer) const {
  return std::binary_search(cut_after.begin(), cut_after.end(), layer);
}

std::int64_t ModelConfig::boundary_width(std::int64_t layer) const { return bottleneck_follows(layer) ? cut_width : dim; }

double ScheduleConfig::rate(base::Step step) const {
  const double last = static_cast<double>(steps);
  const double at = std::min(static_cast<double>(step.value()), last);
  const double warmup = static_cast<double>(warmup_steps);
  if (at < warmup) return peak_lr * at / warmup;
  const double floor_lr = peak_lr * floor_fraction;
  switch (kind) {
    case ScheduleKind::constant: return peak_lr;
    case ScheduleKind::cosine: {
      if (last <= warmup) return peak_lr;
      const double progress = (at - warmup) / (last - warmup);
      return floor_lr + (peak_lr - floor_lr) * 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
    }
    case ScheduleKind::wsd: {
      const double decay = static_cast<double>(decay_steps);
      if (at <= last - decay || decay_steps <= 0) return peak_lr;
      return peak_lr + (floor_lr - peak_lr) * (at - (last - decay)) / decay;
    }
  }
  return peak_lr;
}

StepPlan plan_of(const TrainConfig& config, base::Step step) {
  if (step.value() == 0 || step > final_step(config)) return {};
  if (step == final_step(config)) return {0, config.batch.eval_microbatches};
  const auto every = static_cast<std::uint64_t>(config.batch.eval_every);
  const bool evaluates = every > 0 && (step.value() - 1) % every == 0;
  return {config.batch.microbatches, evaluates ? config.batch.eval_microbatches : 0};
}

base::Step final_step(const TrainConfig& config) {
  return base::Step(static_cast<std::uint64_t>(config.schedule.steps)).next();
}

}  // namespace stagecoach::model
