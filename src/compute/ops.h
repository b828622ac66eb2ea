// The operations of a layer that are no matrix product, forward and backward: one seam each.
//
// In/out:  contiguous tensors of one device, fp32 or bf16. Each operation computes in fp32 and rounds once, when it stores.
// Thread:  compute; no graph.
// Why:     a layer calls these and products, and nothing else. Each has a CPU kernel (kernels.h), which takes one pass over memory
//          and torch's threads, and the same in ATen operators for any device (Way::aten), which a test holds equal to it.
//
// Legend:  T tokens · D model width · F SwiGLU width · P a row of queries, keys and values
#pragma once

#include "compute/attention.h"
#include "compute/torch.h"

namespace stagecoach::compute {

/// The CPU kernels work on CPU tensors only; `automatic` takes them there.
enum class Way : std::uint8_t { automatic, aten };

struct NormOutput {
  at::Tensor y_TD;
  at::Tensor rstd_T;  // fp32
};
/// x / √(mean(x²) + eps) · weight (Zhang & Sennrich 2019).
NormOutput rms_norm(const at::Tensor& x_TD, const at::Tensor& weight_D, double eps, Way way = Way::automatic);

struct NormGradients {
  at::Tensor x_TD;      // with `skip` added
  at::Tensor weight_D;  // fp32
};
/// `skip`: a gradient that reached x beside the norm, of its first columns; undefined = none. Threads share the rows in blocks of
/// a fixed size, so that the weight's gradient does not depend on how many there are.
NormGradients rms_norm_backward(const at::Tensor& x_TD, const at::Tensor& weight_D, const at::Tensor& rstd_T,
                                const at::Tensor& dy_TD, const at::Tensor& skip, Way way = Way::automatic);

/// The angles of RoPE for positions 0 … S−1, fp32. shapes: cosine, sine [S, h/2]
struct Rotation {
  at::Tensor cosine, sine;
};
enum class Turn : std::uint8_t { forward, back };

/// RoPE (Su et al. 2021; halves as in Llama), in place, of queries and keys; `back` is its gradient. shapes: qkv [T, P]
void rotate(const AttentionShape& shape, const Rotation& rotation, Turn turn, at::Tensor& qkv_TP, Way way = Way::automatic);

/// SiLU(a) ⊙ b (Shazeer 2020). shapes: ab [T, 2F] with a in the first F columns -> [T, F]
at::Tensor gate(const at::Tensor& ab, Way way = Way::automatic);
/// Turns ab into its gradient and returns gate(ab). shapes: dy [T, F]
at::Tensor gate_backward(at::Tensor& ab, const at::Tensor& dy_TF, Way way = Way::automatic);

at::Tensor silu_forward(const at::Tensor& x, Way way = Way::automatic);
/// Turns dy into dx and returns silu_forward(x).
at::Tensor silu_backward(const at::Tensor& x, at::Tensor& dy, Way way = Way::automatic);

/// Σ −log p(label) over the rows, summed in fp64 in their order; with `gradient` the logits become their gradient.
/// shapes: logits [T, V], labels int64 [T]
double cross_entropy(at::Tensor& logits_TV, const at::Tensor& labels_T, bool gradient, Way way = Way::automatic);

/// x · weightᵀ, with `onto` added before it is rounded where that is defined. shapes: [T, I], [O, I], onto [T, O] -> [T, O]
at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& onto = {});
/// dy · weight, the gradient of product's x. shapes: [T, O], [O, I], onto [T, I] -> [T, I]
at::Tensor input_gradient(const at::Tensor& dy, const at::Tensor& weight, const at::Tensor& onto = {});
/// dyᵀ · x, a weight's gradient, in the number format of x, summed in fp32 inside. shapes: [T, O], [T, I] -> [O, I]
at::Tensor weight_gradient(const at::Tensor& dy, const at::Tensor& x, Way way = Way::automatic);

/// True where no value is NaN or infinite. A CPU tensor.
bool tensor_is_finite(const at::Tensor& tensor);

}  // namespace stagecoach::compute
