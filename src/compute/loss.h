// The tail's final norm, head and loss over a large vocabulary, in chunks of tokens.
//
// In:      the last stream [T, D], labels. Out: Σ −log p; the stream's gradient, and those of norm and head into the sink.
// Thread:  compute; no graph.
// Why:     logits of a whole microbatch (8,000 × 128,256 fp32 = 4 GB) must never exist at once.
#pragma once

#include "compute/layers.h"

namespace stagecoach::compute {

/// Σ −log p(label) over all tokens, nats, summed in fp64 over fp32 terms. Chunk by chunk in order; the chunks depend on T, V and the
/// number format alone, so loss and gradients are the same whoever computes them. In bf16 the logits are bf16, their softmax
/// is fp32, and the head's gradient is rounded once a chunk.
///
/// shapes: stream [T, D], labels int64 [T]
double tail_loss(const WeightSet& weights, double norm_eps, const at::Tensor& stream_TD, const at::Tensor& labels_T);

struct TailGradient {
  double loss_sum = 0;
  at::Tensor stream_TD;  // undefined where the loss is not finite: then nothing went into the sink
};

/// The same loss, and its gradients.
///
/// errors: the sink's
base::Result<TailGradient> tail_backward(const WeightSet& weights, double norm_eps, const at::Tensor& stream_TD,
                                         const at::Tensor& labels_T, GradientSink& sink);

}  // namespace stagecoach::compute
