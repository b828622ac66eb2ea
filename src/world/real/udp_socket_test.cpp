#include "world/real/udp_socket.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <string>
#include <vector>

namespace stagecoach::world::real {
namespace {

/// The datagrams that arrive until `bytes` have come or nothing more comes for a second.
std::vector<std::size_t> sizes_of(UdpSocket& socket, std::size_t bytes) {
  std::vector<std::size_t> sizes;
  std::size_t have = 0;
  while (have < bytes) {
    pollfd waiting{socket.fd(), POLLIN, 0};
    if (::poll(&waiting, 1, 1000) <= 0) break;
    while (const auto received = socket.receive()) {
      for (std::size_t at = 0; at < received->bytes.size(); at += received->datagram_size) {
        sizes.push_back(std::min(received->datagram_size, received->bytes.size() - at));
      }
      have += received->bytes.size();
    }
  }
  return sizes;
}

// Claim: a batch arrives as the datagrams it was cut into, with segmentation by the kernel and without.
TEST(UdpSocket, a_batch_arrives_as_its_datagrams) {
  for (bool segmentation : {true, false}) {
    auto from = UdpSocket::bind({"127.0.0.1", 0});
    auto to = UdpSocket::bind({"127.0.0.1", 0});
    ASSERT_TRUE(from.ok() && to.ok());
    if (!segmentation) from->without_segmentation();
    const std::vector<std::byte> batch(10 * 1200 + 7, std::byte{1});
    EXPECT_EQ(from->send(to->local(), batch, 1200), UdpSocket::Sent::done);
    std::vector<std::size_t> expected(10, 1200);
    expected.push_back(7);
    EXPECT_EQ(sizes_of(*to, batch.size()), expected);
  }
}

// Claim: a port in use is unavailable, and the sentence names the port and what to do.
TEST(UdpSocket, port_in_use_is_unavailable) {
  auto first = UdpSocket::bind({"127.0.0.1", 0});
  ASSERT_TRUE(first.ok());
  const link::Address taken = first->local().to_address();
  const auto second = UdpSocket::bind(taken);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, base::ErrorCode::unavailable);
  EXPECT_NE(second.error().message.find(std::to_string(taken.port)), std::string::npos);
  EXPECT_NE(second.error().message.find("choose another port"), std::string::npos);
}

// Claim: addresses survive the way through the system's form; an IPv6 socket writes IPv4 mapped and shows it plain; names are refused.
TEST(UdpSocket, addresses_survive_the_systems_form) {
  for (const link::Address& address : {link::Address{"192.0.2.7", 4433}, link::Address{"2001:db8::1", 1}}) {
    EXPECT_EQ(UdpAddress::from(address)->to_address(), address);
  }
  const link::Address v4{"192.0.2.7", 4433};
  EXPECT_EQ(UdpAddress::from(v4, AF_INET6)->storage.ss_family, AF_INET6);
  EXPECT_EQ(UdpAddress::from(v4, AF_INET6)->to_address(), v4);
  for (const char* home : {"127.0.0.1", "127.9.9.9", "::1"}) EXPECT_TRUE(UdpAddress::from({home, 1})->is_loopback()) << home;
  EXPECT_TRUE(UdpAddress::from({"127.0.0.1", 1}, AF_INET6)->is_loopback());
  for (const char* away : {"192.0.2.127", "2001:db8::1"}) EXPECT_FALSE(UdpAddress::from({away, 1})->is_loopback()) << away;
  EXPECT_FALSE(UdpAddress::from(v4, AF_INET6)->is_loopback());
  EXPECT_EQ(UdpAddress::from({"::1", 1}, AF_INET).error().code, base::ErrorCode::invalid_argument);
  EXPECT_EQ(UdpAddress::from({"localhost", 1}).error().code, base::ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace stagecoach::world::real
