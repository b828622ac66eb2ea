// UdpSocket: one UDP socket that moves many datagrams a system call.
//
// In:      batches of equal datagrams for one destination (UDP_SEGMENT); out: what arrived, joined by the kernel (UDP_GRO).
// Thread:  loop. Never waits.
// Why:     without segmentation and joining a QUIC endpoint costs four times the CPU; where a kernel or device refuses them the socket
//          falls back by itself, and nobody above needs to know.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "link/link.h"

namespace stagecoach::world::real {

/// A socket address, IPv4 or IPv6.
struct UdpAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  /// In either family, IPv4 mapped into IPv6 included.
  bool is_loopback() const;
  /// As people write it; IPv4 mapped into IPv6 is shown as IPv4.
  link::Address to_address() const;
  /// errors: invalid_argument  the host is not a literal of `family`'s reach (an IPv6 socket reaches IPv4 too)
  static base::Result<UdpAddress> from(const link::Address& address, int family = AF_UNSPEC);
};

class UdpSocket {
 public:
  /// errors: invalid_argument  the host is no literal · unavailable  the port is in use: another one, or 0 for any · io_error
  static base::Result<UdpSocket> bind(const link::Address& address);
  UdpSocket(UdpSocket&& other) noexcept;
  UdpSocket& operator=(UdpSocket&&) = delete;
  ~UdpSocket();

  int fd() const { return fd_; }
  int family() const { return local_.storage.ss_family; }
  const UdpAddress& local() const { return local_; }

  /// A system call takes at most this many datagrams, and this many bytes.
  static constexpr std::size_t kBatchDatagramsMax = 64;
  static constexpr std::size_t kBatchBytesMax = 65'000;

  enum class Sent { done, would_block };
  /// Sends `bytes` cut into datagrams of `datagram_size` (the last may be shorter). What the network refuses for good counts as sent: it
  /// is lost, as on the road.
  Sent send(const UdpAddress& to, std::span<const std::byte> bytes, std::size_t datagram_size);

  struct Received {
    UdpAddress from;
    std::span<const std::byte> bytes;  // valid until the next receive()
    std::size_t datagram_size = 0;     // cut here; the last may be shorter
  };
  /// Nothing where nothing is there.
  std::optional<Received> receive();

  /// For tests: as on a kernel that refuses UDP_SEGMENT.
  void without_segmentation() { segmentation_ = false; }

 private:
  UdpSocket() = default;
  Sent send_one(const UdpAddress& to, std::span<const std::byte> bytes, std::size_t segment);

  int fd_ = -1;
  UdpAddress local_;
  bool segmentation_ = true;
  std::size_t resume_at_ = 0;  // how much of a batch went before the socket was full, where it goes datagram by datagram
  std::vector<std::byte> buffer_;
};

}  // namespace stagecoach::world::real
