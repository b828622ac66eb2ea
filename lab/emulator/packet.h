// Packet: what a TUN device gives and takes, and how one that the kernel will only cut later is cut now.
//
// In:      a virtio-net header and an IPv4 packet; a super-packet holds many segments under one header (TSO, UDP_SEGMENT).
// Out:     its shape in wire segments; the headers of any run of its segments, as if the kernel had cut it there.
// Thread:  any; pure.
// Why:     loss, rate and queues act on wire packets, and moving super-packets costs a quarter of the CPU. Both hold where a run of
//          survivors leaves as one smaller super-packet: only headers are written anew, payloads stay where they are.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace stagecoach::lab {

/// Before each packet on a TUN device with IFF_VNET_HDR (virtio 1.1, section 5.1.6, without the field for merged buffers).
inline constexpr std::size_t kVnetHeaderBytes = 10;
/// An IPv4 or TCP header at its longest.
inline constexpr std::size_t kHeaderBytesMax = 60;
/// The longest that a TUN device can give.
inline constexpr std::size_t kPacketBytesMax = kVnetHeaderBytes + 65'536;

struct Shape {
  std::uint32_t source = 0;       // IPv4, host order
  std::uint32_t destination = 0;
  std::size_t ip_bytes = 0;       // headers and payload
  std::size_t header_bytes = 0;   // of IP and transport, repeated in each segment; 0 where there is one segment
  std::size_t segment_bytes = 0;  // payload of all segments but the last
  std::size_t segments = 1;

  /// units: bytes of the IP packet that segment `index` is on the wire.
  std::size_t wire_bytes(std::size_t index) const {
    if (segments == 1) return ip_bytes;
    const std::size_t payload = ip_bytes - header_bytes;
    return header_bytes + (index + 1 < segments ? segment_bytes : payload - index * segment_bytes);
  }
};

/// The shape of `packet` (with its virtio-net header); nothing where it is no whole IPv4 packet that can be cut.
std::optional<Shape> shape_of(std::span<const std::byte> packet);

/// A run of segments as a packet of its own: new headers, and where its payload lies in the original.
struct Cut {
  std::array<std::byte, kVnetHeaderBytes + 2 * kHeaderBytesMax> head;
  std::size_t head_bytes = 0;
  std::size_t payload_at = 0;
  std::size_t payload_bytes = 0;
};

/// Segments [first, first + count) of `packet`; all of them give the packet back unchanged.
Cut cut(std::span<const std::byte> packet, const Shape& shape, std::size_t first, std::size_t count);

}  // namespace stagecoach::lab
