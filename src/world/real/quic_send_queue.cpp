#include "world/real/quic_send_queue.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace stagecoach::world::real {
namespace {

using base::Instant;
using link::Priority;

constexpr Instant kBeforeAll = Instant::from_ns(std::numeric_limits<std::int64_t>::min());

void write_prefix(QuicSendQueue::Frame& frame) {
  base::ByteWriter writer;
  if (frame.order.priority != Priority::control) writer.u8(static_cast<std::uint8_t>(frame.order.priority));
  writer.u32(static_cast<std::uint32_t>(frame.bytes->size()));
  frame.prefix_size = writer.size();
  const base::Bytes prefix = writer.take();
  std::copy(prefix.begin(), prefix.end(), frame.prefix.begin());
}

/// Appends what is left of `frame` to `piece`.
void append_rest(const QuicSendQueue::Frame& frame, QuicSendQueue::Piece& piece) {
  if (frame.written < frame.prefix_size) {
    piece.parts[piece.count++] = std::span(frame.prefix).subspan(frame.written, frame.prefix_size - frame.written);
  }
  const std::uint64_t from = frame.written > frame.prefix_size ? frame.written - frame.prefix_size : 0;
  if (from < frame.bytes->size()) piece.parts[piece.count++] = std::span(*frame.bytes).subspan(from);
}

/// How many bytes of the frame itself lie before `position` in prefix and frame.
std::uint64_t beyond_prefix(const QuicSendQueue::Frame& frame, std::uint64_t position) {
  return position > frame.prefix_size ? position - frame.prefix_size : 0;
}

}  // namespace

std::uint64_t QuicSendQueue::Piece::bytes() const {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < count; ++i) sum += parts[i].size();
  return sum;
}

void QuicSendQueue::push(link::SendOptions options, base::Payload bytes) {
  bytes_queued_ += bytes->size();
  Frame frame;
  frame.order = {options.priority, options.deadline, next_sequence_++};
  frame.bytes = std::move(bytes);
  write_prefix(frame);
  if (options.priority == Priority::control) {
    control_.push_back(std::move(frame));
    return;
  }
  const link::SendOrder order = frame.order;
  waiting_.emplace(order, std::make_unique<Frame>(std::move(frame)));
}

void QuicSendQueue::push_greeting(base::Payload bytes) {
  CHECK(control_.empty(), "the greeting is the first control frame");
  push({Priority::control}, std::move(bytes));
  control_.back().counted = false;
  bytes_queued_ -= control_.back().bytes->size();
}

bool QuicSendQueue::next(Bulk bulk, Piece& piece) {
  if (bulk == Bulk::first && next_of(Priority::bulk, piece)) return true;
  if (next_control(piece)) return true;
  if (next_of(Priority::backward, piece) || next_of(Priority::forward, piece)) return true;
  return bulk == Bulk::after_urgent && next_of(Priority::bulk, piece);
}

bool QuicSendQueue::next_control(Piece& piece) {
  if (control_stream_ == kNoStream || control_blocked_ || control_next_ == control_.size()) return false;
  piece = Piece();
  piece.stream = control_stream_;
  for (std::size_t i = control_next_; i < control_.size() && piece.count + 2 <= Piece::kPartsMax; ++i) append_rest(control_[i], piece);
  return true;
}

bool QuicSendQueue::next_of(Priority priority, Piece& piece) {
  std::size_t seen = 0;
  for (auto at = first_of(priority); at != waiting_.end() && at->first.priority == priority && seen < kHeads; ++at, ++seen) {
    Frame& frame = *at->second;
    if (frame.stream == kNoStream || frame.blocked) continue;
    piece = Piece();
    piece.stream = frame.stream;
    piece.frame = &frame;
    piece.end = true;
    piece.bulk = priority == Priority::bulk;
    append_rest(frame, piece);
    return true;
  }
  return false;
}

void QuicSendQueue::wrote(const Piece& piece, std::uint64_t bytes) {
  if (piece.frame == nullptr) return wrote_control(bytes);
  Frame& frame = *piece.frame;
  const bool begins = frame.written == 0;
  count_written(frame, bytes);
  frame.written += bytes;
  CHECK(frame.written <= frame.size(), "a packet takes no more than it was offered");
  const bool whole = frame.written == frame.size();
  if (!whole && !begins) return;
  auto node = waiting_.extract(frame.order);
  CHECK(!node.empty(), "a frame that is being written waits");
  if (whole) {
    written_.emplace(&frame, std::move(node.mapped()));
    return;
  }
  frame.order.deadline = kBeforeAll;
  node.key() = frame.order;
  waiting_.insert(std::move(node));
}

void QuicSendQueue::wrote_control(std::uint64_t bytes) {
  while (bytes > 0) {
    CHECK(control_next_ < control_.size(), "a packet takes no more than it was offered");
    Frame& frame = control_[control_next_];
    const std::uint64_t part = std::min(bytes, frame.size() - frame.written);
    count_written(frame, part);
    frame.written += part;
    bytes -= part;
    if (frame.written == frame.size()) ++control_next_;
  }
}

void QuicSendQueue::count_written(const Frame& frame, std::uint64_t bytes) {
  if (frame.counted) bytes_written_ += beyond_prefix(frame, frame.written + bytes) - beyond_prefix(frame, frame.written);
}

void QuicSendQueue::blocked(const Piece& piece) {
  if (piece.frame == nullptr) {
    control_blocked_ = true;
  } else {
    piece.frame->blocked = true;
    blocked_.push_back(piece.frame);
  }
}

void QuicSendQueue::unblock() {
  control_blocked_ = false;
  for (Frame* frame : blocked_) frame->blocked = false;
  blocked_.clear();
}

void QuicSendQueue::control_acknowledged(std::uint64_t offset) {
  while (control_next_ > 0 && control_begin_ + control_.front().size() <= offset) {
    control_begin_ += control_.front().size();
    if (control_.front().counted) bytes_queued_ -= control_.front().bytes->size();
    control_.pop_front();
    --control_next_;
  }
}

bool QuicSendQueue::frame_acknowledged(Frame* frame) {
  const auto at = written_.find(frame);
  if (at == written_.end()) return false;
  bytes_queued_ -= frame->bytes->size();
  std::erase(blocked_, frame);
  written_.erase(at);
  return true;
}

bool QuicSendQueue::urgent_waits() const {
  if (control_stream_ != kNoStream && control_next_ < control_.size()) return true;
  return !waiting_.empty() && waiting_.begin()->first.priority != Priority::bulk;
}

bool QuicSendQueue::bulk_waits() const { return !waiting_.empty() && waiting_.rbegin()->first.priority == Priority::bulk; }

QuicSendQueue::Waiting::iterator QuicSendQueue::first_of(Priority priority) {
  return waiting_.lower_bound(link::SendOrder{priority, kBeforeAll, 0});
}

}  // namespace stagecoach::world::real
