// A stage's state as named tensors: what a checkpoint holds of it, and back.
#include <algorithm>
#include <cstring>
#include <map>
#include <string_view>

#include "compute/device.h"
#include "compute/local_stage.h"
#include "compute/sums.h"

namespace stagecoach::compute {

using base::Error;
using base::ErrorCode;
using base::Result;

/// One tensor of the state under its global name.
struct LocalStage::StatePlace {
  std::string name;
  const model::ParameterInfo* info;
  at::Tensor tensor;  // flat
};

namespace {

base::DType dtype_of(model::FloatKind kind) { return kind == model::FloatKind::float32 ? base::DType::f32 : base::DType::bf16; }

const char* name_of(base::DType dtype) {
  switch (dtype) {
    case base::DType::f32: return "F32";
    case base::DType::bf16: return "BF16";
    case base::DType::i64: return "I64";
    case base::DType::i32: return "I32";
  }
  return "unknown";
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t extent : shape) text += (text.empty() ? "" : " × ") + std::to_string(extent);
  return text;
}

/// True where no number in `bytes`, which may lie anywhere in memory, is NaN or infinite.
bool bytes_are_finite(const base::Bytes& bytes, model::FloatKind kind) {
  alignas(float) std::byte block[1 << 12];
  for (std::size_t at = 0; at < bytes.size(); at += sizeof block) {
    const std::size_t count = std::min(sizeof block, bytes.size() - at);
    std::memcpy(block, bytes.data() + at, count);
    if (!all_finite({block, kind, static_cast<std::int64_t>(count) / model::bytes_of(kind)})) return false;
  }
  return true;
}

/// Null where `given` is what the stage's tensor of that name must be.
std::optional<Error> what_is_wrong(const base::TensorBytes& given, const std::string& name, const model::ParameterInfo& info,
                                   model::FloatKind kind) {
  const base::DType dtype = dtype_of(kind);
  if (given.dtype != dtype) {
    return Error{ErrorCode::mismatch, "the state's tensor " + name + " is " + name_of(given.dtype) + ", but numbers.state (compute.state_dtype) asks for " +
                                          name_of(dtype) + ": resume with the config that the state was made with"};
  }
  if (given.shape != info.shape) {
    return Error{ErrorCode::mismatch, "the state's tensor " + name + " is " + shape_text(given.shape) + ", but this model's is " +
                                          shape_text(info.shape)};
  }
  const auto bytes = static_cast<std::size_t>(info.elements() * model::bytes_of(kind));
  if (!given.bytes || given.bytes->size() != bytes) {
    return Error{ErrorCode::mismatch, "the state's tensor " + name + " must have " + std::to_string(bytes) + " bytes, not " +
                                          std::to_string(given.bytes ? given.bytes->size() : 0)};
  }
  if (!bytes_are_finite(*given.bytes, kind)) {
    return Error{ErrorCode::not_finite, "the state's tensor " + name + " holds NaN or infinity"};
  }
  return std::nullopt;
}

}  // namespace

/// Weights first, then moments, each in tensor order.
std::vector<LocalStage::StatePlace> LocalStage::state_places() {
  std::vector<StatePlace> places;
  for (std::size_t i = 0; i < infos_.size(); ++i) places.push_back({infos_[i].name, &infos_[i], state_.weights[i]});
  for (std::size_t moment = 0; moment < 2; ++moment) {
    for (std::size_t i = 0; i < infos_.size(); ++i) {
      const auto prefixes = model::moment_prefixes(model::update_rule(config_.optimizer, infos_[i]));
      if (moment >= prefixes.size()) continue;
      const at::Tensor& tensor = moment == 0 ? state_.moments[i] : state_.second_moments[i];
      places.push_back({std::string(prefixes[moment]) + infos_[i].name, &infos_[i], tensor});
    }
  }
  return places;
}

Result<std::vector<base::NamedTensor>> LocalStage::export_state() {
  return guarded([&]() -> Result<std::vector<base::NamedTensor>> {
    const base::DType dtype = dtype_of(config_.numbers.state);
    std::vector<base::NamedTensor> out;
    for (StatePlace& place : state_places()) {
      const at::Tensor host = place.tensor.cpu();
      const auto* bytes = static_cast<const std::byte*>(host.const_data_ptr());
      out.push_back({std::move(place.name), {dtype, place.info->shape, base::make_payload(base::Bytes(bytes, bytes + host.nbytes()))}});
    }
    return out;
  });
}

Result<void> LocalStage::import_state(base::WeightVersion version, const std::vector<base::NamedTensor>& tensors) {
  return guarded([&]() -> Result<void> {
    std::map<std::string_view, const base::TensorBytes*> given;
    for (const base::NamedTensor& one : tensors) given[one.name] = &one.tensor;
    // All is tested before anything is changed: a second state beside the first may not fit into the memory.
    for (const StatePlace& place : state_places()) {
      const auto found = given.find(place.name);
      if (found == given.end()) {
        return Error{ErrorCode::not_found, "the state has no tensor " + place.name +
                                               ": it is of another model or optimizer (optimizer.kind decides what is kept)"};
      }
      if (auto wrong = what_is_wrong(*found->second, place.name, *place.info, config_.numbers.state)) return *wrong;
    }
    // Older versions and all sums belong to the past that this state replaces.
    sums_.clear();
    kept_.clear();
    versions_.erase(versions_.begin(), std::prev(versions_.end()));
    auto node = versions_.extract(versions_.begin());
    node.key() = version;
    const WeightSet& weights = versions_.insert(std::move(node)).position->second;
    const at::NoGradGuard no_graph;
    for (const StatePlace& place : state_places()) {
      const at::Tensor host = at::empty_like(place.tensor, at::TensorOptions(at::kCPU));
      std::memcpy(host.mutable_data_ptr(), given.at(place.name)->bytes->data(), host.nbytes());
      place.tensor.copy_(host);
    }
    if (weights_are_state()) return {};
    for (std::size_t i = 0; i < infos_.size(); ++i) weights.tensors[i].detach().view({-1}).copy_(state_.weights[i]);
    return {};
  });
}

}  // namespace stagecoach::compute
