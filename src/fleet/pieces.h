// TensorPieces: which bytes of one tensor have arrived, from slices in any order.
//
// In:      offsets and lengths. Out: whether a slice is new, and whether the tensor is whole.
// Thread:  any; a value.
// Why:     a save that is asked for twice sends some slices twice; counting bytes instead of places would then call a tensor whole
//          that has a hole.
#pragma once

#include <cstdint>
#include <iterator>
#include <map>

namespace stagecoach::fleet {

class TensorPieces {
 public:
  explicit TensorPieces(std::uint64_t bytes) : bytes_(bytes) {}

  enum class Added : std::uint8_t { fresh, repeat, nonsense };
  /// Takes note of [offset, offset + length). nonsense: empty, beyond the end, partly here already, or in too many splinters.
  Added add(std::uint64_t offset, std::uint64_t length) {
    if (length == 0 || offset > bytes_ || length > bytes_ - offset) return Added::nonsense;
    std::uint64_t first = offset, last = offset + length;
    auto after = spans_.upper_bound(first);
    if (after != spans_.begin()) {
      const auto before = std::prev(after);
      if (before->second >= last) return Added::repeat;
      if (before->second > first) return Added::nonsense;
      if (before->second == first) {
        first = before->first;
        spans_.erase(before);
      }
    }
    if (after != spans_.end() && after->first < last) return Added::nonsense;
    if (after != spans_.end() && after->first == last) {
      last = after->second;
      spans_.erase(after);
    }
    if (spans_.size() >= kSpansMax) return Added::nonsense;
    spans_[first] = last;
    return Added::fresh;
  }
  bool whole() const { return spans_.size() == 1 && spans_.begin()->first == 0 && spans_.begin()->second == bytes_; }
  std::uint64_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kSpansMax = 4096;  // slices come nearly in order: more gaps than this are no accident
  std::uint64_t bytes_ = 0;
  std::map<std::uint64_t, std::uint64_t> spans_;  // first -> end, neither touching nor overlapping
};

}  // namespace stagecoach::fleet
