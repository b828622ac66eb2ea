// Emulator: a star of hosts, each behind a TUN device of its own namespace, in real time.
//
// In:      a plan; packets of the devices; live commands on a Unix datagram socket. Out: packets; answers; nothing else.
// Thread:  one: it reads, decides and writes, so that two cores are left to those who talk.
// Why:     the road that the lab's programs drive on, without their knowing.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "lab/emulator/plan.h"
#include "lab/emulator/star.h"
#include "lab/emulator/tun.h"

namespace stagecoach::lab {

class Emulator : private Star::Sink {
 public:
  struct Options {
    std::string control_path;  // of the socket; "" = no live commands
    std::uint64_t seed = 1;
  };
  /// Makes the devices and applies the plan.
  ///
  /// errors: invalid_argument  the plan, with the line · not_found, refused, io_error  see TunDevice · unavailable  the control
  /// socket's path is taken
  static base::Result<std::unique_ptr<Emulator>> start(const std::string& plan, const Options& options);
  ~Emulator() override;

  /// Carries packets until `stop_descriptor` is readable or closed.
  void run(int stop_descriptor);

 private:
  struct Host {
    std::string name;
    TunDevice device;
  };

  explicit Emulator(const Options& options) : control_path_(options.control_path), star_(options.seed) {}
  base::Result<void> apply_plan(const std::string& plan);
  base::Result<void> listen();
  base::Result<std::string> apply(const Command& command, bool live);
  base::Result<void> add_host(const HostCommand& command);
  base::Result<void> change_host(const HostCommand& command);
  base::Result<void> change_pairs(const PairCommand& command);
  base::Result<void> change_address(const AddressCommand& command);
  base::Result<std::vector<HostIndex>> hosts_named(const std::string& name) const;
  std::string stats();
  void answer_one();
  void read_from(HostIndex host);
  void deliver(HostIndex to, std::span<const std::byte> head, std::span<const std::byte> payload) override;

  const std::string control_path_;
  int control_ = -1;
  Star star_;
  std::vector<Host> hosts_;
  std::vector<std::byte> room_ = std::vector<std::byte>(kPacketBytesMax);
};

}  // namespace stagecoach::lab
