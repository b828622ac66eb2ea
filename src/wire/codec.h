// Messages to frames and back.
//
// In:      a Message, or the bytes of one frame from a peer that may be hostile.
// Out:     the frame's bytes, or a Message, or what is wrong with the bytes.
// Thread:  any; pure.
// Why:     the encoding is canonical (one message, one sequence of bytes), so that signatures and receipts can be made over it;
//          that, and bounds per field before allocation, is why this is not protobuf (docs/ARCHITECTURE.md).
#pragma once

#include <span>

#include "base/bytes.h"
#include "base/result.h"
#include "wire/messages.h"

namespace stagecoach::wire {

inline constexpr std::uint32_t kFrameMagic = 0x31304353;  // "SC01"
inline constexpr std::size_t kFrameHeaderBytes = 80;

/// The frame of `message`: header (docs/formats/frames.md) and body.
base::Bytes encode(const Message& message);

/// The message of one whole frame.
///
/// errors: corrupt   wrong magic, length, hash, an unknown or reserved type, a broken bound, trailing bytes: a PeerFault, the
///                   sender loses its link
///         mismatch  another protocol version: say which
base::Result<Message> decode(std::span<const std::byte> frame);

}  // namespace stagecoach::wire
