// QuicSendQueue: what one connection still has to send, and what the peer has not acknowledged yet.
//
// In:      frames with priority and deadline; what the packet writer took; what the peer acknowledged.
// Out:     the next bytes to put into a packet, and of which stream.
// Thread:  loop. No QUIC, no clock, no socket.
// Why:     priority is decided for each packet, and buffers stay where they are until they are acknowledged: both are bookkeeping that
//          must be right without a network.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "link/frame_assembler.h"
#include "link/send_order.h"

namespace stagecoach::world::real {

class QuicSendQueue {
 public:
  static constexpr std::int64_t kNoStream = -1;

  /// A frame on its way, at a fixed address until it is acknowledged.
  struct Frame {
    link::SendOrder order;
    base::Payload bytes;
    std::array<std::byte, link::kFramePrefixBytes> prefix{};
    std::size_t prefix_size = 0;
    std::uint64_t written = 0;  // of prefix and bytes
    std::int64_t stream = kNoStream;
    bool blocked = false;       // by the stream's flow control, in this round of writing
    bool counted = true;        // in the statistics

    std::uint64_t size() const { return prefix_size + bytes->size(); }
  };

  /// Bytes of one stream for the next packet; more than fits, usually.
  struct Piece {
    static constexpr std::size_t kPartsMax = 16;
    std::int64_t stream = kNoStream;
    Frame* frame = nullptr;  // null: of the control stream
    std::array<std::span<const std::byte>, kPartsMax> parts;
    std::size_t count = 0;
    bool end = false;        // the stream ends after these bytes
    bool bulk = false;
    std::uint64_t bytes() const;
  };

  /// What bulk may do now: go after everything urgent, go first (its floor is due), or wait.
  enum class Bulk { after_urgent, first, waits };

  void open_control(std::int64_t stream) { control_stream_ = stream; }
  void push(link::SendOptions options, base::Payload bytes);
  /// The first control frame; it is the road's own and in no statistics.
  void push_greeting(base::Payload bytes);

  /// The next bytes to write, by class, deadline, arrival. A frame that has begun goes on before others of its class begin, so that no
  /// peer holds many unfinished frames.
  bool next(Bulk bulk, Piece& piece);
  /// The writer took `bytes` of `piece` (and its end, where it took all).
  void wrote(const Piece& piece, std::uint64_t bytes);
  /// Flow control stops the stream of `piece`: leave it out until unblock().
  void blocked(const Piece& piece);
  void unblock();

  /// The frames that should have streams by now: the first few of each class below control.
  template <class Visit>
  void for_frames_without_stream(Visit visit) {
    for (link::Priority priority : kStreamClasses) {
      std::size_t seen = 0;
      for (auto at = first_of(priority); at != waiting_.end() && at->first.priority == priority && seen < kHeads; ++at, ++seen) {
        if (at->second->stream == kNoStream) visit(*at->second);
      }
    }
  }

  /// The peer has all bytes of the control stream before `offset`.
  void control_acknowledged(std::uint64_t offset);
  /// The peer has the whole frame: it is given up here. False where it was never written whole.
  [[nodiscard]] bool frame_acknowledged(Frame* frame);

  bool urgent_waits() const;
  bool bulk_waits() const;
  bool waits() const { return urgent_waits() || bulk_waits(); }
  /// Of frames, without prefixes; accepted and not yet acknowledged.
  std::uint64_t bytes_queued() const { return bytes_queued_; }
  /// Of frames, without prefixes; written at least once.
  std::uint64_t bytes_written() const { return bytes_written_; }

 private:
  using Waiting = std::map<link::SendOrder, std::unique_ptr<Frame>>;
  static constexpr std::array<link::Priority, 3> kStreamClasses = {link::Priority::backward, link::Priority::forward, link::Priority::bulk};
  /// So many frames of a class get streams ahead of their turn, so that small frames share packets.
  static constexpr std::size_t kHeads = 4;

  Waiting::iterator first_of(link::Priority priority);
  bool next_of(link::Priority priority, Piece& piece);
  bool next_control(Piece& piece);
  void wrote_control(std::uint64_t bytes);
  void count_written(const Frame& frame, std::uint64_t bytes);

  std::int64_t control_stream_ = kNoStream;
  std::deque<Frame> control_;           // unacknowledged, oldest first
  std::size_t control_next_ = 0;        // the first that is not wholly written
  std::uint64_t control_begin_ = 0;     // stream offset of control_.front()
  bool control_blocked_ = false;
  Waiting waiting_;                     // not wholly written
  std::unordered_map<Frame*, std::unique_ptr<Frame>> written_;  // wholly written, not acknowledged
  std::vector<Frame*> blocked_;
  std::uint64_t next_sequence_ = 0;
  std::uint64_t bytes_queued_ = 0;
  std::uint64_t bytes_written_ = 0;
};

}  // namespace stagecoach::world::real
