// Packets as a kernel would give them to a TUN device, and the checks that a receiving kernel would make. For tests.
//
// In:      addresses, sizes. Out: bytes.
// Thread:  any; pure.
// Why:     the cut segments are compared with segments that were composed one by one, by other code than the one under test.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"

namespace stagecoach::lab {

struct TestPacket {
  std::uint32_t from = 0x0a4d0001;
  std::uint32_t to = 0x0a4d0002;
  bool tcp = true;
  std::size_t payload = 1000;
  std::size_t segment = 0;       // 0: no super-packet
  std::uint32_t sequence = 5'000;
  std::uint16_t id = 40;
  std::uint8_t tcp_flags = 0x10;
  std::size_t tcp_options = 12;  // bytes, as with time stamps
  std::byte first{0};            // the payload counts up from it
};

class BigEndian {
 public:
  void put(std::uint64_t value, int bytes) {
    for (int i = bytes - 1; i >= 0; --i) out.push_back(static_cast<std::byte>(value >> (8 * i)));
  }
  base::Bytes out;
};

inline std::uint16_t ones_sum(const base::Bytes& bytes, std::uint32_t sum = 0) {
  for (std::size_t i = 0; i < bytes.size(); i += 2) {
    sum += static_cast<std::uint32_t>(bytes[i]) << 8;
    if (i + 1 < bytes.size()) sum += static_cast<std::uint32_t>(bytes[i + 1]);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}

inline base::Bytes ip_header(const TestPacket& p, std::size_t transport_bytes) {
  BigEndian ip;
  ip.put(0x4500, 2);
  ip.put(20 + transport_bytes, 2);
  ip.put(p.id, 2);
  ip.put(0x4000, 2);
  ip.put(64, 1);
  ip.put(p.tcp ? 6 : 17, 1);
  ip.put(0, 2);
  ip.put(p.from, 4);
  ip.put(p.to, 4);
  const std::uint16_t check = static_cast<std::uint16_t>(~ones_sum(ip.out));
  ip.out[10] = static_cast<std::byte>(check >> 8);
  ip.out[11] = static_cast<std::byte>(check & 0xff);
  return ip.out;
}

/// A whole packet with its virtio-net header, the transport's checksum left to the receiver (NEEDS_CSUM).
inline base::Bytes make_packet(const TestPacket& p) {
  const std::size_t transport_header = p.tcp ? 20 + p.tcp_options : 8;
  const std::size_t transport_bytes = transport_header + p.payload;
  const base::Bytes ip = ip_header(p, transport_bytes);
  BigEndian pseudo;
  pseudo.put(p.from, 4);
  pseudo.put(p.to, 4);
  pseudo.put(p.tcp ? 6 : 17, 2);
  pseudo.put(transport_bytes, 2);
  const std::uint16_t check = ones_sum(pseudo.out);
  BigEndian transport;
  transport.put(4433, 2);
  transport.put(4434, 2);
  if (p.tcp) {
    transport.put(p.sequence, 4);
    transport.put(77, 4);
    transport.put((transport_header / 4) << 4, 1);
    transport.put(p.tcp_flags, 1);
    transport.put(512, 2);
    transport.put(check, 2);
    transport.put(0, 2);
    for (std::size_t i = 0; i < p.tcp_options; ++i) transport.put(1, 1);
  } else {
    transport.put(transport_bytes, 2);
    transport.put(check, 2);
  }
  base::ByteWriter vnet;
  vnet.u8(1);
  vnet.u8(p.segment == 0 ? 0 : p.tcp ? 1 : 5);
  vnet.u16(static_cast<std::uint16_t>(20 + transport_header));
  vnet.u16(static_cast<std::uint16_t>(p.segment));
  vnet.u16(20);
  vnet.u16(p.tcp ? 16 : 6);
  base::Bytes packet = vnet.take();
  packet.insert(packet.end(), ip.begin(), ip.end());
  packet.insert(packet.end(), transport.out.begin(), transport.out.end());
  for (std::size_t i = 0; i < p.payload; ++i) packet.push_back(static_cast<std::byte>(static_cast<std::size_t>(p.first) + i));
  return packet;
}

}  // namespace stagecoach::lab
