// UdpOutbox: collects equal datagrams for one destination and hands them to the socket in one system call.
//
// In:      datagrams, one after the other, written in place. Out: batches on the socket.
// Thread:  loop. Never waits.
// Why:     the packet writer thinks in packets and the kernel in batches; what the socket has no room for is kept here and nowhere else.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "world/real/loopback.h"
#include "world/real/udp_socket.h"

namespace stagecoach::world::real {

class UdpOutbox {
 public:
  /// owns: `socket` outlives this.
  explicit UdpOutbox(UdpSocket& socket) : socket_(socket), buffer_(UdpSocket::kBatchBytesMax + kDatagramBytesMax) {}

  /// Room for the largest datagram we send.
  static constexpr std::size_t kDatagramBytesMax = kHomeDatagramBytes;
  std::span<std::byte> room() { return std::span(buffer_).subspan(used_, kDatagramBytesMax); }

  /// The first `size` bytes of room() are a datagram for `to`.
  void add(const UdpAddress& to, std::size_t size) {
    const bool fits = used_ == 0 || (size <= datagram_size_ && last_size_ == datagram_size_ && same_destination(to));
    if (!fits) {
      const std::size_t begin = used_;
      flush();
      if (blocked_) return;  // lost, as on the road: QUIC sends it again
      std::copy_n(buffer_.begin() + static_cast<std::ptrdiff_t>(begin), size, buffer_.begin());
    }
    if (used_ == 0) {
      to_ = to;
      datagram_size_ = size;
    }
    used_ += size;
    last_size_ = size;
    ++count_;
    if (used_ + datagram_size_ > UdpSocket::kBatchBytesMax || count_ == UdpSocket::kBatchDatagramsMax) flush();
  }

  /// Sends what was collected; where the socket is full it is kept, and blocked() is true until a later flush() succeeds.
  void flush() {
    if (used_ == 0) return;
    blocked_ = socket_.send(to_, std::span(buffer_).first(used_), datagram_size_) == UdpSocket::Sent::would_block;
    if (blocked_) return;
    used_ = count_ = 0;
  }
  bool blocked() const { return blocked_; }

 private:
  bool same_destination(const UdpAddress& to) const {
    return to.length == to_.length && std::equal(reinterpret_cast<const std::byte*>(&to.storage),
                                                 reinterpret_cast<const std::byte*>(&to.storage) + to.length,
                                                 reinterpret_cast<const std::byte*>(&to_.storage));
  }

  UdpSocket& socket_;
  std::vector<std::byte> buffer_;
  UdpAddress to_;
  std::size_t used_ = 0;
  std::size_t count_ = 0;
  std::size_t datagram_size_ = 0;
  std::size_t last_size_ = 0;
  bool blocked_ = false;
};

}  // namespace stagecoach::world::real
