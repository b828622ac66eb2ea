// Claim: a run cut out of a super-packet is, byte for byte, what the kernel would have made of those segments.
#include "lab/emulator/packet.h"

#include <gtest/gtest.h>

#include "base/prng.h"
#include "lab/emulator/test_packets.h"

namespace stagecoach::lab {
namespace {

base::Bytes joined(const base::Bytes& packet, const Cut& cut) {
  base::Bytes bytes(cut.head.begin(), cut.head.begin() + static_cast<std::ptrdiff_t>(cut.head_bytes));
  bytes.insert(bytes.end(), packet.begin() + static_cast<std::ptrdiff_t>(cut.payload_at),
               packet.begin() + static_cast<std::ptrdiff_t>(cut.payload_at + cut.payload_bytes));
  return bytes;
}

/// Segments [first, first + count) of `whole`, composed on their own.
base::Bytes expected_run(const TestPacket& whole, std::size_t segments, std::size_t first, std::size_t count) {
  TestPacket run = whole;
  const std::size_t skipped = first * whole.segment;
  const bool last = first + count == segments;
  run.payload = last ? whole.payload - skipped : count * whole.segment;
  run.first = static_cast<std::byte>(static_cast<std::size_t>(whole.first) + skipped);
  run.segment = count == 1 ? 0 : whole.segment;
  run.sequence += static_cast<std::uint32_t>(skipped);
  run.id = static_cast<std::uint16_t>(run.id + first);
  if (!last) run.tcp_flags &= 0xf6;   // no FIN, no PSH
  if (first != 0) run.tcp_flags &= 0x7f;  // no CWR
  return make_packet(run);
}

TEST(PacketTest, TheShapeOfAPlainPacket) {
  const base::Bytes packet = make_packet({});
  const auto shape = shape_of(packet);
  ASSERT_TRUE(shape);
  EXPECT_EQ(shape->source, 0x0a4d0001u);
  EXPECT_EQ(shape->destination, 0x0a4d0002u);
  EXPECT_EQ(shape->segments, 1u);
  EXPECT_EQ(shape->wire_bytes(0), 20u + 32u + 1000u);
}

TEST(PacketTest, TheShapeOfASuperPacket) {
  TestPacket p;
  p.payload = 3000;
  p.segment = 1448;
  const auto shape = shape_of(make_packet(p));
  ASSERT_TRUE(shape);
  ASSERT_EQ(shape->segments, 3u);
  EXPECT_EQ(shape->wire_bytes(0), 1500u);
  EXPECT_EQ(shape->wire_bytes(1), 1500u);
  EXPECT_EQ(shape->wire_bytes(2), 20u + 32u + 104u);
}

TEST(PacketTest, EveryRunIsWhatTheKernelWouldHaveCut) {
  base::Prng dice(11);
  for (int round = 0; round < 300; ++round) {
    TestPacket p;
    p.tcp = dice.below(2) == 0;
    p.segment = 100 + dice.below(1300);
    p.payload = p.segment + 1 + dice.below(20'000);
    p.sequence = static_cast<std::uint32_t>(dice.next());
    p.id = static_cast<std::uint16_t>(dice.next());
    p.tcp_flags = static_cast<std::uint8_t>(0x10 | (dice.next() & 0x89));
    p.tcp_options = 4 * dice.below(11);
    p.from = static_cast<std::uint32_t>(dice.next());
    p.first = static_cast<std::byte>(dice.next());
    const base::Bytes packet = make_packet(p);
    const auto shape = shape_of(packet);
    ASSERT_TRUE(shape);
    const std::size_t first = dice.below(shape->segments);
    const std::size_t count = 1 + dice.below(shape->segments - first);
    ASSERT_EQ(joined(packet, cut(packet, *shape, first, count)), expected_run(p, shape->segments, first, count))
        << "round " << round << ": segments " << first << " + " << count << " of " << shape->segments;
  }
}

TEST(PacketTest, AWholePacketStaysAsItWas) {
  for (const std::size_t payload : {0u, 1u, 5000u}) {
    TestPacket p;
    p.tcp = false;
    p.payload = payload;
    p.segment = payload > 1000 ? 1000 : 0;
    const base::Bytes packet = make_packet(p);
    const auto shape = shape_of(packet);
    ASSERT_TRUE(shape);
    EXPECT_EQ(joined(packet, cut(packet, *shape, 0, shape->segments)), packet);
  }
}

TEST(PacketTest, WhatIsNoWholeIpv4PacketHasNoShape) {
  base::Bytes packet = make_packet({});
  EXPECT_FALSE(shape_of({}));
  EXPECT_FALSE(shape_of(std::span(packet).first(25)));
  packet[kVnetHeaderBytes] = std::byte{0x60};
  EXPECT_FALSE(shape_of(packet)) << "IPv6";
  packet[kVnetHeaderBytes] = std::byte{0x4f};
  EXPECT_TRUE(shape_of(packet)) << "options";
  packet[kVnetHeaderBytes] = std::byte{0x41};
  EXPECT_FALSE(shape_of(packet)) << "a header of 4 bytes";
}

/// Property: no bytes, whatever they say of themselves, are read beyond their end (run under a sanitizer it would show).
TEST(PacketTest, AnyBytesAreReadWithinTheirBounds) {
  base::Prng dice(12);
  for (int round = 0; round < 20'000; ++round) {
    TestPacket p;
    p.tcp = dice.below(2) == 0;
    p.payload = dice.below(300);
    p.segment = dice.below(3) * 50;
    base::Bytes packet = make_packet(p);
    for (std::uint64_t i = dice.below(4); i-- > 0;) packet[dice.below(60) % packet.size()] = static_cast<std::byte>(dice.next());
    packet.resize(dice.below(packet.size() + 1));
    const auto shape = shape_of(packet);
    if (!shape) continue;
    const std::size_t first = dice.below(shape->segments);
    const Cut piece = cut(packet, *shape, first, 1 + dice.below(shape->segments - first));
    ASSERT_LE(piece.payload_at + piece.payload_bytes, packet.size());
    ASSERT_LE(piece.head_bytes, piece.head.size());
  }
}

}  // namespace
}  // namespace stagecoach::lab
