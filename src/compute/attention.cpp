// Which kernel computes attention, and the two that need no CPU of a kind: CUDA's own and ATen's operators. See attention.h.
#include "compute/attention.h"

#include <cmath>

#include "compute/attention_cpu.h"

namespace stagecoach::compute {
namespace {

/// The three parts of qkv, or of its gradient, as [B, heads, S, h] views.
struct Parts {
  Parts(const AttentionShape& shape, const at::Tensor& rows_TP) {
    const at::Tensor by_head = rows_TP.view({shape.sequences, shape.tokens, shape.heads + 2 * shape.kv_heads, shape.width});
    q = by_head.narrow(2, 0, shape.heads).transpose(1, 2);
    k = by_head.narrow(2, shape.heads, shape.kv_heads).transpose(1, 2);
    v = by_head.narrow(2, shape.heads + shape.kv_heads, shape.kv_heads).transpose(1, 2);
  }
  at::Tensor q, k, v;
};

at::Tensor by_head(const AttentionShape& shape, const at::Tensor& rows_TD) {
  return rows_TD.view({shape.sequences, shape.tokens, shape.heads, shape.width}).transpose(1, 2);
}
at::Tensor by_row(const AttentionShape& shape, const at::Tensor& out_BHSh) {
  return out_BHSh.transpose(1, 2).reshape({shape.sequences * shape.tokens, shape.heads * shape.width});
}

/// Gives each query head its key (or value) head. shapes: [B, G, S, h] -> [B, H, S, h]
at::Tensor repeated(const AttentionShape& shape, const at::Tensor& x) {
  if (shape.kv_heads == shape.heads) return x;
  return x.unsqueeze(2)
      .expand({shape.sequences, shape.kv_heads, shape.heads / shape.kv_heads, shape.tokens, shape.width})
      .reshape({shape.sequences, shape.heads, shape.tokens, shape.width});
}
/// The gradient of that: a sum over each group. shapes: [B, H, S, h] -> [B, G, S, h]
at::Tensor gathered(const AttentionShape& shape, const at::Tensor& x) {
  if (shape.kv_heads == shape.heads) return x;
  return x.reshape({shape.sequences, shape.kv_heads, shape.heads / shape.kv_heads, shape.tokens, shape.width}).sum(2);
}

at::Tensor packed(const AttentionShape& shape, const at::Tensor& like_TP, const at::Tensor& dq, const at::Tensor& dk,
                  const at::Tensor& dv) {
  const at::Tensor out = at::empty_like(like_TP);
  const Parts parts(shape, out);
  parts.q.copy_(dq);
  parts.k.copy_(gathered(shape, dk));
  parts.v.copy_(gathered(shape, dv));
  return out;
}

// Rows of queries taken at once: scores of a whole long sequence need not exist.
constexpr std::int64_t kQueriesAtOnce = 512;

/// Scaled scores of queries [first, first + count) with the keys up to the last of them, −inf where a key comes later.
at::Tensor causal_scores(const at::Tensor& q, const at::Tensor& k, std::int64_t first, std::int64_t count) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
  const at::Tensor scores = at::matmul(q.narrow(2, first, count), k.narrow(2, 0, first + count).transpose(2, 3)).mul_(scale);
  const at::Tensor later = at::ones({count, first + count}, scores.options().dtype(at::kBool)).triu(first + 1);
  return scores.masked_fill_(later, -INFINITY);
}

AttentionKept forward_on_cuda(const AttentionShape& shape, const at::Tensor& qkv_TP) {
  const Parts parts(shape, qkv_TP);
  const at::Tensor k = repeated(shape, parts.k), v = repeated(shape, parts.v);
  AttentionKept kept;
  at::Tensor out;
  if (qkv_TP.scalar_type() == at::kBFloat16) {
    auto found = at::_scaled_dot_product_flash_attention(parts.q, k, v, 0.0, true, false);
    out = std::get<0>(found), kept.lse_BHS = std::get<1>(found), kept.seed = std::get<6>(found), kept.offset = std::get<7>(found);
  } else {
    std::tie(out, kept.lse_BHS, kept.seed, kept.offset) =
        at::_scaled_dot_product_efficient_attention(parts.q, k, v, std::nullopt, true, 0.0, true);
  }
  kept.out_TD = by_row(shape, out);
  return kept;
}

at::Tensor backward_on_cuda(const AttentionShape& shape, const at::Tensor& qkv_TP, const AttentionKept& kept,
                            const at::Tensor& out_gradient_TD) {
  const Parts parts(shape, qkv_TP);
  const at::Tensor k = repeated(shape, parts.k), v = repeated(shape, parts.v);
  const at::Tensor out = by_head(shape, kept.out_TD), gradient = by_head(shape, out_gradient_TD);
  if (qkv_TP.scalar_type() == at::kBFloat16) {
    const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_backward(
        gradient, parts.q, k, v, out, kept.lse_BHS, {}, {}, shape.tokens, shape.tokens, 0.0, true, kept.seed, kept.offset);
    return packed(shape, qkv_TP, dq, dk, dv);
  }
  const auto found = at::_scaled_dot_product_efficient_attention_backward(
      gradient, parts.q, k, v, {}, out, kept.lse_BHS, kept.seed, kept.offset, 0.0, {true, true, true, false}, true);
  return packed(shape, qkv_TP, std::get<0>(found), std::get<1>(found), std::get<2>(found));
}

}  // namespace

AttentionKept attention_forward(const AttentionShape& shape, const at::Tensor& qkv_TP) {
  if (qkv_TP.is_cuda()) return forward_on_cuda(shape, qkv_TP);
  if (!qkv_TP.device().is_cpu() || !attention_tiles_work(qkv_TP.scalar_type())) return attention_forward_by_aten(shape, qkv_TP);
  return attention_forward_by_tiles(shape, qkv_TP);
}

at::Tensor attention_backward(const AttentionShape& shape, const at::Tensor& qkv_TP, const AttentionKept& kept,
                              const at::Tensor& out_gradient_TD) {
  if (qkv_TP.is_cuda()) return backward_on_cuda(shape, qkv_TP, kept, out_gradient_TD);
  if (!qkv_TP.device().is_cpu() || !attention_tiles_work(qkv_TP.scalar_type())) {
    return attention_backward_by_aten(shape, qkv_TP, kept, out_gradient_TD);
  }
  return attention_backward_by_tiles(shape, qkv_TP, kept, out_gradient_TD);
}

AttentionKept attention_forward_by_aten(const AttentionShape& shape, const at::Tensor& qkv_TP) {
  const Parts parts(shape, qkv_TP.to(at::kFloat));
  const at::Tensor k = repeated(shape, parts.k), v = repeated(shape, parts.v);
  const at::Tensor out = at::empty({shape.sequences, shape.heads, shape.tokens, shape.width}, k.options());
  AttentionKept kept;
  kept.lse_BHS = at::empty({shape.sequences, shape.heads, shape.tokens}, k.options());
  for (std::int64_t first = 0; first < shape.tokens; first += kQueriesAtOnce) {
    const std::int64_t count = std::min(kQueriesAtOnce, shape.tokens - first);
    const at::Tensor scores = causal_scores(parts.q, k, first, count);
    const at::Tensor lse = at::logsumexp(scores, {3}, true);
    kept.lse_BHS.narrow(2, first, count).copy_(lse.squeeze(3));
    out.narrow(2, first, count).copy_(at::matmul(at::exp(scores - lse), v.narrow(2, 0, first + count)));
  }
  kept.out_TD = by_row(shape, out).to(qkv_TP.scalar_type());
  return kept;
}

at::Tensor attention_backward_by_aten(const AttentionShape& shape, const at::Tensor& qkv_TP, const AttentionKept& kept,
                                      const at::Tensor& out_gradient_TD) {
  const Parts parts(shape, qkv_TP.to(at::kFloat));
  const at::Tensor k = repeated(shape, parts.k), v = repeated(shape, parts.v);
  const at::Tensor gradient = by_head(shape, out_gradient_TD.to(at::kFloat));
  const at::Tensor delta = (gradient * by_head(shape, kept.out_TD.to(at::kFloat))).sum(3, true);
  const at::Tensor dq = at::empty_like(k), dk = at::zeros_like(k), dv = at::zeros_like(v);
  const double scale = 1.0 / std::sqrt(static_cast<double>(shape.width));
  for (std::int64_t first = 0; first < shape.tokens; first += kQueriesAtOnce) {
    const std::int64_t count = std::min(kQueriesAtOnce, shape.tokens - first), seen = first + count;
    const at::Tensor p =
        at::exp(causal_scores(parts.q, k, first, count) - kept.lse_BHS.narrow(2, first, count).unsqueeze(3));
    const at::Tensor here = gradient.narrow(2, first, count);
    dv.narrow(2, 0, seen).add_(at::matmul(p.transpose(2, 3), here));
    const at::Tensor dp = at::matmul(here, v.narrow(2, 0, seen).transpose(2, 3));
    const at::Tensor ds = (p * (dp - delta.narrow(2, first, count))).mul_(scale);
    dq.narrow(2, first, count).copy_(at::matmul(ds, k.narrow(2, 0, seen)));
    dk.narrow(2, 0, seen).add_(at::matmul(ds.transpose(2, 3), parts.q.narrow(2, first, count)));
  }
  return packed(shape, qkv_TP, dq, dk, dv);
}

}  // namespace stagecoach::compute
