// See local_generator.h.
#include "compute/local_generator.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <string_view>

#include "compute/device.h"

namespace stagecoach::compute {

using base::Error;
using base::ErrorCode;
using base::Result;

Result<std::unique_ptr<LocalGenerator>> LocalGenerator::make(const model::ModelConfig& model,
                                                             const std::vector<base::NamedTensor>& weights, int threads) {
  return guarded([&]() -> Result<std::unique_ptr<LocalGenerator>> {
    model::TrainConfig config;
    config.model = model;
    config.threads = threads;
    if (const auto problems = model::problems(config); !problems.empty()) {
      return Error{ErrorCode::invalid_argument, problems.front()};
    }
    std::map<std::string_view, const base::TensorBytes*> given;
    for (const base::NamedTensor& one : weights) given[one.name] = &one.tensor;
    const std::vector<model::ParameterInfo> infos = model::parameters(model);
    std::vector<at::Tensor> tensors;
    for (const model::ParameterInfo& info : infos) {
      const auto found = given.find(info.name);
      if (found == given.end()) return Error{ErrorCode::not_found, "the weights lack the tensor " + info.name};
      const base::TensorBytes& tensor = *found->second;
      const bool narrow = tensor.dtype == base::DType::bf16;
      const auto bytes = static_cast<std::size_t>(info.elements()) * base::bytes_per_element(tensor.dtype);
      if ((tensor.dtype != base::DType::f32 && !narrow) || tensor.shape != info.shape || !tensor.bytes ||
          tensor.bytes->size() != bytes) {
        return Error{ErrorCode::mismatch, "the tensor " + info.name + " is not of this model's shape and type (float32 or bfloat16)"};
      }
      const at::Tensor read = at::empty(info.shape, narrow ? at::kBFloat16 : at::kFloat);
      std::memcpy(read.mutable_data_ptr(), tensor.bytes->data(), bytes);
      tensors.push_back(read.to(at::kFloat));
    }
    return std::unique_ptr<LocalGenerator>(
        new LocalGenerator(model, weight_set({0, model.layers}, infos, std::move(tensors)), threads));
  });
}

LocalGenerator::LocalGenerator(const model::ModelConfig& model, WeightSet weights, int threads)
    : model_(model), weights_(std::move(weights)), threads_(threads), rotation_(make_rotation(model, 256, at::kCPU)) {}

Result<void> LocalGenerator::start(const std::vector<std::int32_t>& prompt, const Sampling& sampling) {
  return guarded([&]() -> Result<void> {
    if (prompt.empty()) return Error{ErrorCode::invalid_argument, "a prompt has at least one token"};
    RETURN_IF_ERROR(tokens_are_valid(prompt));
    if (!(sampling.temperature >= 0) || !std::isfinite(sampling.temperature)) {
      return Error{ErrorCode::invalid_argument, "the temperature must be 0 (greedy) or more"};
    }
    if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
      return Error{ErrorCode::invalid_argument, "top-p must be more than 0 and at most 1"};
    }
    sampling_ = sampling;
    prng_ = base::Prng(sampling.seed);
    caches_.assign(static_cast<std::size_t>(model_.layers), {});
    read_.clear();
    const at::Tensor log_p = log_probabilities(prompt, &caches_);
    next_log_p_V_ = log_p[log_p.size(0) - 1].clone();
    return {};
  });
}

Result<std::int32_t> LocalGenerator::next() {
  return guarded([&]() -> Result<std::int32_t> {
    if (!next_log_p_V_.defined()) return Error{ErrorCode::invalid_argument, "nothing was read yet: start with a prompt"};
    if (!std::isfinite(next_log_p_V_.sum().item<double>())) {
      return Error{ErrorCode::not_finite, "the model's probabilities are NaN or infinite"};
    }
    const std::int32_t token = sample();
    next_log_p_V_ = log_probabilities({token}, &caches_)[0].clone();
    return token;
  });
}

Result<std::vector<double>> LocalGenerator::score(const std::vector<std::int32_t>& tokens) {
  return guarded([&]() -> Result<std::vector<double>> {
    RETURN_IF_ERROR(tokens_are_valid(tokens));
    std::vector<double> out;
    if (tokens.size() < 2) return out;
    const at::Tensor log_p_SV = log_probabilities({tokens.begin(), tokens.end() - 1}, nullptr);
    const float* values = log_p_SV.const_data_ptr<float>();
    for (std::size_t i = 1; i < tokens.size(); ++i) {
      out.push_back(-static_cast<double>(values[static_cast<std::int64_t>(i - 1) * model_.vocab + tokens[i]]));
    }
    return out;
  });
}

/// log p after each of `tokens`. shapes: [S, V]
at::Tensor LocalGenerator::log_probabilities(const std::vector<std::int32_t>& tokens, std::vector<KeyValueCache>* caches) {
  use_threads(threads_);
  const at::NoGradGuard no_graph;
  const auto count = static_cast<std::int64_t>(tokens.size());
  const std::int64_t past = caches ? caches->front().length : 0;
  while (rotation_.cosine.size(0) < past + count) {
    rotation_ = make_rotation(model_, 2 * rotation_.cosine.size(0), at::kCPU);
  }
  const Rotation here{rotation_.cosine.narrow(0, past, count), rotation_.sine.narrow(0, past, count)};
  const LayerShape shape{1, count, seen_from(tokens, caches != nullptr)};
  at::Tensor stream = embed(weights_, shape.past_BN[0].narrow(0, shape.past_BN.size(1) - count, count));
  for (std::size_t i = 0; i < weights_.layers.size(); ++i) {
    stream = layer(model_, weights_.layers[i], here, shape, stream, nullptr, caches ? &(*caches)[i] : nullptr);
  }
  if (caches) read_.insert(read_.end(), tokens.begin(), tokens.end());
  const at::Tensor normed = rms_norm(stream, weights_.final_norm_D.value, model_.norm_eps).y_TD;
  return at::log_softmax(product(normed, weights_.head_VD.value).to(at::kFloat), 1);
}

/// `tokens` and, where they go on from the caches, as many before them as a cut looks back at. shapes: int64 [1, N]
at::Tensor LocalGenerator::seen_from(const std::vector<std::int32_t>& tokens, bool cached) const {
  const std::size_t back = cached ? std::min(read_.size(), static_cast<std::size_t>(model_.token_window - 1)) : 0;
  const at::Tensor ids = at::empty({1, static_cast<std::int64_t>(back + tokens.size())}, at::kLong);
  const auto rest = std::copy(read_.end() - static_cast<std::ptrdiff_t>(back), read_.end(), ids.mutable_data_ptr<std::int64_t>());
  std::copy(tokens.begin(), tokens.end(), rest);
  return ids;
}

std::int32_t LocalGenerator::sample() {
  const std::vector<double> log_p = next_log_probabilities();
  if (sampling_.temperature == 0) {
    return static_cast<std::int32_t>(std::max_element(log_p.begin(), log_p.end()) - log_p.begin());
  }
  std::vector<std::int32_t> order(log_p.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&log_p](std::int32_t a, std::int32_t b) {
    return log_p[static_cast<std::size_t>(a)] > log_p[static_cast<std::size_t>(b)];
  });
  std::vector<double> weight;
  double total = 0;
  const double best = log_p[static_cast<std::size_t>(order.front())];
  for (const std::int32_t token : order) {
    weight.push_back(std::exp((log_p[static_cast<std::size_t>(token)] - best) / sampling_.temperature));
    total += weight.back();
  }
  // The smallest set of likeliest tokens whose probability reaches top_p, renormalised (Holtzman et al. 2020).
  double kept = 0;
  std::size_t choices = 0;
  while (choices < weight.size() && kept < sampling_.top_p * total) kept += weight[choices++];
  double drawn = prng_.unit() * kept;
  for (std::size_t i = 0; i + 1 < choices; ++i) {
    if (drawn < weight[i]) return order[i];
    drawn -= weight[i];
  }
  return order[choices - 1];
}

std::vector<double> LocalGenerator::next_log_probabilities() const {
  if (!next_log_p_V_.defined()) return {};
  const float* values = next_log_p_V_.const_data_ptr<float>();
  return {values, values + next_log_p_V_.numel()};
}

Result<void> LocalGenerator::tokens_are_valid(const std::vector<std::int32_t>& tokens) const {
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= model_.vocab) {
      return Error{ErrorCode::invalid_argument, "token " + std::to_string(token) + " is outside the vocabulary of " +
                                                    std::to_string(model_.vocab)};
    }
  }
  return {};
}

}  // namespace stagecoach::compute
