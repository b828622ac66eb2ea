// See accumulator.h.
#include "compute/accumulator.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "compute/fixed64.h"

namespace stagecoach::compute {

using base::Error;
using base::ErrorCode;
using base::Result;

namespace {

/// A tensor as bytes of this machine's memory. Copies nothing where it lies there already.
at::Tensor on_host(const at::Tensor& tensor) { return tensor.cpu().contiguous(); }

Error spoiled() {
  return Error{ErrorCode::not_finite, "the sums of this attempt hold a part of a microbatch that failed: begin another attempt"};
}

}  // namespace

Result<Accumulator::Microbatch> Accumulator::begin() {
  if (spoiled_) return spoiled();
  if (microbatches_ >= kMicrobatchesPerSumMax) {
    return Error{ErrorCode::out_of_range,
                 "more than " + std::to_string(kMicrobatchesPerSumMax) + " microbatches were added up in one step"};
  }
  if (!own_.defined()) own_ = zeros();
  if (alone_) {
    reduced_ = own_.clone();
    alone_ = false;
  }
  return Microbatch(*this);
}

Result<void> Accumulator::Microbatch::add(std::int64_t offset, const at::Tensor& gradient) {
  CHECK(sums_ != nullptr, "a microbatch that is finished takes no more");
  const Options& options = sums_->options_;
  CHECK(offset >= 0 && offset + gradient.numel() <= options.elements, "a gradient lies within the stage's elements");
  const at::Tensor flat = gradient.to(options.device).contiguous().view({-1});
  touched_ = true;
  // Should torch throw in the middle of the addition, nobody knows what was added.
  sums_->spoiled_ = true;
  const bool fits = options.math->add_gradient(flat, options.scale, sums_->own_.narrow(0, offset, flat.numel()));
  sums_->spoiled_ = false;
  if (options.kind == model::SumKind::fixed64) held_.emplace_back(offset, flat);
  if (fits) return {};
  if (options.kind != model::SumKind::fixed64 || !at::isfinite(flat).all().item<bool>()) {
    return Error{ErrorCode::not_finite, "a gradient is NaN or infinite"};
  }
  return Error{ErrorCode::out_of_range,
               "a gradient is 128 or more a token, which fixed64 does not hold: lower the learning rate"};
}

void Accumulator::Microbatch::finish() {
  CHECK(sums_ != nullptr, "a microbatch is finished once");
  ++sums_->microbatches_;
  sums_ = nullptr;
  held_.clear();
}

Accumulator::Microbatch::~Microbatch() {
  if (!sums_ || !touched_) return;
  const Options& options = sums_->options_;
  if (options.kind != model::SumKind::fixed64) sums_->spoiled_ = true;
  for (const auto& [offset, flat] : held_) {
    options.math->subtract_gradient(flat, options.scale, sums_->own_.narrow(0, offset, flat.numel()));
  }
}

Result<base::Payload> Accumulator::read(ElementRange range) const {
  if (spoiled_) return spoiled();
  const auto bytes = static_cast<std::size_t>((range.last - range.first) * element_bytes());
  if (!own_.defined() || bytes == 0) return base::make_payload(base::Bytes(bytes));
  const at::Tensor slice = on_host(own_.narrow(0, range.first, range.last - range.first));
  const auto* first = static_cast<const std::byte*>(slice.const_data_ptr());
  return base::make_payload(base::Bytes(first, first + bytes));
}

void Accumulator::write_reduced(ElementRange range, const std::byte* sums) {
  if (range.first == range.last) return;
  CHECK(!alone_, "a group of one gets no sums from others");
  if (!reduced_.defined()) reduced_ = at::empty({options_.elements}, at::TensorOptions(scalar_type(options_.kind)).device(options_.device));
  const std::int64_t count = range.last - range.first;
  const at::Tensor place = reduced_.narrow(0, range.first, count);
  if (options_.device.is_cpu()) std::memcpy(place.mutable_data_ptr(), sums, static_cast<std::size_t>(count * element_bytes()));
  else place.copy_(uploaded(sums, count));
  cover(range);
}

Result<void> Accumulator::reduce_alone() {
  if (spoiled_) return spoiled();
  if (!own_.defined()) own_ = zeros();
  reduced_ = at::Tensor();
  alone_ = true;
  return {};
}

at::Tensor Accumulator::reduced(std::int64_t first, std::int64_t count) const {
  return (alone_ ? own_ : reduced_).narrow(0, first, count);
}

Accumulator::~Accumulator() {
  if (options_.spare != nullptr && own_.defined()) *options_.spare = std::move(own_);
}

at::Tensor Accumulator::zeros() {
  if (options_.spare != nullptr && options_.spare->defined()) return std::exchange(*options_.spare, at::Tensor()).zero_();
  return at::zeros({options_.elements}, at::TensorOptions(scalar_type(options_.kind)).device(options_.device));
}

at::Tensor Accumulator::uploaded(const std::byte* sums, std::int64_t count) const {
  const at::Tensor host = at::empty({count}, scalar_type(options_.kind));
  std::memcpy(host.mutable_data_ptr(), sums, static_cast<std::size_t>(count * element_bytes()));
  return host.to(options_.device);
}

void Accumulator::cover(ElementRange range) {
  auto [first, last] = std::pair(range.first, range.last);
  auto next = covered_.lower_bound(first);
  if (next != covered_.begin() && std::prev(next)->second >= first) --next;
  while (next != covered_.end() && next->first <= last) {
    first = std::min(first, next->first);
    last = std::max(last, next->second);
    next = covered_.erase(next);
  }
  covered_[first] = last;
}

}  // namespace stagecoach::compute
