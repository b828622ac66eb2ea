// The tail's loss over a large vocabulary, in chunks of tokens.
//
// In:      the normed stream [T, D], the head's weight [V, D], labels. Out: Σ −log p and its gradients.
// Thread:  compute; no graph.
// Why:     logits of a whole microbatch (8,000 × 128,256 fp32 = 4 GB) must never exist at once.
#pragma once

#include "compute/torch.h"

namespace stagecoach::compute {

struct LossGradients {
  at::Tensor normed_TD;
  at::Tensor head_VD;
};

/// Σ −log p(label) over all tokens, nats, summed in fp64 over fp32 terms. Chunk by chunk in order; the chunks depend on T and V
/// alone, so loss and gradients are the same whoever computes them.
///
/// shapes: normed fp32 [T, D], head fp32 [V, D], labels int64 [T]
/// `gradients`: null for the loss only
double chunked_loss(const at::Tensor& normed_TD, const at::Tensor& head_VD, const at::Tensor& labels_T,
                    LossGradients* gradients);

}  // namespace stagecoach::compute
