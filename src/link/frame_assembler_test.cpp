#include "link/frame_assembler.h"

#include <gtest/gtest.h>

#include "base/prng.h"

namespace stagecoach::link {
namespace {

using Stream = FrameAssembler::Stream;

base::Bytes single(std::uint8_t priority, std::uint32_t announced, std::size_t sent) {
  base::ByteWriter writer;
  writer.u8(priority);
  writer.u32(announced);
  writer.raw(base::Bytes(sent, std::byte{7}));
  return writer.take();
}

struct Assembling {
  explicit Assembling(Stream stream, std::uint64_t limit = 8u << 20) : budget(limit), assembler(stream, budget) {}
  ReceiveBudget budget;
  FrameAssembler assembler;
  std::vector<AssembledFrame> frames;
};

// Claim: the worked example of docs/formats/road.md decodes to what the page says.
TEST(FrameAssembler, worked_example_of_the_format_page) {
  const std::uint8_t stream[] = {0x02, 0x03, 0x00, 0x00, 0x00, 'a', 'b', 'c'};
  Assembling forward(Stream::single_frame);
  ASSERT_TRUE(forward.assembler.feed(std::as_bytes(std::span(stream)), true, forward.frames).ok());
  ASSERT_EQ(forward.frames.size(), 1u);
  EXPECT_EQ(forward.frames[0].priority, Priority::forward);
  EXPECT_EQ(base::as_text(forward.frames[0].bytes), "abc");

  const std::uint8_t control[] = {0x02, 0x00, 0x00, 0x00, 'h', 'i', 0x00, 0x00, 0x00, 0x00};
  Assembling assembling(Stream::control);
  ASSERT_TRUE(assembling.assembler.feed(std::as_bytes(std::span(control)), false, assembling.frames).ok());
  ASSERT_EQ(assembling.frames.size(), 2u);
  EXPECT_EQ(base::as_text(assembling.frames[0].bytes), "hi");
  EXPECT_EQ(assembling.frames[1].bytes.size(), 0u);
}

// Claim: one byte at a time gives the same frames as all at once, and all memory is given back.
TEST(FrameAssembler, any_split_gives_the_same_frames) {
  base::ByteWriter writer;
  base::Prng prng(1);
  std::vector<base::Bytes> sent;
  for (int i = 0; i < 20; ++i) {
    base::Bytes frame(prng.below(300));
    for (auto& byte : frame) byte = static_cast<std::byte>(prng.next());
    writer.u32(static_cast<std::uint32_t>(frame.size()));
    writer.raw(frame);
    sent.push_back(std::move(frame));
  }
  const base::Bytes stream = writer.take();
  for (std::size_t piece : {std::size_t{1}, std::size_t{3}, std::size_t{100}, stream.size()}) {
    Assembling assembling(Stream::control);
    for (std::size_t at = 0; at < stream.size(); at += piece) {
      const auto part = std::span(stream).subspan(at, std::min(piece, stream.size() - at));
      ASSERT_TRUE(assembling.assembler.feed(part, false, assembling.frames).ok());
    }
    ASSERT_EQ(assembling.frames.size(), sent.size());
    for (std::size_t i = 0; i < sent.size(); ++i) EXPECT_EQ(assembling.frames[i].bytes, sent[i]);
    EXPECT_EQ(assembling.budget.used(), 0u);
  }
}

// Claim: the end of a stream may come with the last bytes or alone after them, also for an empty frame.
TEST(FrameAssembler, end_with_the_bytes_or_after_them) {
  for (std::size_t size : {0, 1, 1000}) {
    for (bool together : {true, false}) {
      Assembling assembling(Stream::single_frame);
      ASSERT_TRUE(assembling.assembler.feed(single(3, static_cast<std::uint32_t>(size), size), together, assembling.frames).ok());
      if (!together) {
        ASSERT_TRUE(assembling.assembler.feed({}, true, assembling.frames).ok());
      }
      ASSERT_EQ(assembling.frames.size(), 1u);
      EXPECT_EQ(assembling.frames[0].bytes.size(), size);
    }
  }
}

// Claim: every rule that a stream can break is an error with its own sentence.
TEST(FrameAssembler, each_broken_rule_is_named) {
  struct Case {
    Stream stream;
    base::Bytes bytes;
    bool finished;
    const char* names;
  };
  base::ByteWriter long_control;
  long_control.u32(kControlFrameBytesMax + 1);
  const Case cases[] = {
      {Stream::single_frame, single(4, 1, 1), true, "unknown priority 4"},
      {Stream::single_frame, single(0, 1, 1), true, "outside the control stream"},
      {Stream::single_frame, single(1, kFrameBytesMax + 1, 0), false, "limit is 268435456"},
      {Stream::single_frame, single(1, 0xffffffff, 0), false, "4294967295 bytes was announced"},
      {Stream::single_frame, single(1, 5, 4), true, "ended inside"},
      {Stream::single_frame, single(1, 5, 6), false, "bytes after the end"},
      {Stream::single_frame, base::Bytes(3, std::byte{1}), true, "ended inside"},
      {Stream::single_frame, {}, true, "ended inside"},
      {Stream::control, long_control.take(), false, "limit is 1048576"},
      {Stream::control, {}, true, "control stream ended"},
  };
  for (const Case& c : cases) {
    Assembling assembling(c.stream);
    const auto result = assembling.assembler.feed(c.bytes, c.finished, assembling.frames);
    ASSERT_FALSE(result.ok()) << c.names;
    EXPECT_NE(result.error().message.find(c.names), std::string::npos) << result.error().message;
  }
}

// Claim: an announced length costs nothing until its bytes arrive, and then at most twice what arrived plus one step of 1 MiB.
TEST(FrameAssembler, memory_follows_what_arrived) {
  Assembling assembling(Stream::single_frame, 512u << 20);
  ASSERT_TRUE(assembling.assembler.feed(single(3, kFrameBytesMax, 0), false, assembling.frames).ok());
  EXPECT_EQ(assembling.budget.used(), 0u);
  const base::Bytes piece(300'000);
  for (std::uint64_t arrived = piece.size(); arrived < (20u << 20); arrived += piece.size()) {
    ASSERT_TRUE(assembling.assembler.feed(piece, false, assembling.frames).ok());
    EXPECT_LE(assembling.budget.used(), 2 * arrived + (1u << 20));
  }
}

// Claim: unfinished frames of one link share its budget; the one that passes it is refused; what ended or was dropped is given back.
TEST(FrameAssembler, unfinished_frames_share_a_budget) {
  ReceiveBudget budget(2u << 20);
  std::vector<AssembledFrame> frames;
  {
    FrameAssembler first(Stream::single_frame, budget);
    FrameAssembler second(Stream::single_frame, budget);
    FrameAssembler third(Stream::single_frame, budget);
    ASSERT_TRUE(first.feed(single(3, 1u << 20, 1), false, frames).ok());
    ASSERT_TRUE(second.feed(single(3, 1u << 20, 1), false, frames).ok());
    const auto refused = third.feed(single(3, 1u << 20, 1), false, frames);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, base::ErrorCode::too_large);
    EXPECT_EQ(budget.used(), 2u << 20);
  }
  EXPECT_EQ(budget.used(), 0u);
}

}  // namespace
}  // namespace stagecoach::link
