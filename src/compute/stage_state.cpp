// What a stage keeps between microbatches: weight versions, sums, moments; how a step changes them; how they come and go.
#include <cmath>
#include <cstring>
#include <string_view>

#include "base/check.h"
#include "compute/device.h"
#include "compute/fixed64.h"
#include "compute/initial.h"
#include "compute/local_stage.h"

namespace stagecoach::compute {

using base::Error;
using base::ErrorCode;
using base::Payload;
using base::Result;

namespace {

constexpr std::string_view kMoment = model::kMomentPrefix;
constexpr std::string_view kSecondMoment = model::kSecondMomentPrefix;

base::NamedTensor named(std::string name, const model::ParameterInfo& info, const float* values) {
  const auto* bytes = reinterpret_cast<const std::byte*>(values);
  const auto count = static_cast<std::size_t>(info.elements()) * sizeof(float);
  return {std::move(name), {base::DType::f32, info.shape, base::make_payload(base::Bytes(bytes, bytes + count))}};
}

/// The values of one tensor of a state, checked against what the stage expects.
Result<const base::TensorBytes*> find_tensor(const std::map<std::string_view, const base::TensorBytes*>& given,
                                             const std::string& name, const model::ParameterInfo& info) {
  const auto found = given.find(name);
  if (found == given.end()) return Error{ErrorCode::not_found, "the state has no tensor " + name};
  const base::TensorBytes& tensor = *found->second;
  const auto bytes = static_cast<std::size_t>(info.elements()) * sizeof(float);
  if (tensor.dtype != base::DType::f32 || tensor.shape != info.shape || !tensor.bytes || tensor.bytes->size() != bytes) {
    return Error{ErrorCode::mismatch, "the state's tensor " + name + " is not of this model's shape and type (float32)"};
  }
  std::vector<float> values(static_cast<std::size_t>(info.elements()));
  std::memcpy(values.data(), tensor.bytes->data(), bytes);
  if (!all_finite(values.data(), info.elements())) {
    return Error{ErrorCode::not_finite, "the state's tensor " + name + " holds NaN or infinity"};
  }
  return &tensor;
}

}  // namespace

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
      versions_kept_(static_cast<std::size_t>(options.versions_kept)),
      infos_(model::parameters(options.config.model, options.range)),
      scale_(fixed64_scale(options.config.batch.sequences * options.config.batch.tokens)),
      rotation_(make_rotation(options.config.model, options.config.batch.tokens, device)),
      optimizer_(options.config) {
  std::vector<at::Tensor> tensors;
  for (const model::ParameterInfo& info : infos_) {
    offsets_.push_back(elements_);
    elements_ += info.elements();
    const std::vector<float> values = initial_values(config_.model, info);
    const at::Tensor host = at::empty(info.shape);
    std::memcpy(host.mutable_data_ptr<float>(), values.data(), values.size() * sizeof(float));
    tensors.push_back(host.to(device_));
  }
  moments_.resize(static_cast<std::size_t>(elements_));
  second_moments_.resize(static_cast<std::size_t>(elements_));
  versions_.emplace(base::WeightVersion(0), new_weights(std::move(tensors)));
}

WeightSet LocalStage::new_weights(std::vector<at::Tensor> tensors) const {
  for (at::Tensor& tensor : tensors) tensor.requires_grad_(true);
  return weight_set(range_, infos_, std::move(tensors));
}

Accumulator& LocalStage::accumulator(base::Step step, base::Attempt attempt) {
  return sums_.try_emplace({step, attempt}, elements_).first->second;
}

Result<void> LocalStage::range_is_valid(ElementRange range) const {
  if (range.first >= 0 && range.first <= range.last && range.last <= elements_) return {};
  return Error{ErrorCode::invalid_argument, "elements " + std::to_string(range.first) + " to " + std::to_string(range.last) +
                                                " are not within the stage's " + std::to_string(elements_)};
}

Result<Payload> LocalStage::read_sum(base::Step step, base::Attempt attempt, ElementRange range) {
  RETURN_IF_ERROR(range_is_valid(range));
  std::vector<std::int64_t> slice(static_cast<std::size_t>(range.last - range.first));
  if (const auto found = sums_.find({step, attempt}); found != sums_.end()) found->second.read(range, slice.data());
  const auto* bytes = reinterpret_cast<const std::byte*>(slice.data());
  return base::make_payload(base::Bytes(bytes, bytes + slice.size() * sizeof(std::int64_t)));
}

Result<Payload> LocalStage::add_parts(const std::vector<Payload>& parts) {
  if (parts.empty() || !parts[0]) return Error{ErrorCode::invalid_argument, "there are no contributions to add"};
  std::vector<std::int64_t> total(parts[0]->size() / sizeof(std::int64_t)), part(total.size());
  for (const Payload& one : parts) {
    if (!one || one->size() != total.size() * sizeof(std::int64_t)) {
      return Error{ErrorCode::invalid_argument, "contributions to one slice have different lengths"};
    }
    std::memcpy(part.data(), one->data(), one->size());
    // Modulo 2^64, as unsigned: a peer's garbage must not be undefined here.
    for (std::size_t i = 0; i < total.size(); ++i) {
      total[i] = static_cast<std::int64_t>(static_cast<std::uint64_t>(total[i]) + static_cast<std::uint64_t>(part[i]));
    }
  }
  const auto* bytes = reinterpret_cast<const std::byte*>(total.data());
  return base::make_payload(base::Bytes(bytes, bytes + total.size() * sizeof(std::int64_t)));
}

Result<void> LocalStage::write_reduced(base::Step step, base::Attempt attempt, ElementRange range, const Payload& sums) {
  RETURN_IF_ERROR(range_is_valid(range));
  const auto count = static_cast<std::size_t>(range.last - range.first);
  if (!sums || sums->size() != count * sizeof(std::int64_t)) {
    return Error{ErrorCode::invalid_argument, "a slice of " + std::to_string(count) + " sums has 8 bytes each"};
  }
  std::vector<std::int64_t> slice(count);
  if (count > 0) std::memcpy(slice.data(), sums->data(), sums->size());
  accumulator(step, attempt).write_reduced(range, slice.data());
  return {};
}

Result<const Accumulator*> LocalStage::reduced(base::Step step, base::Attempt attempt) const {
  const auto found = sums_.find({step, attempt});
  if (found == sums_.end() || !found->second.reduced_whole()) {
    return Error{ErrorCode::invalid_argument,
                 "the group's sums of step " + std::to_string(step.value()) + " do not cover the whole stage yet"};
  }
  return &found->second;
}

Result<std::vector<TensorNorm>> LocalStage::norms(base::Step step, base::Attempt attempt) {
  auto sums = reduced(step, attempt);
  if (!sums.ok()) return sums.error();
  std::vector<TensorNorm> out;
  for (std::size_t i = 0; i < infos_.size(); ++i) {
    out.push_back({infos_[i].index, fixed64_sum_of_squares((*sums)->reduced() + offsets_[i], infos_[i].elements(),
                                                           optimizer_.mean_gradient_unit())});
  }
  return out;
}

Result<void> LocalStage::follows_newest(base::Step step) const {
  if (step.value() == version().value() + 1) return {};
  return Error{ErrorCode::invalid_argument, "step " + std::to_string(step.value()) + " does not follow weight version " +
                                                std::to_string(version().value())};
}

WeightSet& LocalStage::next_version(base::WeightVersion version) {
  const at::NoGradGuard no_graph;
  if (versions_kept_ == 1) {
    auto node = versions_.extract(versions_.begin());
    node.key() = version;
    return versions_.insert(std::move(node)).position->second;
  }
  const WeightSet& newest = versions_.rbegin()->second;
  if (versions_.size() < versions_kept_) {
    std::vector<at::Tensor> copies;
    for (const at::Tensor& tensor : newest.tensors) copies.push_back(tensor.detach().clone());
    return versions_.emplace(version, new_weights(std::move(copies))).first->second;
  }
  auto node = versions_.extract(versions_.begin());
  for (std::size_t i = 0; i < newest.tensors.size(); ++i) node.mapped().tensors[i].copy_(newest.tensors[i]);
  node.key() = version;
  return versions_.insert(std::move(node)).position->second;
}

void LocalStage::drop_sums_to(base::Step step) {
  sums_.erase(sums_.begin(), sums_.lower_bound({step.next(), base::Attempt(0)}));
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
    WeightSet& weights = next_version(base::WeightVersion(step.value()));
    const at::NoGradGuard no_graph;
    for (std::size_t i = 0; i < infos_.size(); ++i) {
      const at::Tensor host = weights.tensors[i].detach().cpu();  // the tensor itself where the device is the CPU
      Optimizer::update(factors, {infos_[i].elements(), (*sums)->reduced() + offsets_[i], host.mutable_data_ptr<float>(),
                                  moments_.data() + offsets_[i], second_moments_.data() + offsets_[i], infos_[i].decayed});
      if (!device_.is_cpu()) weights.tensors[i].copy_(host);
    }
    drop_sums_to(step);
    return {};
  });
}

Result<void> LocalStage::apply_nothing(base::Step step) {
  return guarded([&]() -> Result<void> {
    RETURN_IF_ERROR(follows_newest(step));
    next_version(base::WeightVersion(step.value()));
    drop_sums_to(step);
    return {};
  });
}

void LocalStage::void_attempts_before(base::Attempt attempt) {
  std::erase_if(sums_, [attempt](const auto& entry) { return entry.first.second < attempt; });
}

Result<std::vector<base::NamedTensor>> LocalStage::export_state() {
  return guarded([&]() -> Result<std::vector<base::NamedTensor>> {
    std::vector<base::NamedTensor> out;
    for (std::size_t i = 0; i < infos_.size(); ++i) {
      const at::Tensor host = versions_.rbegin()->second.tensors[i].detach().cpu();
      out.push_back(named(infos_[i].name, infos_[i], host.const_data_ptr<float>()));
    }
    const std::pair<std::string_view, const std::vector<float>*> states[] = {{kMoment, &moments_},
                                                                             {kSecondMoment, &second_moments_}};
    for (const auto& [prefix, values] : states) {
      for (std::size_t i = 0; i < infos_.size(); ++i) {
        out.push_back(named(std::string(prefix) + infos_[i].name, infos_[i], values->data() + offsets_[i]));
      }
    }
    return out;
  });
}

Result<void> LocalStage::import_state(base::WeightVersion version, const std::vector<base::NamedTensor>& tensors) {
  return guarded([&]() -> Result<void> {
    std::map<std::string_view, const base::TensorBytes*> given;
    for (const base::NamedTensor& one : tensors) given[one.name] = &one.tensor;
    std::vector<at::Tensor> weights;
    std::vector<float> moments(moments_.size()), second_moments(second_moments_.size());
    for (std::size_t i = 0; i < infos_.size(); ++i) {
      const model::ParameterInfo& info = infos_[i];
      const at::Tensor host = at::empty(info.shape);
      const std::pair<std::string, float*> places[] = {
          {info.name, host.mutable_data_ptr<float>()},
          {std::string(kMoment) + info.name, moments.data() + offsets_[i]},
          {std::string(kSecondMoment) + info.name, second_moments.data() + offsets_[i]}};
      for (const auto& [name, place] : places) {
        auto found = find_tensor(given, name, info);
        if (!found.ok()) return found.error();
        std::memcpy(place, (*found)->bytes->data(), (*found)->bytes->size());
      }
      weights.push_back(host.to(device_));
    }
    // Older versions and all sums belong to the past that this state replaces.
    versions_.clear();
    sums_.clear();
    versions_.emplace(version, new_weights(std::move(weights)));
    moments_ = std::move(moments);
    second_moments_ = std::move(second_moments);
    return {};
  });
}

std::string LocalStage::numerics_class() const { return numerics_class_of(device_, config_.threads); }

}  // namespace stagecoach::compute
