// The gradient sums of one (step, attempt): this worker's own, and the group's.
//
// In:      gradients of microbatches, tensor by tensor; slices of reduced sums as bytes. Out: slices of sums, the same way.
// Thread:  compute.
// Why:     a reduce must not destroy what it read (PROTOCOL B4), so the two sums are two arrays; a group of one has one, and moves
//          nothing.
#pragma once

#include <cstddef>
#include <map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "compute/stage.h"
#include "compute/state_math.h"

namespace stagecoach::compute {

class Accumulator {
 public:
  struct Options {
    std::int64_t elements = 0;  // N of the stage
    model::SumKind kind = model::SumKind::fixed64;
    double scale = 1;           // sum_scale() of a microbatch
    at::Device device = at::kCPU;
    const StateMath* math = &host_math();  // must know `device`
    /// Where the memory of this worker's sums comes from and goes to at the end, if anywhere: fetching so much anew from the kernel and
    /// giving it back takes longer than filling it with zeros. Outlives the accumulator.
    at::Tensor* spare = nullptr;
  };
  explicit Accumulator(const Options& options) : options_(options) {}
  Accumulator(const Accumulator&) = delete;
  Accumulator& operator=(const Accumulator&) = delete;
  ~Accumulator();

  /// One microbatch on its way into the sums. Its accumulator outlives it. What is not finished when it is destroyed is taken back: with
  /// fixed64 to the bit; float sums cannot be, so that they are spoiled, and reading them is an error until their attempt is dropped.
  class Microbatch {
   public:
    explicit Microbatch(Accumulator& sums) : sums_(&sums) {}
    Microbatch(Microbatch&& other) noexcept
        : sums_(std::exchange(other.sums_, nullptr)), touched_(other.touched_), held_(std::move(other.held_)) {}
    Microbatch& operator=(Microbatch&&) = delete;
    ~Microbatch();

    /// Adds one parameter tensor's summed-loss gradient, float32 or bfloat16, any device and shape; `offset` is its place among the
    /// stage's elements. With fixed64 the tensor is held until finish() and must stay as it is; float kinds let go of it at once.
    ///
    /// errors: not_finite, out_of_range: as in stage.h; destroy the microbatch
    base::Result<void> add(std::int64_t offset, const at::Tensor& gradient);

    /// The microbatch is whole: it counts.
    void finish();

   private:
    Accumulator* sums_;
    bool touched_ = false;                                   // something was added
    std::vector<std::pair<std::int64_t, at::Tensor>> held_;  // what was added, and where: fixed64 only
  };

  /// errors: out_of_range  kMicrobatchesPerSumMax are in it already · not_finite  it is spoiled
  base::Result<Microbatch> begin();

  /// The slice of this worker's own sum as bytes; zeros where nothing was added.
  ///
  /// errors: not_finite  it is spoiled
  base::Result<base::Payload> read(ElementRange range) const;

  /// Stores a slice of the group's sum: (last − first) elements of bytes, in any alignment.
  void write_reduced(ElementRange range, const std::byte* sums);
  /// The group's sum is this worker's own, whole; nothing is copied.
  ///
  /// errors: not_finite  it is spoiled
  base::Result<void> reduce_alone();
  bool reduced_whole() const {
    if (alone_) return true;
    return covered_.size() == 1 && covered_.begin()->first == 0 && covered_.begin()->second == options_.elements;
  }
  /// A slice of the group's sum, to be read only; valid where it was written.
  at::Tensor reduced(std::int64_t first, std::int64_t count) const;
  /// True where the group's sums take memory of their own.
  bool reduced_is_stored() const { return reduced_.defined(); }

 private:
  std::int64_t element_bytes() const { return model::bytes_of(options_.kind); }
  at::Tensor zeros();
  at::Tensor uploaded(const std::byte* sums, std::int64_t count) const;
  void cover(ElementRange range);

  const Options options_;
  std::int64_t microbatches_ = 0;
  bool spoiled_ = false;
  at::Tensor own_;                                // [N], undefined until the first microbatch
  at::Tensor reduced_;                            // [N], undefined until the first slice
  bool alone_ = false;                            // the group's sum is own_
  std::map<std::int64_t, std::int64_t> covered_;  // disjoint [first, last) of what was written, merged
};

}  // namespace stagecoach::compute
