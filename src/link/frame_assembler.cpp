#include "link/frame_assembler.h"

#include <algorithm>
#include <string>

namespace stagecoach::link {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

/// The first allocation of a frame; it doubles from there as bytes arrive.
constexpr std::size_t kFirstStepBytes = 1u << 20;

Error broken(const std::string& rule) { return Error{ErrorCode::corrupt, rule}; }

}  // namespace

Result<void> FrameAssembler::feed(std::span<const std::byte> bytes, bool finished, std::vector<AssembledFrame>& out) {
  while (!bytes.empty()) {
    if (done_) return broken("bytes after the end of a frame on its stream");
    if (!in_frame_) {
      const std::size_t take = std::min(bytes.size(), prefix_size() - prefix_have_);
      std::copy_n(bytes.begin(), take, prefix_.begin() + static_cast<std::ptrdiff_t>(prefix_have_));
      prefix_have_ += take;
      bytes = bytes.subspan(take);
      if (prefix_have_ < prefix_size()) break;
      RETURN_IF_ERROR(start_frame());
    }
    const std::size_t take = std::min<std::size_t>(bytes.size(), length_ - frame_.size());
    if (take > 0) {
      RETURN_IF_ERROR(make_room(take));
      frame_.insert(frame_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(take));
      bytes = bytes.subspan(take);
    }
    if (frame_.size() == length_) finish_frame(out);
  }
  if (!finished) return {};
  if (stream_ == Stream::control) return broken("the control stream ended");
  if (!done_) return broken("a stream ended inside its frame");
  return {};
}

Result<void> FrameAssembler::start_frame() {
  base::ByteReader reader{std::span<const std::byte>(prefix_).first(prefix_size())};
  priority_ = Priority::control;
  if (stream_ == Stream::single_frame) {
    const std::uint8_t priority = reader.u8();
    if (priority >= kPriorities) return broken("a frame of unknown priority " + std::to_string(priority));
    if (priority == 0) return broken("a control frame outside the control stream");
    priority_ = static_cast<Priority>(priority);
  }
  length_ = reader.u32();
  const std::uint32_t limit = stream_ == Stream::control ? kControlFrameBytesMax : kFrameBytesMax;
  if (length_ > limit) {
    return Error{ErrorCode::too_large, "a frame of " + std::to_string(length_) + " bytes was announced; the limit is " + std::to_string(limit)};
  }
  in_frame_ = true;
  return {};
}

Result<void> FrameAssembler::make_room(std::size_t incoming) {
  const std::size_t needed = frame_.size() + incoming;
  if (needed <= charged_) return {};
  const std::size_t step = std::max({needed, kFirstStepBytes, 2 * frame_.capacity()});
  const std::size_t capacity = std::min<std::size_t>(length_, step);
  if (!budget_.take(capacity - charged_)) {
    return Error{ErrorCode::too_large, "the unfinished frames of this link are more than its receive buffer"};
  }
  charged_ = capacity;
  frame_.reserve(capacity);
  return {};
}

void FrameAssembler::finish_frame(std::vector<AssembledFrame>& out) {
  out.push_back(AssembledFrame{priority_, std::move(frame_)});
  frame_ = base::Bytes();
  budget_.give_back(charged_);
  charged_ = 0;
  prefix_have_ = 0;
  in_frame_ = false;
  done_ = stream_ == Stream::single_frame;
}

}  // namespace stagecoach::link
