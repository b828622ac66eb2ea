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
/// A resbm cut of width K < D after layer i adds cut.encode [K, D] (W4, to the sending layer i) and cut.decode [D, K] (D, to the
/// receiving layer i + 1, name "blocks.<i+1>.cut.decode").
std::vector<ParameterInfo> parameters(const ModelConfig& model);

/// The tensors of one stage, in the same order, with the same indices.
std::vector<ParameterInfo> parameters(const ModelConfig& model, const StageRange& range);

/// A stage's state is, for each of its tensors, the weights under the tensor's name and both moments of the optimizer under these
/// prefixes, all float32 in the tensor's shape.
inline constexpr std::string_view kMomentPrefix = "optimizer.exp_avg.";
inline constexpr std::string_view kSecondMomentPrefix = "optimizer.exp_avg_sq.";

/// Elements in all of `list`.
std::int64_t total_elements(const std::vector<ParameterInfo>& list);

}  // namespace stagecoach::model
