// The model's parameter tensors by name, shape and place: one list that compute/, store/ and the coordinator share.
//
// In:      a ModelConfig. Out: every tensor with its global name, in name order's index, its shape and its layer.
// Thread:  any.
// Why:     norms are added, checkpoints written and shards cut in *this* order, whatever the split.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "model/config.h"

namespace stagecoach::model {

/// One parameter tensor.
struct ParameterInfo {
  std::string name;                 // "embed.weight", "blocks.003.attention.wq", …, "head.weight": zero-padded, so that name order is layer order
  std::vector<std::int64_t> shape;
  std::int64_t layer = 0;           // 0 … L−1; −1 = embedding, L = final norm and head
  bool decayed = true;              // weight decay applies (matrices, embedding and head; not norms)
  base::TensorIndex index;          // position in the whole model's list
  std::int64_t elements() const;
};

/// All tensors of the whole model, in canonical order (embedding, layers ascending with a fixed order inside, final norm, head).
///
/// Per layer i: attention_norm [D] · attention.wq [D, D] · attention.wk [Hkv·h, D] · attention.wv [Hkv·h, D] · attention.wo [D, D]
/// · ffn_norm [D] · ffn.w1 [F, D] (gate) · ffn.w2 [F, D] (up) · ffn.w3 [D, F] (down).
/// A bottleneck of width K < D after layer i adds cut.encode [K, D] (W4, to the sending layer i) and cut.decode [D, K] (D, to the
/// receiving layer i + 1, name "blocks.<i+1>.cut.decode"). With resbm+tokens the receiver also has cut.token_embed [V, r] and
/// cut.token_mix [D, w·r], a causal convolution over the last w tokens: columns j·r … j·r + r − 1 for the token j places back.
std::vector<ParameterInfo> parameters(const ModelConfig& model);

/// The tensors of one stage, in the same order, with the same indices.
std::vector<ParameterInfo> parameters(const ModelConfig& model, const StageRange& range);

/// How a step changes one tensor.
enum class UpdateRule : std::uint8_t { adam, muon };

/// With optimizer muon: Muon for the matrices inside the blocks (attention, SwiGLU, both halves of a bottleneck and the
/// convolution over tokens, all of which map channels to channels); AdamW for embeddings (of a cut too), head and norms, whose
/// rows or elements stand for themselves. With every other optimizer: adam.
UpdateRule update_rule(const OptimizerConfig& optimizer, const ParameterInfo& parameter);

/// What a stage's state holds of each parameter besides its weights, as "<prefix><name>" in the parameter's shape and, like
/// the weights, in numbers.state: both moments under adam, one under muon.
inline constexpr std::string_view kMomentPrefix = "optimizer.exp_avg.";
inline constexpr std::string_view kSecondMomentPrefix = "optimizer.exp_avg_sq.";
inline constexpr std::string_view kMomentumPrefix = "optimizer.momentum_buffer.";
std::vector<std::string_view> moment_prefixes(UpdateRule rule);

/// Elements in all of `list`.
std::int64_t total_elements(const std::vector<ParameterInfo>& list);

}  // namespace stagecoach::model
