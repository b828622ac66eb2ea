#include "lab/emulator/packet.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace stagecoach::lab {
namespace {

// <linux/virtio_net.h> does not compile as C++ everywhere (a member called `class`), so its parts are restated.
constexpr std::uint8_t kNeedsChecksum = 1;
constexpr std::uint8_t kGsoNone = 0;
constexpr std::uint8_t kGsoTcp4 = 1;
constexpr std::uint8_t kGsoUdp = 5;
constexpr std::uint8_t kGsoEcn = 0x80;

constexpr std::uint8_t kTcp = 6;
constexpr std::uint8_t kUdp = 17;
constexpr std::size_t kTcpFlagsAt = 13;
constexpr std::uint8_t kFin = 0x01;
constexpr std::uint8_t kPush = 0x08;
constexpr std::uint8_t kCongestionReduced = 0x80;

struct VnetHeader {
  std::uint8_t flags;
  std::uint8_t gso_type;
  std::uint16_t header_bytes;
  std::uint16_t segment_bytes;
  std::uint16_t checksum_start;
  std::uint16_t checksum_offset;
};
static_assert(sizeof(VnetHeader) == kVnetHeaderBytes);

std::uint8_t u8(std::span<const std::byte> bytes, std::size_t at) { return static_cast<std::uint8_t>(bytes[at]); }
std::uint32_t big(std::span<const std::byte> bytes, std::size_t at, std::size_t count) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < count; ++i) value = value << 8 | u8(bytes, at + i);
  return value;
}
void put_big(std::span<std::byte> bytes, std::size_t at, std::size_t count, std::uint32_t value) {
  for (std::size_t i = count; i-- > 0; value >>= 8) bytes[at + i] = static_cast<std::byte>(value);
}

std::uint32_t sum_words(std::span<const std::byte> bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) sum += big(bytes, i, 2);
  return sum;
}
std::uint16_t fold(std::uint32_t sum) {
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}

VnetHeader vnet_of(std::span<const std::byte> packet) {
  VnetHeader vnet;
  std::memcpy(&vnet, packet.data(), sizeof vnet);
  return vnet;
}

std::size_t transport_header_bytes(std::span<const std::byte> ip, std::size_t at) {
  if (u8(ip, 9) == kUdp) return 8;
  return std::size_t{u8(ip, at + 12)} / 16 * 4;
}

/// What sets a later segment of a TCP stream apart from the first: its place, and flags that only one end of the run bears.
void rewrite_tcp(std::span<std::byte> tcp, std::size_t payload_skipped, bool is_first, bool is_last) {
  put_big(tcp, 4, 4, big(tcp, 4, 4) + static_cast<std::uint32_t>(payload_skipped));
  std::uint8_t flags = u8(tcp, kTcpFlagsAt);
  if (!is_last) flags &= static_cast<std::uint8_t>(~(kFin | kPush));
  if (!is_first) flags &= static_cast<std::uint8_t>(~kCongestionReduced);
  tcp[kTcpFlagsAt] = static_cast<std::byte>(flags);
}

}  // namespace

std::optional<Shape> shape_of(std::span<const std::byte> packet) {
  if (packet.size() < kVnetHeaderBytes + 20) return std::nullopt;
  const VnetHeader vnet = vnet_of(packet);
  const auto ip = packet.subspan(kVnetHeaderBytes);
  const std::size_t ip_header = std::size_t{u8(ip, 0)} % 16 * 4;
  if (u8(ip, 0) / 16 != 4 || ip_header < 20 || ip_header > ip.size()) return std::nullopt;
  Shape shape;
  shape.source = big(ip, 12, 4);
  shape.destination = big(ip, 16, 4);
  shape.ip_bytes = ip.size();
  const std::uint8_t kind = vnet.gso_type & static_cast<std::uint8_t>(~kGsoEcn);
  if (kind == kGsoNone) return shape;

  const std::uint8_t protocol = u8(ip, 9);
  const bool known = (kind == kGsoTcp4 && protocol == kTcp) || (kind == kGsoUdp && protocol == kUdp);
  if (!known || ip.size() < ip_header + 20 || vnet.segment_bytes == 0) return std::nullopt;
  const std::size_t transport = transport_header_bytes(ip, ip_header);
  const std::size_t transport_min = protocol == kTcp ? 20 : 8;
  if (transport < transport_min || ip_header + transport >= ip.size()) return std::nullopt;
  const std::size_t payload = ip.size() - ip_header - transport;
  shape.segments = (payload + vnet.segment_bytes - 1) / vnet.segment_bytes;
  if (shape.segments == 1) return shape;
  shape.header_bytes = ip_header + transport;
  shape.segment_bytes = vnet.segment_bytes;
  return shape;
}

Cut cut(std::span<const std::byte> packet, const Shape& shape, std::size_t first, std::size_t count) {
  CHECK(count > 0 && first + count <= shape.segments, "a cut lies inside its packet");
  Cut cut;
  const auto ip = packet.subspan(kVnetHeaderBytes);
  if (count == shape.segments) {
    cut.head_bytes = std::min(packet.size(), kVnetHeaderBytes + 20);
    std::copy_n(packet.begin(), cut.head_bytes, cut.head.begin());
    cut.payload_at = cut.head_bytes;
    cut.payload_bytes = packet.size() - cut.head_bytes;
    return cut;
  }
  const std::size_t skipped = first * shape.segment_bytes;
  const bool is_last = first + count == shape.segments;
  cut.payload_bytes = is_last ? shape.ip_bytes - shape.header_bytes - skipped : count * shape.segment_bytes;
  cut.payload_at = kVnetHeaderBytes + shape.header_bytes + skipped;
  cut.head_bytes = kVnetHeaderBytes + shape.header_bytes;
  std::copy_n(packet.begin(), cut.head_bytes, cut.head.begin());

  VnetHeader vnet = vnet_of(packet);
  vnet.flags |= kNeedsChecksum;
  if (count == 1) {
    vnet.gso_type = kGsoNone;
    vnet.segment_bytes = 0;
  }
  std::memcpy(cut.head.data(), &vnet, sizeof vnet);

  const std::size_t ip_header = std::size_t{u8(ip, 0)} % 16 * 4;
  const auto head = std::span(cut.head).subspan(kVnetHeaderBytes, shape.header_bytes);
  const auto new_ip = head.first(ip_header);
  const auto transport = head.subspan(ip_header);
  const std::size_t ip_bytes = shape.header_bytes + cut.payload_bytes;
  put_big(new_ip, 2, 2, static_cast<std::uint32_t>(ip_bytes));
  put_big(new_ip, 4, 2, big(ip, 4, 2) + static_cast<std::uint32_t>(first));
  put_big(new_ip, 10, 2, 0);
  put_big(new_ip, 10, 2, static_cast<std::uint16_t>(~fold(sum_words(new_ip))));

  const std::uint8_t protocol = u8(ip, 9);
  const auto transport_bytes = static_cast<std::uint32_t>(ip_bytes - ip_header);
  if (protocol == kTcp) rewrite_tcp(transport, skipped, first == 0, is_last);
  else put_big(transport, 4, 2, transport_bytes);
  // The receiving kernel finishes the checksum: it wants the pseudo header's sum here (RFC 9293, section 3.1), not complemented.
  const std::uint32_t pseudo = sum_words(new_ip.subspan(12, 8)) + protocol + transport_bytes;
  put_big(transport, protocol == kTcp ? 16 : 6, 2, fold(pseudo));
  return cut;
}

}  // namespace stagecoach::lab
