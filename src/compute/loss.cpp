// Logits become their own gradient in place, one chunk of tokens at a time. See loss.h.
#include "compute/loss.h"

#include <algorithm>
#include <cmath>

namespace stagecoach::compute {
namespace {

constexpr std::int64_t kChunkTokensMax = 1'024;
constexpr std::int64_t kChunkBytesMax = std::int64_t{1} << 27;  // of logits

std::int64_t chunk_tokens(const at::Tensor& head_VD) {
  return std::clamp<std::int64_t>(kChunkBytesMax / (head_VD.size(0) * head_VD.element_size()), 16, kChunkTokensMax);
}

/// Calls `work(first, count)` for each chunk, in order.
template <class Work>
void over_chunks(const at::Tensor& head_VD, std::int64_t tokens, Work&& work) {
  const std::int64_t chunk = chunk_tokens(head_VD);
  for (std::int64_t first = 0; first < tokens; first += chunk) work(first, std::min(chunk, tokens - first));
}

}  // namespace

double tail_loss(const WeightSet& weights, double norm_eps, const at::Tensor& stream_TD, const at::Tensor& labels_T) {
  const at::Tensor normed_TD = rms_norm(stream_TD, weights.final_norm_D.value, norm_eps).y_TD;
  double loss_sum = 0;
  over_chunks(weights.head_VD.value, stream_TD.size(0), [&](std::int64_t first, std::int64_t count) {
    at::Tensor logits = product(normed_TD.narrow(0, first, count), weights.head_VD.value);
    loss_sum += cross_entropy(logits, labels_T.narrow(0, first, count), false);
  });
  return loss_sum;
}

base::Result<TailGradient> tail_backward(const WeightSet& weights, double norm_eps, const at::Tensor& stream_TD,
                                         const at::Tensor& labels_T, GradientSink& sink) {
  const at::Tensor& head_VD = weights.head_VD.value;
  const NormOutput normed = rms_norm(stream_TD, weights.final_norm_D.value, norm_eps);
  const at::Tensor normed_gradient_TD = at::empty_like(stream_TD);
  at::Tensor head_gradient_VD;
  TailGradient out;
  over_chunks(head_VD, stream_TD.size(0), [&](std::int64_t first, std::int64_t count) {
    const at::Tensor normed_here = normed.y_TD.narrow(0, first, count);
    at::Tensor logits = product(normed_here, head_VD);
    out.loss_sum += cross_entropy(logits, labels_T.narrow(0, first, count), true);
    at::Tensor gradient_here = normed_gradient_TD.narrow(0, first, count);
    at::mm_out(gradient_here, logits, head_VD);
    if (head_gradient_VD.defined()) {
      head_gradient_VD.addmm_(logits.t(), normed_here);
    } else {
      head_gradient_VD = weight_gradient(logits, normed_here);
    }
  });
  if (!std::isfinite(out.loss_sum)) return out;
  RETURN_IF_ERROR(sink.add(weights.head_VD.offset, head_gradient_VD));
  const NormGradients through =
      rms_norm_backward(stream_TD, weights.final_norm_D.value, normed.rstd_T, normed_gradient_TD, {});
  RETURN_IF_ERROR(sink.add(weights.final_norm_D.offset, through.weight_D));
  out.stream_TD = through.x_TD;
  return out;
}

}  // namespace stagecoach::compute
