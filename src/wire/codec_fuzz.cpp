// Fuzzes the frame decoder: no bytes may crash it, and what it accepts encodes to the very bytes that came.
//
// In:      byte 0 % 32: 0 = the rest is a frame as it stands; otherwise a message number, the reserved ones included.
//          byte 1, bit 0: the next 60 bytes are the stamps (else zero).
//          byte 1, bit 1: the next byte is the class (else the type's own).
//          The rest is the body. Magic, version, length and hash are made right: a fuzzer does not guess hashes.
// Thread:  one.
// Why:     every message type's body decoder must be reached within seconds, also with an empty corpus.
#include <cstdint>

#include "wire/test_frames.h"

namespace stagecoach::wire {
namespace {

constexpr std::size_t kStampBytes = test::kHashAt - test::kStampsAt;

/// The class of message number `number`; control where there is no such message.
link::Priority right_class(std::uint8_t number) {
  link::Priority priority = link::Priority::control;
  test::for_each_type([&](auto index) {
    using M = std::variant_alternative_t<index(), Message>;
    if (static_cast<std::uint8_t>(Traits<M>::type) == number) priority = Traits<M>::priority;
  });
  return priority;
}

base::Bytes frame_of(std::span<const std::byte> input) {
  base::ByteReader in(input);
  const std::uint8_t number = in.u8() % 32;
  const auto rest = [&] { return in.raw(in.remaining()); };
  if (number == 0) {
    const auto bytes = rest();
    return base::Bytes(bytes.begin(), bytes.end());
  }
  const std::uint8_t flags = in.u8();
  base::Bytes frame(kFrameHeaderBytes);
  test::put(frame, 0, kFrameMagic, 4);
  test::put(frame, test::kVersionAt, kProtocolVersion, 1);
  test::put(frame, test::kTypeAt, number, 1);
  if (flags & 1) std::ranges::copy(in.raw(std::min(kStampBytes, in.remaining())), frame.begin() + test::kStampsAt);
  test::put(frame, test::kClassAt, flags & 2 ? in.u8() : static_cast<std::uint8_t>(right_class(number)), 1);
  const auto body = rest();
  frame.insert(frame.end(), body.begin(), body.end());
  test::seal(frame);
  return frame;
}

}  // namespace
}  // namespace stagecoach::wire

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace stagecoach;
  const base::Bytes frame = wire::frame_of(std::as_bytes(std::span(data, size)));
  const auto message = wire::decode(frame);
  if (message.ok()) CHECK(wire::encode(*message) == frame, "what decodes encodes to the same bytes");
  return 0;
}
