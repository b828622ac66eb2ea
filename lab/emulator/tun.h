// TunDevice: a network interface inside a namespace whose other end is a descriptor of this process.
//
// In:      a namespace's path, an address. Out: packets with their virtio-net header, both ways.
// Thread:  one. open() visits the namespace with the calling thread and comes back.
// Why:     devices, namespaces and what root may do are all here; the device goes with its descriptor, so nothing is left behind by a
//          process that was killed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"

namespace stagecoach::lab {

class TunDevice {
 public:
  static constexpr const char* kName = "lab0";
  /// All hosts of a lab are in one network of this prefix length.
  static constexpr int kPrefixBits = 16;

  struct Options {
    std::string netns;          // such as /run/netns/NAME
    std::uint32_t address = 0;  // host order
  };
  /// errors: not_found  no such namespace, or no /dev/net/tun · refused  not root · io_error
  static base::Result<TunDevice> open(const Options& options);
  TunDevice(TunDevice&& other) noexcept;
  TunDevice& operator=(TunDevice&&) = delete;
  ~TunDevice();

  int fd() const { return fd_; }
  /// The next packet in `room`; nothing where none is there.
  std::optional<std::span<const std::byte>> receive(std::span<std::byte> room);
  /// Gives a packet to the namespace. False where the kernel refused it: then it is lost, as on the road.
  bool send(std::span<const std::byte> head, std::span<const std::byte> payload);
  /// The namespace's address on this device becomes another one. errors: io_error
  base::Result<void> change_address(std::uint32_t address);

 private:
  TunDevice() = default;
  base::Result<void> create();
  base::Result<void> configure(std::uint32_t address);

  int fd_ = -1;
  int control_ = -1;  // a socket of the namespace, for the interface's settings
};

}  // namespace stagecoach::lab
