// A stage's weights between microbatches: how they begin, and how a step changes them. Sums are in stage_sums.cpp, the state that
// checkpoints hold in stage_checkpoint.cpp.
#include <cmath>
#include <cstring>

#include "compute/device.h"
#include "compute/initial.h"
#include "compute/local_stage.h"
#include "compute/muon.h"

namespace stagecoach::compute {

using base::Error;
using base::ErrorCode;
using base::Result;

Result<std::unique_ptr<Stage>> LocalStage::make(const StageOptions& options) {
  return guarded([&]() -> Result<std::unique_ptr<Stage>> {
    if (const auto problems = model::problems(options.config); !problems.empty()) {
      return Error{ErrorCode::invalid_argument, problems.front()};
    }
    const std::int64_t layers = options.config.model.layers;
    const auto& range = options.range;
    const bool edges_on_cuts = options.config.model.cut_kind == model::CutKind::none ||
                               ((range.first == 0 || options.config.model.cut_follows(range.first - 1)) &&
                                (range.last == layers || options.config.model.cut_follows(range.last - 1)));
    if (range.first < 0 || range.first >= range.last || range.last > layers || !edges_on_cuts) {
      return Error{ErrorCode::invalid_argument, "a stage of layers " + std::to_string(range.first) + " to " +
                                                    std::to_string(range.last - 1) + " does not fit the model's " +
                                                    std::to_string(layers) + " layers and its cuts"};
    }
    if (options.versions_kept < 1 || options.versions_kept > 2) {
      return Error{ErrorCode::invalid_argument, "a stage keeps 1 or 2 weight versions"};
    }
    auto device = find_device(options.device);
    if (!device.ok()) return device.error();
    use_threads(options.config.threads);
    return std::unique_ptr<Stage>(new LocalStage(options, *device));
  });
}

LocalStage::LocalStage(const StageOptions& options, const at::Device& device)
    : config_(options.config),
      range_(options.range),
      device_(device),
      state_device_(device.is_cuda() ? device : at::Device(at::kCPU)),
      math_(device.is_cuda() ? device_math() : host_math()),
      versions_kept_(static_cast<std::size_t>(options.versions_kept)),
      infos_(model::parameters(options.config.model, options.range)),
      rotation_(make_rotation(options.config.model, options.config.batch.tokens, device)),
      optimizer_(options.config),
      kept_(options.recompute, options.kept_bytes_max > 0 ? options.kept_bytes_max : default_kept_bytes(device)) {
  fill_initial();
}

void LocalStage::fill_initial() {
  const at::TensorOptions kept = at::TensorOptions(scalar_type(config_.numbers.state)).device(state_device_);
  const at::TensorOptions computed = at::TensorOptions(scalar_type(config_.numbers.compute)).device(device_);
  std::vector<at::Tensor> tensors;
  for (const model::ParameterInfo& info : infos_) {
    offsets_.push_back(elements_);
    elements_ += info.elements();
    const std::vector<float> values = initial_values(config_.model, info);
    const at::Tensor weight = at::empty(info.shape, kept);
    weight.copy_(at::from_blob(const_cast<float*>(values.data()), info.shape));
    tensors.push_back(weights_are_state() ? weight : weight.to(computed));
    const bool muon = model::update_rule(config_.optimizer, info) == model::UpdateRule::muon;
    state_.weights.push_back(weight.view({-1}));
    state_.moments.push_back(at::zeros({info.elements()}, kept));
    state_.second_moments.push_back(muon ? at::Tensor() : at::zeros({info.elements()}, kept));
  }
  share_state(versions_.emplace(base::WeightVersion(0), weight_set(range_, infos_, std::move(tensors))).first->second);
}

void LocalStage::share_state(const WeightSet& newest) {
  if (!weights_are_state()) return;
  for (std::size_t i = 0; i < infos_.size(); ++i) state_.weights[i] = newest.tensors[i].view({-1});
}

Result<void> LocalStage::follows_newest(base::Step step) const {
  if (step.value() == version().value() + 1) return {};
  return Error{ErrorCode::invalid_argument, "step " + std::to_string(step.value()) + " does not follow weight version " +
                                                std::to_string(version().value())};
}

WeightSet& LocalStage::next_version(base::WeightVersion version) {
  const at::NoGradGuard no_graph;
  WeightSet* next = nullptr;
  if (versions_.size() < versions_kept_) {
    std::vector<at::Tensor> copies;
    for (const at::Tensor& tensor : versions_.rbegin()->second.tensors) copies.push_back(tensor.detach().clone());
    next = &versions_.emplace(version, weight_set(range_, infos_, std::move(copies))).first->second;
  } else {
    auto node = versions_.extract(versions_.begin());
    node.key() = version;
    if (!versions_.empty()) {
      const WeightSet& newest = versions_.rbegin()->second;
      for (std::size_t i = 0; i < infos_.size(); ++i) node.mapped().tensors[i].copy_(newest.tensors[i]);
    }
    next = &versions_.insert(std::move(node)).position->second;
  }
  share_state(*next);
  return *next;
}

Result<void> LocalStage::apply(base::Step step, base::Attempt attempt, double global_norm) {
  return guarded([&]() -> Result<void> {
    use_threads(config_.threads);
    RETURN_IF_ERROR(follows_newest(step));
    if (!std::isfinite(global_norm)) return Error{ErrorCode::not_finite, "the global norm is NaN or infinite"};
    if (global_norm < 0) return Error{ErrorCode::invalid_argument, "the global norm is negative"};
    auto sums = reduced(step, attempt);
    if (!sums.ok()) return sums.error();
    const UpdateFactors factors = optimizer_.factors(step, global_norm);
    const WeightSet& weights = next_version(base::WeightVersion(step.value()));
    const at::NoGradGuard no_graph;
    for (std::size_t i = 0; i < infos_.size(); ++i) update(i, factors, **sums, weights);
    drop_sums_to(step);
    return {};
  });
}

void LocalStage::update(std::size_t i, const UpdateFactors& factors, const Accumulator& sums, const WeightSet& weights) {
  const model::ParameterInfo& info = infos_[i];
  const at::Tensor computed = weights.tensors[i].detach();
  TensorState state;
  state.sums = sums.reduced(offsets_[i], info.elements());
  state.weight = state_.weights[i];
  const bool copied_on_the_way = !weights_are_state() && device_ == state_device_;
  if (copied_on_the_way) state.copy = computed.view({-1});
  state.moment = state_.moments[i];
  state.second_moment = state_.second_moments[i];
  state.decayed = info.decayed;
  state.noise = noise_key(config_.model.seed, info.index, factors.step);
  if (model::update_rule(config_.optimizer, info) == model::UpdateRule::muon) {
    const at::Tensor direction = math_.muon_momentum(factors, state).view(info.shape);
    const at::Tensor step = orthogonalised(direction, config_.optimizer.muon_steps, config_.optimizer.muon_float);
    const double rate = factors.muon_rate * muon_rate_factor(info.shape[0], info.shape[1]);
    math_.muon_weight(factors, state, static_cast<float>(rate), step.view({-1}));
  } else {
    math_.update(factors, state);
  }
  if (!weights_are_state() && !copied_on_the_way) computed.view({-1}).copy_(state.weight);
}

Result<void> LocalStage::apply_nothing(base::Step step) {
  return guarded([&]() -> Result<void> {
    RETURN_IF_ERROR(follows_newest(step));
    next_version(base::WeightVersion(step.value()));
    drop_sums_to(step);
    return {};
  });
}

std::string LocalStage::numerics_class() const { return numerics_class_of(device_, config_.threads, config_.numbers.compute); }

}  // namespace stagecoach::compute
