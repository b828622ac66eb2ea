#include "world/real/udp_socket.h"

#include <arpa/inet.h>
#include <netinet/udp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

namespace stagecoach::world::real {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr int kSocketBufferBytes = 8 << 20;

template <class T>
bool set_option(int fd, int level, int name, const T& value) {
  return ::setsockopt(fd, level, name, &value, sizeof value) == 0;
}

std::string system_reason() { return std::strerror(errno); }

void tune(int fd, int family) {
  // The kernel clamps these to its own limits; a smaller buffer costs throughput, not correctness.
  set_option(fd, SOL_SOCKET, SO_RCVBUF, kSocketBufferBytes);
  set_option(fd, SOL_SOCKET, SO_SNDBUF, kSocketBufferBytes);
  set_option(fd, IPPROTO_UDP, UDP_GRO, 1);
  // QUIC finds the path's datagram size itself: packets must not be fragmented, and the kernel's own guess must not refuse a probe.
  if (family == AF_INET) {
    set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, static_cast<int>(IP_PMTUDISC_PROBE));
  } else {
    set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, static_cast<int>(IPV6_PMTUDISC_PROBE));
  }
}

}  // namespace

link::Address UdpAddress::to_address() const {
  char text[INET6_ADDRSTRLEN] = "";
  if (storage.ss_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(storage);
    ::inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
    return {text, ntohs(in.sin_port)};
  }
  const auto& in6 = reinterpret_cast<const sockaddr_in6&>(storage);
  if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
    ::inet_ntop(AF_INET, in6.sin6_addr.s6_addr + 12, text, sizeof text);
  } else {
    ::inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof text);
  }
  return {text, ntohs(in6.sin6_port)};
}

bool UdpAddress::is_loopback() const {
  if (storage.ss_family == AF_INET) return ntohl(reinterpret_cast<const sockaddr_in&>(storage).sin_addr.s_addr) >> 24 == 127;
  const in6_addr& in6 = reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr;
  return IN6_IS_ADDR_LOOPBACK(&in6) || (IN6_IS_ADDR_V4MAPPED(&in6) && in6.s6_addr[12] == 127);
}

Result<UdpAddress> UdpAddress::from(const link::Address& address, int family) {
  UdpAddress result;
  auto& in = reinterpret_cast<sockaddr_in&>(result.storage);
  auto& in6 = reinterpret_cast<sockaddr_in6&>(result.storage);
  in_addr v4{};
  if (::inet_pton(AF_INET, address.host.c_str(), &v4) == 1) {
    if (family == AF_INET6) {
      in6.sin6_family = AF_INET6;
      in6.sin6_addr.s6_addr[10] = in6.sin6_addr.s6_addr[11] = 0xff;
      std::memcpy(in6.sin6_addr.s6_addr + 12, &v4, sizeof v4);
      in6.sin6_port = htons(address.port);
      result.length = sizeof in6;
      return result;
    }
    in.sin_family = AF_INET;
    in.sin_addr = v4;
    in.sin_port = htons(address.port);
    result.length = sizeof in;
    return result;
  }
  in6_addr v6{};
  if (::inet_pton(AF_INET6, address.host.c_str(), &v6) != 1) {
    return Error{ErrorCode::invalid_argument, "\"" + address.host + "\" is not an IPv4 or IPv6 address in numbers"};
  }
  if (family == AF_INET) {
    return Error{ErrorCode::invalid_argument, "this process listens on IPv4 only and cannot reach " + address.host +
                                                  ": bind it to [::], which does both"};
  }
  in6.sin6_family = AF_INET6;
  in6.sin6_addr = v6;
  in6.sin6_port = htons(address.port);
  result.length = sizeof in6;
  return result;
}

Result<UdpSocket> UdpSocket::bind(const link::Address& address) {
  Result<UdpAddress> local = UdpAddress::from(address);
  if (!local.ok()) return local.error();
  UdpSocket socket;
  const int family = local->storage.ss_family;
  socket.fd_ = ::socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (socket.fd_ < 0) return Error{ErrorCode::io_error, "no UDP socket: " + system_reason()};
  if (family == AF_INET6) set_option(socket.fd_, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  if (::bind(socket.fd_, local->get(), local->length) != 0) {
    const std::string where = "UDP port " + std::to_string(address.port) + " on " + address.host;
    if (errno == EADDRINUSE) {
      return Error{ErrorCode::unavailable, where + " is in use by another process: stop that one, or choose another port (0 takes any free one)"};
    }
    return Error{ErrorCode::io_error, where + " cannot be opened: " + system_reason()};
  }
  tune(socket.fd_, family);
  socket.local_.length = sizeof socket.local_.storage;
  if (::getsockname(socket.fd_, socket.local_.get(), &socket.local_.length) != 0) {
    return Error{ErrorCode::io_error, "the UDP socket does not know its address: " + system_reason()};
  }
  socket.buffer_.resize(1u << 16);
  return socket;
}

UdpSocket::UdpSocket(UdpSocket&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), local_(other.local_), segmentation_(other.segmentation_), buffer_(std::move(other.buffer_)) {}

UdpSocket::~UdpSocket() {
  if (fd_ >= 0) ::close(fd_);
}

UdpSocket::Sent UdpSocket::send(const UdpAddress& to, std::span<const std::byte> bytes, std::size_t datagram_size) {
  if (segmentation_ && bytes.size() > datagram_size) return send_one(to, bytes, datagram_size);
  for (std::size_t at = std::exchange(resume_at_, 0); at < bytes.size(); at += datagram_size) {
    const auto datagram = bytes.subspan(at, std::min(datagram_size, bytes.size() - at));
    if (send_one(to, datagram, 0) == Sent::would_block) {
      resume_at_ = at;
      return Sent::would_block;
    }
  }
  return Sent::done;
}

UdpSocket::Sent UdpSocket::send_one(const UdpAddress& to, std::span<const std::byte> bytes, std::size_t segment) {
  iovec piece{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_name = const_cast<sockaddr*>(to.get());
  message.msg_namelen = to.length;
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(std::uint16_t))] = {};
  if (segment != 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = IPPROTO_UDP;
    header->cmsg_type = UDP_SEGMENT;
    header->cmsg_len = CMSG_LEN(sizeof(std::uint16_t));
    const auto size = static_cast<std::uint16_t>(segment);
    std::memcpy(CMSG_DATA(header), &size, sizeof size);
  }
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(fd_, &message, 0);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) return Sent::done;
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) return Sent::would_block;
  if (segment != 0 && (errno == EIO || errno == EINVAL || errno == EOPNOTSUPP)) {
    segmentation_ = false;
    return send(to, bytes, segment);
  }
  return Sent::done;
}

std::optional<UdpSocket::Received> UdpSocket::receive() {
  Received received;
  iovec piece{buffer_.data(), buffer_.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_name = received.from.get();
  message.msg_namelen = sizeof received.from.storage;
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got = 0;
  do {
    got = ::recvmsg(fd_, &message, 0);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return std::nullopt;
  received.from.length = message.msg_namelen;
  received.bytes = std::span(buffer_).first(static_cast<std::size_t>(got));
  received.datagram_size = received.bytes.size();
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level == IPPROTO_UDP && header->cmsg_type == UDP_GRO) {
      int size = 0;
      std::memcpy(&size, CMSG_DATA(header), sizeof size);
      if (size > 0) received.datagram_size = static_cast<std::size_t>(size);
    }
  }
  return received;
}

}  // namespace stagecoach::world::real
