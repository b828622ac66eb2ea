// A receiver's own view of the tokens at a cut: what the kind resbm+tokens adds to a bottleneck.
//
// In:      token ids, which travel beside the boundary tensor anyway. Out: [T, D], to be added to the receiver's stream.
// Thread:  compute; no graph.
// Why:     a bottleneck of K numbers a token has no room for which tokens were just read; the receiver need not be told that,
//          it can look. An own file, because it is the only part of a layer that knows of tokens and not of positions alone.
//
// Legend:  B sequences · N tokens read of each · S of them seen from · T = B·S · V vocabulary · D model width · r rank · w window
#pragma once

#include "compute/torch.h"

namespace stagecoach::compute {

/// The last `positions` places of each of the rows of `tokens`: in training all S of them, in generation the new ones alone.
struct TokenPast {
  at::Tensor tokens_BN;  // int64, from the sequence's start or from w − 1 places before the first place seen from
  std::int64_t positions = 0;
};

/// A rank-r embedding of the tokens through a causal convolution over the last w of the same sequence:
///
///   view[t] = Σ_j mix[:, j·r … j·r + r − 1] · embed[token[t − j]],  j = 0 … w − 1;  places before the row's start count as zeros
///
/// shapes: embed [V, r], mix [D, w·r] -> [T, D]
at::Tensor token_view(const TokenPast& past, const at::Tensor& embed_Vr, const at::Tensor& mix_DM);

struct TokenViewGradients {
  at::Tensor embed_Vr;  // fp32: a common token's row is a sum over many places
  at::Tensor mix_DM;    // in the view's number format
};

/// The gradients of token_view's weights for a gradient of its output. Gathers the embeddings again: keeping them would take
/// w·r numbers a token, several times the boundary tensor. `past` must hold the places seen from and no more (N = S).
///
/// shapes: view_gradient [T, D]
TokenViewGradients token_view_backward(const TokenPast& past, const at::Tensor& embed_Vr, const at::Tensor& mix_DM,
                                       const at::Tensor& view_gradient_TD);

}  // namespace stagecoach::compute
