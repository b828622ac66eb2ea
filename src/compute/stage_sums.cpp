// A stage's gradient sums: into the reduce, back from it, and their norms.
#include <cmath>

#include "compute/device.h"
#include "compute/local_stage.h"
#include "compute/sums.h"

namespace stagecoach::compute {

using base::Error;
using base::ErrorCode;
using base::Payload;
using base::Result;

Accumulator& LocalStage::accumulator(base::Step step, base::Attempt attempt) {
  const model::SumKind kind = config_.numbers.sums;
  const double scale = sum_scale(kind, config_.batch.tokens_per_microbatch());
  return sums_.try_emplace({step, attempt}, Accumulator::Options{elements_, kind, scale, state_device_, &math_, &spare_sums_}).first->second;
}

Result<void> LocalStage::range_is_valid(ElementRange range) const {
  if (range.first >= 0 && range.first <= range.last && range.last <= elements_) return {};
  return Error{ErrorCode::invalid_argument, "elements " + std::to_string(range.first) + " to " + std::to_string(range.last) +
                                                " are not within the stage's " + std::to_string(elements_)};
}

Result<Payload> LocalStage::read_sum(base::Step step, base::Attempt attempt, ElementRange range) {
  return guarded([&]() -> Result<Payload> {
    RETURN_IF_ERROR(range_is_valid(range));
    if (const auto found = sums_.find({step, attempt}); found != sums_.end()) return found->second.read(range);
    const std::int64_t bytes = (range.last - range.first) * model::bytes_of(config_.numbers.sums);
    return base::make_payload(base::Bytes(static_cast<std::size_t>(bytes)));
  });
}

Result<Payload> LocalStage::add_parts(const std::vector<Payload>& parts) {
  if (parts.empty() || !parts[0]) return Error{ErrorCode::invalid_argument, "there are no contributions to add"};
  const model::SumKind kind = config_.numbers.sums;
  const auto element_bytes = static_cast<std::size_t>(model::bytes_of(kind));
  std::vector<const std::byte*> slices;
  for (const Payload& one : parts) {
    if (!one || one->size() != parts[0]->size() || one->size() % element_bytes != 0) {
      return Error{ErrorCode::invalid_argument, "contributions to one slice must be whole sums of " +
                                                    std::to_string(element_bytes) + " bytes each, and of one length"};
    }
    slices.push_back(one->data());
  }
  base::Bytes total(parts[0]->size());
  add_sums(kind, slices, static_cast<std::int64_t>(total.size() / element_bytes), total.data());
  return base::make_payload(std::move(total));
}

Result<void> LocalStage::write_reduced(base::Step step, base::Attempt attempt, ElementRange range, const Payload& sums) {
  return guarded([&]() -> Result<void> {
    RETURN_IF_ERROR(range_is_valid(range));
    const std::int64_t element_bytes = model::bytes_of(config_.numbers.sums);
    const std::int64_t count = range.last - range.first;
    if (!sums || sums->size() != static_cast<std::size_t>(count * element_bytes)) {
      return Error{ErrorCode::invalid_argument, "a slice of " + std::to_string(count) + " sums has " +
                                                    std::to_string(element_bytes) + " bytes each, not " +
                                                    (sums ? std::to_string(sums->size()) + " in all" : "none")};
    }
    accumulator(step, attempt).write_reduced(range, sums->data());
    return {};
  });
}

Result<void> LocalStage::reduce_alone(base::Step step, base::Attempt attempt) {
  return guarded([&]() -> Result<void> { return accumulator(step, attempt).reduce_alone(); });
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
  return guarded([&]() -> Result<std::vector<TensorNorm>> {
    use_threads(config_.threads);
    auto sums = reduced(step, attempt);
    if (!sums.ok()) return sums.error();
    std::vector<at::Tensor> slices;
    for (std::size_t i = 0; i < infos_.size(); ++i) slices.push_back((*sums)->reduced(offsets_[i], infos_[i].elements()));
    const std::vector<double> squares = math_.sums_of_squares(slices, optimizer_.mean_gradient_unit());
    std::vector<TensorNorm> out;
    for (std::size_t i = 0; i < infos_.size(); ++i) {
      if (!std::isfinite(squares[i])) {
        return Error{ErrorCode::not_finite, "the group's summed gradient of " + infos_[i].name + " is NaN or infinite"};
      }
      out.push_back({infos_[i].index, squares[i]});
    }
    return out;
  });
}

void LocalStage::drop_sums_to(base::Step step) {
  kept_.drop_steps_to(step, versions_.begin()->first);
  sums_.erase(sums_.begin(), sums_.lower_bound({step.next(), base::Attempt(0)}));
}

void LocalStage::void_attempts_before(base::Attempt attempt) {
  kept_.drop_attempts_before(attempt);
  std::erase_if(sums_, [attempt](const auto& entry) { return entry.first.second < attempt; });
}

}  // namespace stagecoach::compute
