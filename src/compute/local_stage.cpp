// A microbatch through a stage: forward, loss, recompute and backward.
//
// Every layer has a graph of its own, from a leaf that holds its input to its output, in every stage: a split changes
// which process runs a layer's graph and nothing in it. That is why every split gives the same bits (DESIGN §5).
#include "compute/local_stage.h"

#include <cmath>
#include <cstring>

#include "compute/device.h"
#include "compute/fixed64.h"
#include "compute/loss.h"

namespace stagecoach::compute {

using base::Error;
using base::ErrorCode;
using base::Payload;
using base::Result;

/// One microbatch on the device.
struct LocalStage::Input {
  at::Tensor tokens_T;    // int64; undefined where the stage needs none
  at::Tensor labels_T;    // int64; undefined but at the tail
  at::Tensor boundary;    // [T, K]; undefined at the head
  LayerShape shape;
};

namespace {

Result<Payload> finite_payload(const at::Tensor& tensor, const char* what) {
  const at::Tensor host = tensor.cpu().contiguous();
  const float* values = host.const_data_ptr<float>();
  if (!all_finite(values, host.numel())) return Error{ErrorCode::not_finite, std::string(what) + " holds NaN or infinity"};
  const auto* bytes = reinterpret_cast<const std::byte*>(values);
  return base::make_payload(base::Bytes(bytes, bytes + host.nbytes()));
}

Error wrong_size(const char* what, std::size_t expected, const Payload& payload) {
  return Error{ErrorCode::invalid_argument, std::string(what) + " must have " + std::to_string(expected) + " bytes, not " +
                                                (payload ? std::to_string(payload->size()) : "none at all")};
}

/// The loss of the last layer's output; with `gradients`, also that of the output and, into them, of the final norm and the head.
double tail_loss(const WeightSet& weights, double norm_eps, const at::Tensor& stream, const at::Tensor& labels_T,
                 at::Tensor* stream_gradient, std::vector<at::Tensor>* gradients) {
  if (gradients == nullptr) {
    return chunked_loss(rms_norm(stream, weights.final_norm_D, norm_eps), weights.head_VD, labels_T, nullptr);
  }
  const at::Tensor leaf = stream.detach().requires_grad_(true);
  const at::Tensor normed = rms_norm(leaf, weights.final_norm_D, norm_eps);
  LossGradients loss_gradients;
  const double loss_sum = chunked_loss(normed.detach(), weights.head_VD, labels_T, &loss_gradients);
  auto through_norm = torch::autograd::grad({normed}, {leaf, weights.final_norm_D}, {loss_gradients.normed_TD});
  *stream_gradient = through_norm[0].contiguous();
  (*gradients)[gradients->size() - 2] = std::move(through_norm[1]);
  gradients->back() = std::move(loss_gradients.head_VD);
  return loss_sum;
}

}  // namespace

Result<Payload> LocalStage::forward(base::WeightVersion version, const StageInput& input, const std::optional<MicrobatchName>&) {
  return guarded([&]() -> Result<Payload> {
    use_threads(config_.threads);
    if (is_tail()) return Error{ErrorCode::invalid_argument, "the tail has no boundary after it: use evaluate or backward"};
    auto weight_set = weights(version);
    if (!weight_set.ok()) return weight_set.error();
    auto microbatch = read_input(input);
    if (!microbatch.ok()) return microbatch.error();
    const at::NoGradGuard no_graph;
    return finite_payload(run_layers(**weight_set, *microbatch), "the boundary tensor");
  });
}

Result<double> LocalStage::evaluate(base::WeightVersion version, const StageInput& input) {
  return guarded([&]() -> Result<double> {
    use_threads(config_.threads);
    if (!is_tail()) return Error{ErrorCode::invalid_argument, "only the tail has a loss to evaluate"};
    auto weight_set = weights(version);
    if (!weight_set.ok()) return weight_set.error();
    auto microbatch = read_input(input);
    if (!microbatch.ok()) return microbatch.error();
    const at::NoGradGuard no_graph;
    const at::Tensor stream = run_layers(**weight_set, *microbatch);
    const double loss = tail_loss(**weight_set, config_.model.norm_eps, stream, microbatch->labels_T, nullptr, nullptr);
    if (!std::isfinite(loss)) return Error{ErrorCode::not_finite, "the loss is NaN or infinite"};
    return loss;
  });
}

Result<BackwardOutput> LocalStage::backward(base::WeightVersion version, const MicrobatchName& name, const StageInput& input,
                                            const Payload& output_gradient) {
  return guarded([&]() -> Result<BackwardOutput> {
    use_threads(config_.threads);
    auto weight_set = weights(version);
    if (!weight_set.ok()) return weight_set.error();
    auto microbatch = read_input(input);
    if (!microbatch.ok()) return microbatch.error();
    at::Tensor gradient;
    if (is_tail()) {
      if (output_gradient) return Error{ErrorCode::invalid_argument, "the tail's gradient is its own loss's: none is given to it"};
    } else {
      auto given = boundary_tensor(output_gradient, output_width(), "the output's gradient");
      if (!given.ok()) return given.error();
      gradient = *given;
    }
    std::vector<at::Tensor> gradients(infos_.size());
    auto output = backward_through(**weight_set, *microbatch, gradient, gradients);
    if (!output.ok()) return output;
    auto sum = accumulator(name.step, name.attempt).begin();
    if (!sum.ok()) return sum.error();
    for (std::size_t i = 0; i < infos_.size(); ++i) RETURN_IF_ERROR(sum->add(offsets_[i], gradients[i]));
    sum->finish();
    return output;
  });
}

Result<BackwardOutput> LocalStage::backward_through(const WeightSet& weights, const Input& input, at::Tensor gradient,
                                                    std::vector<at::Tensor>& gradients) const {
  const at::AutoGradMode with_graph(true);
  BackwardOutput output;
  std::vector<at::Tensor> leaves, outputs;
  at::Tensor stream = is_head() ? embed(weights, input.tokens_T) : input.boundary;
  for (const LayerWeights& one : weights.layers) {
    leaves.push_back(stream.detach().requires_grad_(true));
    stream = layer(config_.model, one, rotation_, input.shape, leaves.back(), nullptr);
    outputs.push_back(stream);
  }
  if (is_tail()) {
    output.loss_sum = tail_loss(weights, config_.model.norm_eps, stream, input.labels_T, &gradient, &gradients);
    if (!std::isfinite(output.loss_sum)) return Error{ErrorCode::not_finite, "the loss is NaN or infinite"};
  }
  stream.reset();
  std::size_t end = infos_.size() - (is_tail() ? 2 : 0);
  for (std::size_t i = weights.layers.size(); i-- > 0;) {
    const std::int64_t this_layer = range_.first + static_cast<std::int64_t>(i);
    std::size_t begin = end;
    while (begin > 0 && infos_[begin - 1].layer == this_layer) --begin;
    torch::autograd::variable_list inputs{leaves[i]};
    inputs.insert(inputs.end(), weights.tensors.begin() + static_cast<std::ptrdiff_t>(begin),
                  weights.tensors.begin() + static_cast<std::ptrdiff_t>(end));
    auto found = torch::autograd::grad({outputs[i]}, inputs, {gradient});
    outputs[i].reset();
    leaves[i].reset();
    gradient = found[0].contiguous();
    for (std::size_t p = begin; p < end; ++p) gradients[p] = std::move(found[1 + p - begin]);
    end = begin;
  }
  if (is_head()) {
    gradients[0] = at::embedding_dense_backward(gradient, input.tokens_T, config_.model.vocab, -1, false);
    return output;
  }
  auto payload = finite_payload(gradient, "the input's gradient");
  if (!payload.ok()) return payload.error();
  output.input_gradient = *payload;
  return output;
}

at::Tensor LocalStage::run_layers(const WeightSet& weights, const Input& input) const {
  at::Tensor stream = is_head() ? embed(weights, input.tokens_T) : input.boundary;
  for (const LayerWeights& one : weights.layers) stream = layer(config_.model, one, rotation_, input.shape, stream, nullptr);
  return stream;
}

bool LocalStage::sees_tokens() const {
  for (std::int64_t layer = range_.first; layer < range_.last; ++layer) {
    if (config_.model.sees_tokens(layer)) return true;
  }
  return false;
}

Result<const WeightSet*> LocalStage::weights(base::WeightVersion version) const {
  const auto held = versions_.find(version);
  if (held == versions_.end()) {
    return Error{ErrorCode::invalid_argument, "weight version " + std::to_string(version.value()) +
                                                  " is not held; the newest is " +
                                                  std::to_string(this->version().value())};
  }
  return &held->second;
}

Result<LocalStage::Input> LocalStage::read_input(const StageInput& input) const {
  Input out;
  out.shape = {config_.batch.sequences, config_.batch.tokens, {}};
  if (is_head()) {
    if (input.boundary) return Error{ErrorCode::invalid_argument, "the head has no boundary before it"};
  } else {
    auto boundary = boundary_tensor(input.boundary, input_width(), "the boundary tensor");
    if (!boundary.ok()) return boundary.error();
    out.boundary = *boundary;
  }
  if (!is_head() && !is_tail() && !sees_tokens()) return out;
  const std::int64_t columns = config_.batch.tokens + 1;
  const auto count = static_cast<std::size_t>(config_.batch.sequences * columns);
  if (!input.tokens || input.tokens->size() != count * 4) return wrong_size("the tokens", count * 4, input.tokens);
  const at::Tensor ids = at::empty({config_.batch.sequences, columns}, at::kInt);
  std::int32_t* values = ids.mutable_data_ptr<std::int32_t>();
  std::memcpy(values, input.tokens->data(), count * 4);
  for (std::size_t i = 0; i < count; ++i) {
    if (values[i] < 0 || values[i] >= config_.model.vocab) {
      return Error{ErrorCode::invalid_argument, "token " + std::to_string(values[i]) + " is outside the vocabulary of " +
                                                    std::to_string(config_.model.vocab)};
    }
  }
  const auto column_range = [&](std::int64_t first) {
    return ids.narrow(1, first, config_.batch.tokens).reshape({tokens()}).to(device_, at::kLong);
  };
  if (is_head() || sees_tokens()) out.tokens_T = column_range(0);
  if (sees_tokens()) out.shape.past_BN = out.tokens_T.view({config_.batch.sequences, config_.batch.tokens});
  if (is_tail()) out.labels_T = column_range(1);
  return out;
}

Result<at::Tensor> LocalStage::boundary_tensor(const Payload& payload, std::int64_t width, const char* what) const {
  const auto bytes = static_cast<std::size_t>(tokens() * width) * sizeof(float);
  if (!payload || payload->size() != bytes) return wrong_size(what, bytes, payload);
  // A copy: a payload's bytes need not be aligned as torch's are, and kernels may choose their path by alignment.
  const at::Tensor host = at::empty({tokens(), width});
  std::memcpy(host.mutable_data_ptr<float>(), payload->data(), bytes);
  if (!all_finite(host.const_data_ptr<float>(), host.numel())) {
    return Error{ErrorCode::not_finite, std::string(what) + " holds NaN or infinity"};
  }
  return host.to(device_);
}

}  // namespace stagecoach::compute
