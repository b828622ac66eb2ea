// FrameAssembler: one incoming stream's bytes become whole frames.
//
// In:      a stream's bytes in order, in any split, and whether it ended (docs/formats/road.md).
// Out:     whole frames, oldest first; or the sentence that says which rule the peer broke.
// Thread:  loop. No clock, no socket, no QUIC.
// Why:     the first code that a hostile peer reaches stands alone, so that it can be fuzzed without a network.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "link/link.h"

namespace stagecoach::link {

/// A control frame on its stream: u32 length, bytes.
inline constexpr std::size_t kControlPrefixBytes = 4;
/// Any other frame on a stream of its own: u8 priority, u32 length, bytes, end of stream.
inline constexpr std::size_t kFramePrefixBytes = 5;

/// What the unfinished frames of one link may hold together, in allocated bytes.
class ReceiveBudget {
 public:
  explicit ReceiveBudget(std::uint64_t limit_bytes) : limit_(limit_bytes) {}
  /// False, and nothing taken, where `bytes` more would pass the limit.
  [[nodiscard]] bool take(std::uint64_t bytes) {
    if (bytes > limit_ - used_) return false;
    used_ += bytes;
    return true;
  }
  void give_back(std::uint64_t bytes) {
    CHECK(bytes <= used_, "only what was taken is given back");
    used_ -= bytes;
  }
  std::uint64_t used() const { return used_; }

 private:
  std::uint64_t limit_;
  std::uint64_t used_ = 0;
};

struct AssembledFrame {
  Priority priority = Priority::control;
  base::Bytes bytes;
};

class FrameAssembler {
 public:
  enum class Stream {
    control,       // frames after each other, without end
    single_frame,  // one frame of another priority, then the end
  };

  /// owns: `budget` outlives this.
  FrameAssembler(Stream stream, ReceiveBudget& budget) : stream_(stream), budget_(budget) {}
  ~FrameAssembler() { budget_.give_back(charged_); }
  FrameAssembler(const FrameAssembler&) = delete;
  FrameAssembler& operator=(const FrameAssembler&) = delete;

  /// Consumes all of `bytes`, appending the frames they complete to `out`. Memory grows with what arrived, never with what was announced.
  ///
  /// errors: too_large  a length beyond its limit, or the budget is used up · corrupt  unknown priority, a stream that ends inside a
  ///         frame, bytes after it, a control stream that ends. After an error: drop the link.
  base::Result<void> feed(std::span<const std::byte> bytes, bool finished, std::vector<AssembledFrame>& out);
  /// More bytes of a frame, or of a stream that must hold one, are owed.
  bool unfinished() const { return in_frame_ || prefix_have_ > 0 || (stream_ == Stream::single_frame && !done_); }

 private:
  std::size_t prefix_size() const { return stream_ == Stream::control ? kControlPrefixBytes : kFramePrefixBytes; }
  base::Result<void> start_frame();
  base::Result<void> make_room(std::size_t incoming);
  void finish_frame(std::vector<AssembledFrame>& out);

  const Stream stream_;
  ReceiveBudget& budget_;
  std::array<std::byte, kFramePrefixBytes> prefix_{};
  std::size_t prefix_have_ = 0;
  bool in_frame_ = false;  // the prefix is whole, the frame is not
  bool done_ = false;      // a single-frame stream has given its frame
  Priority priority_ = Priority::control;
  std::uint32_t length_ = 0;
  base::Bytes frame_;
  std::uint64_t charged_ = 0;
};

}  // namespace stagecoach::link
