// Log-softmax, its gradient and the head's, one chunk of tokens at a time. See loss.h.
#include "compute/loss.h"

#include <algorithm>

namespace stagecoach::compute {
namespace {

constexpr std::int64_t kChunkTokensMax = 1'024;
constexpr std::int64_t kChunkLogitsMax = std::int64_t{1} << 25;  // 128 MiB of fp32

}  // namespace

double chunked_loss(const at::Tensor& normed_TD, const at::Tensor& head_VD, const at::Tensor& labels_T,
                    LossGradients* gradients) {
  const at::NoGradGuard no_graph;
  const std::int64_t tokens = normed_TD.size(0);
  const std::int64_t chunk = std::clamp<std::int64_t>(kChunkLogitsMax / head_VD.size(0), 16, kChunkTokensMax);
  if (gradients != nullptr) *gradients = {at::empty_like(normed_TD), at::zeros_like(head_VD)};
  double loss_sum = 0;
  for (std::int64_t first = 0; first < tokens; first += chunk) {
    const std::int64_t count = std::min(chunk, tokens - first);
    const at::Tensor normed = normed_TD.narrow(0, first, count);
    const at::Tensor labels = labels_T.narrow(0, first, count).unsqueeze(1);
    at::Tensor log_p = at::log_softmax(at::mm(normed, head_VD.t()), 1);
    // Summed on the host: not every device has fp64.
    loss_sum -= log_p.gather(1, labels).cpu().sum(at::kDouble).item<double>();
    if (gradients == nullptr) continue;
    at::Tensor dlogits = log_p.exp_();
    dlogits.scatter_add_(1, labels, at::full({count, 1}, -1.0, dlogits.options()));
    at::Tensor normed_gradient = gradients->normed_TD.narrow(0, first, count);
    at::mm_out(normed_gradient, dlogits, head_VD);
    gradients->head_VD.addmm_(dlogits.t(), normed);
  }
  return loss_sum;
}

}  // namespace stagecoach::compute
