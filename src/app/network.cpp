#include "app/network.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

namespace stagecoach::app {

namespace {
std::string literal(const sockaddr* address, socklen_t length) {
  char text[NI_MAXHOST] = {};
  if (::getnameinfo(address, length, text, sizeof text, nullptr, 0, NI_NUMERICHOST) != 0) return "";
  return text;
}

addrinfo* look_up(const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  return ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found) == 0 ? found : nullptr;
}
}  // namespace

base::Result<std::string> resolve(const std::string& host) {
  addrinfo* found = look_up(host, "1");
  if (!found) return base::Error{base::ErrorCode::not_found, "the name \"" + host + "\" in the link is not known here: use its IP address"};
  const std::string text = literal(found->ai_addr, found->ai_addrlen);
  ::freeaddrinfo(found);
  return text;
}

std::string local_address_towards(const std::string& host, std::uint16_t port) {
  addrinfo* found = look_up(host, std::to_string(port));
  if (!found) return public_guess();
  // Connecting a datagram socket sends nothing: it only asks the kernel which way it would go.
  const int socket = ::socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_storage own{};
  socklen_t length = sizeof own;
  std::string text;
  if (socket >= 0 && ::connect(socket, found->ai_addr, found->ai_addrlen) == 0 &&
      ::getsockname(socket, reinterpret_cast<sockaddr*>(&own), &length) == 0)
    text = literal(reinterpret_cast<sockaddr*>(&own), length);
  if (socket >= 0) ::close(socket);
  ::freeaddrinfo(found);
  return text.empty() ? public_guess() : text;
}

std::string public_guess() {
  ifaddrs* all = nullptr;
  std::string text = "127.0.0.1";
  if (::getifaddrs(&all) != 0) return text;
  for (const ifaddrs* each = all; each; each = each->ifa_next) {
    if (!each->ifa_addr || each->ifa_addr->sa_family != AF_INET || (each->ifa_flags & IFF_LOOPBACK) || !(each->ifa_flags & IFF_UP)) continue;
    text = literal(each->ifa_addr, sizeof(sockaddr_in));
    break;
  }
  ::freeifaddrs(all);
  return text;
}

}  // namespace stagecoach::app
