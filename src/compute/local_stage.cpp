// A microbatch through a stage: forward, loss, recompute and backward.
//
// Every layer's forward and backward are the same calls in every stage: a split changes which process makes them and nothing
// in them. That is why every split gives the same bits (DESIGN §5).
#include "compute/local_stage.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "compute/device.h"
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
  if (!tensor_is_finite(host)) return Error{ErrorCode::not_finite, std::string(what) + " holds NaN or infinity"};
  const auto* bytes = static_cast<const std::byte*>(host.const_data_ptr());
  return base::make_payload(base::Bytes(bytes, bytes + host.nbytes()));
}

Error wrong_size(const char* what, std::size_t expected, const Payload& payload) {
  return Error{ErrorCode::invalid_argument, std::string(what) + " must have " + std::to_string(expected) + " bytes, not " +
                                                (payload ? std::to_string(payload->size()) : "none at all")};
}

/// Hands gradients to the step's sums.
class SumSink final : public GradientSink {
 public:
  explicit SumSink(Accumulator::Microbatch& microbatch) : microbatch_(microbatch) {}
  Result<void> add(std::int64_t offset, const at::Tensor& gradient) override { return microbatch_.add(offset, gradient); }

 private:
  Accumulator::Microbatch& microbatch_;
};

}  // namespace

Result<Payload> LocalStage::forward(base::WeightVersion version, const StageInput& input,
                                    const std::optional<MicrobatchName>& name) {
  return guarded([&]() -> Result<Payload> {
    use_threads(config_.threads);
    const at::AutoDispatchBelowADInplaceOrView no_graph;
    if (is_tail()) return Error{ErrorCode::invalid_argument, "the tail has no boundary after it: use evaluate or backward"};
    auto weight_set = weights(version);
    if (!weight_set.ok()) return weight_set.error();
    auto microbatch = read_input(input);
    if (!microbatch.ok()) return microbatch.error();
    const bool keeps = name && kept_.has_room();
    std::vector<LayerKept> kept;
    auto payload = finite_payload(run_layers(**weight_set, *microbatch, keeps ? &kept : nullptr), "the boundary tensor");
    if (payload.ok() && keeps) kept_.put(*name, {version, input, std::move(kept)});
    return payload;
  });
}

Result<double> LocalStage::evaluate(base::WeightVersion version, const StageInput& input) {
  return guarded([&]() -> Result<double> {
    use_threads(config_.threads);
    const at::AutoDispatchBelowADInplaceOrView no_graph;
    if (!is_tail()) return Error{ErrorCode::invalid_argument, "only the tail has a loss to evaluate"};
    auto weight_set = weights(version);
    if (!weight_set.ok()) return weight_set.error();
    auto microbatch = read_input(input);
    if (!microbatch.ok()) return microbatch.error();
    const at::Tensor stream = run_layers(**weight_set, *microbatch, nullptr);
    const double loss = tail_loss(**weight_set, config_.model.norm_eps, stream, microbatch->labels_T);
    if (!std::isfinite(loss)) return Error{ErrorCode::not_finite, "the loss is NaN or infinite"};
    return loss;
  });
}

Result<BackwardOutput> LocalStage::backward(base::WeightVersion version, const MicrobatchName& name, const StageInput& input,
                                            const Payload& output_gradient) {
  return guarded([&]() -> Result<BackwardOutput> {
    use_threads(config_.threads);
    const at::AutoDispatchBelowADInplaceOrView no_graph;
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
    std::vector<LayerKept> kept;
    if (auto found = kept_.take(name, version, input)) {
      kept = std::move(found->layers);
    } else {
      at::Tensor stream = run_layers(**weight_set, *microbatch, &kept);
      if (is_tail()) gradient = std::move(stream);
    }
    auto sum = accumulator(name.step, name.attempt).begin();
    if (!sum.ok()) return sum.error();
    SumSink sink(*sum);
    auto output = backward_through(**weight_set, *microbatch, std::move(kept), std::move(gradient), sink);
    if (output.ok()) sum->finish();
    return output;
  });
}

/// `gradient`: of the stage's output; at the tail the last layer's output itself.
Result<BackwardOutput> LocalStage::backward_through(const WeightSet& weights, const Input& input, std::vector<LayerKept> kept,
                                                    at::Tensor gradient, GradientSink& sink) const {
  BackwardOutput output;
  if (is_tail()) {
    auto found = tail_backward(weights, config_.model.norm_eps, gradient, input.labels_T, sink);
    if (!found.ok()) return found.error();
    if (!std::isfinite(found->loss_sum)) return Error{ErrorCode::not_finite, "the loss is NaN or infinite"};
    output.loss_sum = found->loss_sum;
    gradient = found->stream_TD;
  }
  for (std::size_t i = weights.layers.size(); i-- > 0;) {
    auto found = layer_backward(config_.model, weights.layers[i], rotation_, input.shape, std::move(kept[i]), gradient, sink);
    if (!found.ok()) return found.error();
    gradient = *found;
  }
  if (is_head()) {
    RETURN_IF_ERROR(embed_backward(weights, input.tokens_T, gradient, sink));
    return output;
  }
  auto payload = finite_payload(gradient, "the input's gradient");
  if (!payload.ok()) return payload.error();
  output.input_gradient = *payload;
  return output;
}

at::Tensor LocalStage::run_layers(const WeightSet& weights, const Input& input, std::vector<LayerKept>* kept) const {
  at::Tensor stream = is_head() ? embed(weights, input.tokens_T) : input.boundary;
  if (kept != nullptr) kept->resize(weights.layers.size());
  for (std::size_t i = 0; i < weights.layers.size(); ++i) {
    stream = layer(config_.model, weights.layers[i], rotation_, input.shape, stream, kept ? &(*kept)[i] : nullptr);
  }
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
  RETURN_IF_ERROR(read_tokens(input.tokens, out));
  return out;
}

Result<void> LocalStage::read_tokens(const Payload& tokens, Input& out) const {
  const std::int64_t columns = config_.batch.tokens + 1;
  const auto count = static_cast<std::size_t>(config_.batch.sequences * columns);
  if (!tokens || tokens->size() != count * 4) return wrong_size("the tokens", count * 4, tokens);
  const at::Tensor ids = at::empty({config_.batch.sequences, columns}, at::kInt);
  std::int32_t* values = ids.mutable_data_ptr<std::int32_t>();
  std::memcpy(values, tokens->data(), count * 4);
  for (std::size_t i = 0; i < count; ++i) {
    if (values[i] < 0 || values[i] >= config_.model.vocab) {
      return Error{ErrorCode::invalid_argument, "token " + std::to_string(values[i]) + " is outside the vocabulary of " +
                                                    std::to_string(config_.model.vocab)};
    }
  }
  const auto column_range = [&](std::int64_t first) {
    return ids.narrow(1, first, config_.batch.tokens).reshape({this->tokens()}).to(device_, at::kLong);
  };
  if (is_head() || sees_tokens()) out.tokens_T = column_range(0);
  if (sees_tokens()) out.shape.past_BN = out.tokens_T.view({config_.batch.sequences, config_.batch.tokens});
  if (is_tail()) out.labels_T = column_range(1);
  return {};
}

Result<at::Tensor> LocalStage::boundary_tensor(const Payload& payload, std::int64_t width, const char* what) const {
  const at::ScalarType type = config_.numbers.compute == model::FloatKind::float32 ? at::kFloat : at::kBFloat16;
  const auto bytes = static_cast<std::size_t>(tokens() * width * model::bytes_of(config_.numbers.compute));
  if (!payload || payload->size() != bytes) return wrong_size(what, bytes, payload);
  // Read where it lies if it is aligned as torch's own memory is; else a copy, since kernels may choose their path by alignment.
  constexpr std::uintptr_t kTorchAlignment = 64;
  at::Tensor host;
  if (reinterpret_cast<std::uintptr_t>(payload->data()) % kTorchAlignment == 0) {
    host = at::from_blob(const_cast<std::byte*>(payload->data()), {tokens(), width}, [payload](void*) {}, type);
  } else {
    host = at::empty({tokens(), width}, type);
    std::memcpy(host.mutable_data_ptr(), payload->data(), bytes);
  }
  if (!tensor_is_finite(host)) return Error{ErrorCode::not_finite, std::string(what) + " holds NaN or infinity"};
  return host.to(device_);
}

}  // namespace stagecoach::compute
