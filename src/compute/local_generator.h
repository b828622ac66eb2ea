// The Generator on the CPU: all layers, their cuts in place, a KV cache.
//
// In/out:  as stage.h says.
// Thread:  the caller's.
// Why:     it runs the very layer() that training runs, so that a sampled text says something about the training.
#pragma once

#include <memory>
#include <vector>

#include "base/prng.h"
#include "compute/layers.h"
#include "compute/stage.h"

namespace stagecoach::compute {

class LocalGenerator final : public Generator {
 public:
  /// errors: not_found  a tensor of the model is missing · mismatch  a shape differs · invalid_argument  a bad config
  static base::Result<std::unique_ptr<LocalGenerator>> make(const model::ModelConfig& model,
                                                            const std::vector<base::NamedTensor>& weights, int threads);

  base::Result<void> start(const std::vector<std::int32_t>& prompt, const Sampling& sampling) override;
  base::Result<std::int32_t> next() override;
  base::Result<std::vector<double>> score(const std::vector<std::int32_t>& tokens) override;

  /// log p of every token to come next, given the past in the cache. Empty before start().
  std::vector<double> next_log_probabilities() const;

 private:
  LocalGenerator(const model::ModelConfig& model, WeightSet weights, int threads);

  base::Result<void> tokens_are_valid(const std::vector<std::int32_t>& tokens) const;
  at::Tensor log_probabilities(const std::vector<std::int32_t>& tokens, std::vector<KeyValueCache>* caches);
  at::Tensor seen_from(const std::vector<std::int32_t>& tokens, bool cached) const;
  std::int32_t sample();

  const model::ModelConfig model_;
  const WeightSet weights_;
  const int threads_;
  Rotation rotation_;  // grows with the longest text so far
  std::vector<KeyValueCache> caches_;
  std::vector<std::int32_t> read_;  // the tokens in the caches: cuts look back at the last of them
  at::Tensor next_log_p_V_;
  Sampling sampling_;
  base::Prng prng_{0};
};

}  // namespace stagecoach::compute
