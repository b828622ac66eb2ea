// See token_view.h.
#include "compute/token_view.h"

#include <algorithm>

#include "base/check.h"

namespace stagecoach::compute {
namespace {

/// The embeddings of the last w tokens at each place, the place's own first. shapes: -> [T, w·r]
at::Tensor windows(const TokenPast& past, const at::Tensor& embed_Vr, std::int64_t window) {
  const std::int64_t rows = past.tokens_BN.size(0), read = past.tokens_BN.size(1), seen = past.positions;
  const std::int64_t rank = embed_Vr.size(1);
  CHECK(seen > 0 && seen <= read, "a place is seen from only where its token was read");
  const at::Tensor embedded_BNr = embed_Vr.index_select(0, past.tokens_BN.reshape({rows * read})).view({rows, read, rank});
  at::Tensor out_BSwr = at::empty({rows, seen, window, rank}, embed_Vr.options());
  for (std::int64_t back = 0; back < window; ++back) {
    const at::Tensor tap_BSr = out_BSwr.select(2, back);
    const std::int64_t missing = std::clamp<std::int64_t>(back - (read - seen), 0, seen);
    tap_BSr.narrow(1, 0, missing).zero_();
    const std::int64_t from = read - seen + missing - back;
    if (missing < seen) tap_BSr.narrow(1, missing, seen - missing).copy_(embedded_BNr.narrow(1, from, seen - missing));
  }
  return out_BSwr.view({rows * seen, window * rank});
}

}  // namespace

at::Tensor token_view(const TokenPast& past, const at::Tensor& embed_Vr, const at::Tensor& mix_DM) {
  return at::mm(windows(past, embed_Vr, mix_DM.size(1) / embed_Vr.size(1)), mix_DM.t());
}

TokenViewGradients token_view_backward(const TokenPast& past, const at::Tensor& embed_Vr, const at::Tensor& mix_DM,
                                       const at::Tensor& view_gradient_TD) {
  const std::int64_t rows = past.tokens_BN.size(0), seen = past.positions, rank = embed_Vr.size(1);
  const std::int64_t window = mix_DM.size(1) / rank;
  CHECK(past.tokens_BN.size(1) == seen, "a gradient goes to every token that was read");
  TokenViewGradients gradients;
  gradients.mix_DM = at::mm(view_gradient_TD.t(), windows(past, embed_Vr, window));
  const at::Tensor taps_BSwr = at::mm(view_gradient_TD, mix_DM).view({rows, seen, window, rank});
  // What a token gave to the places after it is added up before it goes to its row: one scattered addition a token, not w.
  at::Tensor embedded_BSr = taps_BSwr.select(2, 0).to(at::kFloat).contiguous();
  for (std::int64_t back = 1; back < std::min(window, seen); ++back) {
    embedded_BSr.narrow(1, 0, seen - back).add_(taps_BSwr.select(2, back).narrow(1, back, seen - back));
  }
  gradients.embed_Vr = at::embedding_dense_backward(embedded_BSr.view({rows * seen, rank}), past.tokens_BN.reshape({rows * seen}),
                                                    embed_Vr.size(0), -1, false);
  return gradients;
}

}  // namespace stagecoach::compute
