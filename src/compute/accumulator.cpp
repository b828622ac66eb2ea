// See accumulator.h.
#include "compute/accumulator.h"

#include <algorithm>
#include <cstring>

#include "compute/fixed64.h"

namespace stagecoach::compute {

base::Result<void> Accumulator::add(const std::vector<Piece>& microbatch, double scale) {
  if (microbatches_ >= kMicrobatchesPerSumMax) {
    return base::Error{base::ErrorCode::out_of_range,
                       "more than " + std::to_string(kMicrobatchesPerSumMax) + " microbatches were added up in one step"};
  }
  if (own_.empty()) own_.resize(static_cast<std::size_t>(elements_));
  bool fits = true;
  std::size_t done = 0;
  while (fits && done < microbatch.size()) {
    const Piece& piece = microbatch[done++];
    fits = fixed64_add(piece.gradient, piece.count, scale, own_.data() + piece.offset);
  }
  if (fits) {
    ++microbatches_;
    return {};
  }
  bool finite = true;
  for (std::size_t i = 0; i < done; ++i) {
    const Piece& piece = microbatch[i];
    fixed64_subtract(piece.gradient, piece.count, scale, own_.data() + piece.offset);
    finite = finite && all_finite(piece.gradient, piece.count);
  }
  if (!finite) return base::Error{base::ErrorCode::not_finite, "a gradient is NaN or infinite"};
  return base::Error{base::ErrorCode::out_of_range,
                     "a gradient is 128 or more a token, which fixed64 does not hold: lower the learning rate"};
}

void Accumulator::read(ElementRange range, std::int64_t* out) const {
  const auto count = static_cast<std::size_t>(range.last - range.first);
  if (own_.empty()) {
    std::fill_n(out, count, std::int64_t{0});
  } else {
    std::memcpy(out, own_.data() + range.first, count * sizeof *out);
  }
}

void Accumulator::write_reduced(ElementRange range, const std::int64_t* sums) {
  if (range.first == range.last) return;
  if (reduced_.empty()) reduced_.resize(static_cast<std::size_t>(elements_));
  std::memcpy(reduced_.data() + range.first, sums, static_cast<std::size_t>(range.last - range.first) * sizeof *sums);
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
