#include "lab/emulator/tun.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "lab/emulator/packet.h"

namespace stagecoach::lab {

using base::Error;
using base::ErrorCode;
using base::Result;

namespace {

constexpr int kMtu = 1500;
/// Packets that the kernel keeps while the emulator is busy; super-packets count as one.
constexpr int kDeviceQueuePackets = 4'000;
// Kernels before 6.2 do not know segmentation of UDP; the values are theirs (linux/if_tun.h).
constexpr unsigned kOffloadUdp4 = 0x20;
constexpr unsigned kOffloadUdp6 = 0x40;

Error system_error(const std::string& doing) {
  const int number = errno;
  const bool refused = number == EPERM || number == EACCES;
  return Error{refused ? ErrorCode::refused : number == ENOENT ? ErrorCode::not_found : ErrorCode::io_error,
               doing + ": " + std::strerror(number) + (refused ? " (the emulator needs root: CAP_NET_ADMIN and CAP_SYS_ADMIN)" : "")};
}

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

ifreq request() {
  ifreq ask{};
  std::strncpy(ask.ifr_name, TunDevice::kName, IFNAMSIZ - 1);
  return ask;
}

ifreq address_request(std::uint32_t address) {
  ifreq ask = request();
  auto& in = reinterpret_cast<sockaddr_in&>(ask.ifr_addr);
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(address);
  return ask;
}

}  // namespace

Result<TunDevice> TunDevice::open(const Options& options) {
  Descriptor home{::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)};
  if (home.fd < 0) return system_error("this thread's network namespace");
  Descriptor away{::open(options.netns.c_str(), O_RDONLY | O_CLOEXEC)};
  if (away.fd < 0) return system_error("the network namespace " + options.netns);
  if (::setns(away.fd, CLONE_NEWNET) != 0) return system_error("entering the network namespace " + options.netns);
  TunDevice device;
  auto made = device.create();
  if (made.ok()) made = device.configure(options.address);
  const bool back = ::setns(home.fd, CLONE_NEWNET) == 0;
  if (!made.ok()) return made.error().within(options.netns);
  if (!back) return system_error("leaving the network namespace " + options.netns);
  return device;
}

Result<void> TunDevice::create() {
  control_ = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (control_ < 0) return system_error("a socket for the interface's settings");
  fd_ = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd_ < 0) return system_error("/dev/net/tun (where it is missing: modprobe tun, or --device /dev/net/tun for a container)");
  ifreq ask = request();
  ask.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(fd_, TUNSETIFF, &ask) != 0) return system_error("making the TUN device");
  const unsigned tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN;
  // Without UDP segmentation packets come one by one: slower, and the same otherwise.
  if (::ioctl(fd_, TUNSETOFFLOAD, tcp | TUN_F_TSO6 | kOffloadUdp4 | kOffloadUdp6) != 0 && ::ioctl(fd_, TUNSETOFFLOAD, tcp) != 0) {
    return system_error("segmentation on the TUN device");
  }
  return {};
}

Result<void> TunDevice::configure(std::uint32_t address) {
  ifreq mtu = request();
  mtu.ifr_mtu = kMtu;
  ifreq queue = request();
  queue.ifr_qlen = kDeviceQueuePackets;
  if (::ioctl(control_, SIOCSIFMTU, &mtu) != 0 || ::ioctl(control_, SIOCSIFTXQLEN, &queue) != 0) return system_error("setting up the TUN device");
  RETURN_IF_ERROR(change_address(address));
  for (const char* name : {kName, "lo"}) {
    ifreq flags{};
    std::strncpy(flags.ifr_name, name, IFNAMSIZ - 1);
    if (::ioctl(control_, SIOCGIFFLAGS, &flags) != 0) return system_error(std::string("the flags of ") + name);
    flags.ifr_flags |= IFF_UP;
    if (::ioctl(control_, SIOCSIFFLAGS, &flags) != 0) return system_error(std::string("switching on ") + name);
  }
  return {};
}

Result<void> TunDevice::change_address(std::uint32_t address) {
  ifreq own = address_request(address);
  if (::ioctl(control_, SIOCSIFADDR, &own) != 0) return system_error("setting the address");
  ifreq mask = address_request(~std::uint32_t{0} << (32 - kPrefixBits));
  if (::ioctl(control_, SIOCSIFNETMASK, &mask) != 0) return system_error("setting the network");
  return {};
}

TunDevice::TunDevice(TunDevice&& other) noexcept : fd_(std::exchange(other.fd_, -1)), control_(std::exchange(other.control_, -1)) {}

TunDevice::~TunDevice() {
  if (fd_ >= 0) ::close(fd_);
  if (control_ >= 0) ::close(control_);
}

std::optional<std::span<const std::byte>> TunDevice::receive(std::span<std::byte> room) {
  const ssize_t got = ::read(fd_, room.data(), room.size());
  if (got <= 0) return std::nullopt;
  return room.first(static_cast<std::size_t>(got));
}

bool TunDevice::send(std::span<const std::byte> head, std::span<const std::byte> payload) {
  const iovec parts[] = {{const_cast<std::byte*>(head.data()), head.size()}, {const_cast<std::byte*>(payload.data()), payload.size()}};
  return ::writev(fd_, parts, 2) >= 0;
}

}  // namespace stagecoach::lab
