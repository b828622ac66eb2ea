// Causal grouped-query attention and its gradient: queries, keys and values of one product's rows, already turned by RoPE.
//
// In:      qkv [T, P]: in each row H query heads, then G key heads, then G value heads, each h wide. Out: [T, H·h].
// Thread:  compute; CPU tiles use torch's threads, one (sequence, key head) each, so that their number does not change a bit.
// Why:     PyTorch's own CPU kernel reaches a fifth of the matmul rate in fp32 and a hundredth of it in bf16's backward.
//
// Legend:  B sequences · S tokens · T = B·S · H, G query and key heads · h head width · P = (H + 2G)·h
#pragma once

#include "compute/torch.h"

namespace stagecoach::compute {

struct AttentionShape {
  std::int64_t sequences = 0;
  std::int64_t tokens = 0;  // a sequence
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t width = 0;   // of a head
  std::int64_t row() const { return (heads + 2 * kv_heads) * width; }
};

/// What a forward leaves for its backward.
struct AttentionKept {
  at::Tensor out_TD;   // D = H·h
  at::Tensor lse_BHS;  // log Σ exp of each query's scores, fp32
  at::Tensor seed, offset;  // of the CUDA kernels, which number their random draws also where they draw none
};

/// softmax(q kᵀ / √h, causal) v (Vaswani et al. 2017), by tiles with a running softmax (Dao et al. 2022): scores and softmax in
/// fp32, products in the number format of qkv. Chooses the device's kernel: CPU tiles, CUDA flash or efficient, else ATen.
///
/// shapes: qkv [T, P], contiguous -> out [T, D]
AttentionKept attention_forward(const AttentionShape& shape, const at::Tensor& qkv_TP);

/// The gradient of qkv. shapes: out_gradient [T, D] -> [T, P]
at::Tensor attention_backward(const AttentionShape& shape, const at::Tensor& qkv_TP, const AttentionKept& kept,
                              const at::Tensor& out_gradient_TD);

/// The same of plain ATen operators, for any device and number format, in fp32 inside.
AttentionKept attention_forward_by_aten(const AttentionShape& shape, const at::Tensor& qkv_TP);
at::Tensor attention_backward_by_aten(const AttentionShape& shape, const at::Tensor& qkv_TP, const AttentionKept& kept,
                                      const at::Tensor& out_gradient_TD);

/// True where this processor and this torch have what the CPU tiles of this number format need.
bool attention_tiles_work(at::ScalarType type);

}  // namespace stagecoach::compute
