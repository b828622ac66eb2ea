#include "world/real/quic_send_queue.h"

#include <gtest/gtest.h>

#include <string>

namespace stagecoach::world::real {
namespace {

using link::Priority;
using Bulk = QuicSendQueue::Bulk;

base::Payload text(const std::string& s) { return base::make_payload(base::Bytes(base::as_bytes(s).begin(), base::as_bytes(s).end())); }

struct Queue : QuicSendQueue {
  void open_streams() {
    for_frames_without_stream([this](Frame& frame) { frame.stream = next_stream += 4; });
  }
  /// Writes up to `bytes` of the next piece; the text it held, without its prefix.
  std::string write(std::uint64_t bytes = 1000, Bulk bulk = Bulk::after_urgent) {
    open_streams();
    if (!next(bulk, piece)) return "";
    std::string all;
    for (std::size_t i = 0; i < piece.count; ++i) all += base::as_text(piece.parts[i]);
    const std::uint64_t taken = std::min(bytes, piece.bytes());
    wrote(piece, taken);
    return all.substr(0, taken);
  }
  Piece piece;
  std::int64_t next_stream = 2;
};

const std::string kForward3 = std::string("\x02\x03\0\0\0", 5);
const std::string kBackward3 = std::string("\x01\x03\0\0\0", 5);
const std::string kBulk3 = std::string("\x03\x03\0\0\0", 5);
const std::string kControl2 = std::string("\x02\0\0\0", 4);

// Claim: control before backward before forward before bulk; the earliest deadline first inside a class.
TEST(QuicSendQueue, order_of_classes_and_deadlines) {
  Queue queue;
  queue.open_control(0);
  queue.push({Priority::bulk}, text("low"));
  queue.push({Priority::forward}, text("fw2"));
  queue.push({Priority::forward, base::Instant::from_ns(5)}, text("fw1"));
  queue.push({Priority::backward}, text("bwd"));
  queue.push({Priority::control}, text("c1"));
  queue.push({Priority::control}, text("c2"));
  EXPECT_EQ(queue.write(), kControl2 + "c1" + kControl2 + "c2") << "control frames share one stream and one piece";
  EXPECT_FALSE(queue.piece.end);
  EXPECT_EQ(queue.write(), kBackward3 + "bwd");
  EXPECT_TRUE(queue.piece.end);
  EXPECT_EQ(queue.write(), kForward3 + "fw1");
  EXPECT_EQ(queue.write(), kForward3 + "fw2");
  EXPECT_FALSE(queue.urgent_waits());
  EXPECT_TRUE(queue.bulk_waits());
  EXPECT_EQ(queue.write(), kBulk3 + "low");
  EXPECT_FALSE(queue.waits());
  EXPECT_EQ(queue.bytes_written(), 16u);
}

// Claim: a frame that has begun goes on before an earlier deadline of its class, but not before a higher class.
TEST(QuicSendQueue, a_frame_that_has_begun_goes_on) {
  Queue queue;
  queue.push({Priority::forward}, text("abc"));
  EXPECT_EQ(queue.write(6), kForward3 + "a");
  queue.push({Priority::forward, base::Instant::from_ns(1)}, text("xyz"));
  queue.push({Priority::backward}, text("bwd"));
  EXPECT_EQ(queue.write(), kBackward3 + "bwd");
  EXPECT_EQ(queue.write(), "bc");
  EXPECT_EQ(queue.write(), kForward3 + "xyz");
}

// Claim: bulk goes first only where its floor is due, and not at all where it must wait.
TEST(QuicSendQueue, bulk_waits_or_takes_its_floor) {
  Queue queue;
  queue.push({Priority::bulk}, text("low"));
  queue.push({Priority::forward}, text("fwd"));
  EXPECT_EQ(queue.write(5, Bulk::first), kBulk3);
  EXPECT_EQ(queue.write(100, Bulk::waits), kForward3 + "fwd");
  EXPECT_EQ(queue.write(100, Bulk::waits), "");
  EXPECT_EQ(queue.write(100, Bulk::after_urgent), "low");
}

// Claim: a stream stopped by flow control is left out and others go on; unblock() brings it back where it was.
TEST(QuicSendQueue, blocked_streams_are_left_out) {
  Queue queue;
  queue.open_control(0);
  queue.push({Priority::control}, text("c1"));
  queue.push({Priority::backward}, text("bwd"));
  queue.push({Priority::forward}, text("fwd"));
  queue.open_streams();
  ASSERT_TRUE(queue.next(Bulk::after_urgent, queue.piece));
  queue.blocked(queue.piece);
  ASSERT_TRUE(queue.next(Bulk::after_urgent, queue.piece));
  queue.blocked(queue.piece);
  EXPECT_EQ(queue.write(), kForward3 + "fwd");
  EXPECT_EQ(queue.write(), "");
  queue.unblock();
  EXPECT_EQ(queue.write(), kControl2 + "c1");
  EXPECT_EQ(queue.write(), kBackward3 + "bwd");
}

// Claim: bytes stay queued until they are acknowledged: control frames as the offset passes their end, others when their stream is done.
TEST(QuicSendQueue, queued_until_acknowledged) {
  Queue queue;
  queue.open_control(0);
  queue.push({Priority::control}, text("c1"));
  queue.push({Priority::control}, text("c2"));
  queue.push({Priority::bulk}, text("low"));
  EXPECT_EQ(queue.bytes_queued(), 7u);
  queue.write();
  queue.write();
  auto* frame = queue.piece.frame;
  EXPECT_EQ(queue.bytes_queued(), 7u);
  queue.control_acknowledged(11);
  EXPECT_EQ(queue.bytes_queued(), 5u);
  queue.control_acknowledged(12);
  EXPECT_EQ(queue.bytes_queued(), 3u);
  EXPECT_TRUE(queue.frame_acknowledged(frame));
  EXPECT_EQ(queue.bytes_queued(), 0u);
}

// Claim: control frames in many pieces keep their order and every byte.
TEST(QuicSendQueue, control_in_small_pieces) {
  Queue queue;
  queue.open_control(0);
  std::string expected, written;
  for (int i = 0; i < 40; ++i) {
    const std::string frame = std::to_string(i * 1'000'003);
    queue.push({Priority::control}, text(frame));
    expected += std::string{static_cast<char>(frame.size()), 0, 0, 0} + frame;
  }
  std::uint64_t step = 1;
  while (queue.urgent_waits()) {
    written += queue.write(step);
    step = step % 37 + 1;
    queue.control_acknowledged(written.size());
  }
  EXPECT_EQ(written, expected);
  EXPECT_EQ(queue.bytes_queued(), 0u);
}

}  // namespace
}  // namespace stagecoach::world::real
