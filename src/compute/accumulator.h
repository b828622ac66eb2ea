// The gradient sums of one (step, attempt): this worker's own, and the group's.
//
// In:      fp32 gradients of microbatches; slices of reduced sums. Out: int64 sums.
// Thread:  compute; plain memory, no torch.
// Why:     a reduce must not destroy what it read (PROTOCOL B4): the two sums are two arrays.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/result.h"
#include "compute/stage.h"

namespace stagecoach::compute {

class Accumulator {
 public:
  explicit Accumulator(std::int64_t elements) : elements_(elements) {}

  /// One parameter tensor's gradient of one microbatch; `offset` is its place among the stage's elements.
  struct Piece {
    const float* gradient = nullptr;
    std::int64_t offset = 0;
    std::int64_t count = 0;
  };

  /// Adds a microbatch whole, or nothing of it.
  ///
  /// errors: not_finite, out_of_range: as in stage.h
  base::Result<void> add(const std::vector<Piece>& microbatch, double scale);

  /// The slice of this worker's own sum; zeros where nothing was added.
  void read(ElementRange range, std::int64_t* out) const;

  /// Stores a slice of the group's sum.
  void write_reduced(ElementRange range, const std::int64_t* sums);
  bool reduced_whole() const { return covered_.size() == 1 && covered_.begin()->first == 0 && covered_.begin()->second == elements_; }
  const std::int64_t* reduced() const { return reduced_.data(); }

 private:
  std::int64_t elements_ = 0;
  std::int64_t microbatches_ = 0;
  std::vector<std::int64_t> own_;                   // empty until the first microbatch
  std::vector<std::int64_t> reduced_;               // empty until the first slice
  std::map<std::int64_t, std::int64_t> covered_;    // disjoint [first, last) of reduced_, merged
};

}  // namespace stagecoach::compute
