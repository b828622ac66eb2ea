#include "lab/emulator/emulator.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace stagecoach::lab {

using base::Duration;
using base::Error;
using base::ErrorCode;
using base::Instant;
using base::Result;

namespace {

constexpr std::size_t kPacketsATurn = 64;  // of one device, so that the others and the clock get their turn
constexpr std::size_t kCommandBytesMax = 4'096;

Instant monotonic_now() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return Instant::from_ns(t.tv_sec * 1'000'000'000ll + t.tv_nsec);
}

Error wrong(const std::string& what) { return Error{ErrorCode::invalid_argument, what}; }

}  // namespace

Result<std::unique_ptr<Emulator>> Emulator::start(const std::string& plan, const Options& options) {
  std::unique_ptr<Emulator> emulator(new Emulator(options));
  RETURN_IF_ERROR(emulator->apply_plan(plan));
  RETURN_IF_ERROR(emulator->listen());
  return emulator;
}

Emulator::~Emulator() {
  if (control_ < 0) return;
  ::close(control_);
  ::unlink(control_path_.c_str());
}

void Emulator::run(int stop_descriptor) {
  std::vector<pollfd> watched;
  for (const Host& host : hosts_) watched.push_back({host.device.fd(), POLLIN, 0});
  watched.push_back({control_, POLLIN, 0});
  watched.push_back({stop_descriptor, POLLIN, 0});
  for (;;) {
    const Instant next = star_.next_deadline();
    const std::int64_t wait_ns = next == Instant::never() ? 1'000'000'000 : std::clamp<std::int64_t>((next - monotonic_now()).ns(), 0, 1'000'000'000);
    const timespec timeout{wait_ns / 1'000'000'000, wait_ns % 1'000'000'000};
    const int ready = ::ppoll(watched.data(), watched.size(), &timeout, nullptr);
    star_.advance(monotonic_now(), *this);
    if (ready <= 0) continue;
    if (watched.back().revents != 0) return;
    for (HostIndex host = 0; host < hosts_.size(); ++host) {
      if (watched[host].revents & POLLIN) read_from(host);
    }
    if (watched[hosts_.size()].revents & POLLIN) answer_one();
  }
}

void Emulator::read_from(HostIndex host) {
  for (std::size_t i = 0; i < kPacketsATurn; ++i) {
    const auto packet = hosts_[host].device.receive(room_);
    if (!packet) return;
    const Instant now = monotonic_now();
    star_.advance(now, *this);
    star_.send(host, *packet, now, *this);
  }
}

void Emulator::deliver(HostIndex to, std::span<const std::byte> head, std::span<const std::byte> payload) {
  (void)hosts_[to].device.send(head, payload);
}

Result<void> Emulator::apply_plan(const std::string& plan) {
  std::size_t number = 0;
  for (std::size_t at = 0; at < plan.size(); ++number) {
    const std::size_t end = std::min(plan.find('\n', at), plan.size());
    const std::string where = "line " + std::to_string(number + 1) + " of the plan";
    const auto command = parse_command(std::string_view(plan).substr(at, end - at));
    at = end + 1;
    if (!command.ok()) return command.error().within(where);
    if (!command.value()) continue;
    const auto done = apply(*command.value(), false);
    if (!done.ok()) return done.error().within(where);
  }
  if (hosts_.size() < 2) return wrong("the plan has " + std::to_string(hosts_.size()) + " hosts: at least two are needed to be joined");
  return {};
}

Result<void> Emulator::listen() {
  if (control_path_.empty()) return {};
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (control_path_.size() >= sizeof address.sun_path) {
    return wrong("the control socket's path is longer than " + std::to_string(sizeof address.sun_path - 1) + " bytes: " + control_path_);
  }
  std::memcpy(address.sun_path, control_path_.data(), control_path_.size());
  control_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (control_ < 0) return Error{ErrorCode::io_error, std::string("no control socket: ") + std::strerror(errno)};
  if (::bind(control_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const bool taken = errno == EADDRINUSE;
    const Error error{taken ? ErrorCode::unavailable : ErrorCode::io_error, "the control socket " + control_path_ + ": " + std::strerror(errno) +
                                                                                (taken ? " (remove it where no emulator runs)" : "")};
    ::close(std::exchange(control_, -1));
    return error;
  }
  return {};
}

void Emulator::answer_one() {
  std::array<char, kCommandBytesMax> text;
  sockaddr_un from{};
  socklen_t from_bytes = sizeof from;
  const ssize_t got = ::recvfrom(control_, text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&from), &from_bytes);
  if (got < 0) return;
  const auto command = parse_command(std::string_view(text.data(), static_cast<std::size_t>(got)));
  std::string answer;
  if (!command.ok()) {
    answer = "error: " + command.error().message;
  } else if (!command.value()) {
    answer = "error: an empty command";
  } else {
    const auto done = apply(*command.value(), true);
    answer = done.ok() ? "ok\n" + done.value() : "error: " + done.error().message;
  }
  // Who does not listen for the answer does not get one.
  (void)!::sendto(control_, answer.data(), answer.size(), MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&from), from_bytes);
}

Result<std::string> Emulator::apply(const Command& command, bool live) {
  if (std::holds_alternative<StatsCommand>(command)) return stats();
  Result<void> done;
  if (const auto* host = std::get_if<HostCommand>(&command)) done = live ? change_host(*host) : add_host(*host);
  if (const auto* pairs = std::get_if<PairCommand>(&command)) done = change_pairs(*pairs);
  if (const auto* address = std::get_if<AddressCommand>(&command)) done = change_address(*address);
  if (!done.ok()) return done.error();
  return std::string();
}

Result<void> Emulator::add_host(const HostCommand& command) {
  if (command.netns.empty() || command.address == 0) return wrong("host " + command.name + " needs netns=PATH and address=A.B.C.D");
  for (HostIndex i = 0; i < hosts_.size(); ++i) {
    if (hosts_[i].name == command.name) return wrong("there is a host " + command.name + " already");
    if (star_.address(i) == command.address) return wrong(address_text(command.address) + " is the address of " + hosts_[i].name + " already");
  }
  auto device = TunDevice::open({command.netns, command.address});
  if (!device.ok()) return device.error();
  star_.add_host(command.address);
  hosts_.push_back({command.name, std::move(device).value()});
  HostCommand rates = command;
  rates.netns.clear();
  rates.address = 0;
  return change_host(rates);
}

Result<void> Emulator::change_host(const HostCommand& command) {
  if (!command.netns.empty() || command.address != 0) {
    return wrong("a host's namespace stays, and its address changes with: address " + command.name + " A.B.C.D");
  }
  const auto hosts = hosts_named(command.name);
  if (!hosts.ok()) return hosts.error();
  for (const HostIndex host : hosts.value()) {
    const auto set = [](Fifo& fifo, const auto& rate, const auto& queue) {
      Fifo::Settings settings = fifo.settings();
      if (rate) settings.bits_per_s = *rate;
      if (queue) settings.queue_bytes = *queue;
      fifo.set(settings);
    };
    set(star_.uplink(host), command.up_bits_per_s, command.up_queue_bytes);
    set(star_.downlink(host), command.down_bits_per_s, command.down_queue_bytes);
  }
  return {};
}

Result<void> Emulator::change_pairs(const PairCommand& command) {
  const auto from = hosts_named(command.from);
  if (!from.ok()) return from.error();
  const auto to = hosts_named(command.to);
  if (!to.ok()) return to.error();
  const auto set = [&](HostIndex a, HostIndex b) -> Result<void> {
    Road::Settings settings = star_.road(a, b).settings();
    for (const auto& [key, value] : command.changes) RETURN_IF_ERROR(change(settings, key, value));
    star_.road(a, b).set(settings);
    return {};
  };
  for (const HostIndex a : from.value()) {
    for (const HostIndex b : to.value()) {
      if (a == b) continue;
      RETURN_IF_ERROR(set(a, b));
      if (command.both) RETURN_IF_ERROR(set(b, a));
    }
  }
  return {};
}

Result<void> Emulator::change_address(const AddressCommand& command) {
  const auto hosts = hosts_named(command.name);
  if (!hosts.ok()) return hosts.error();
  if (hosts->size() != 1) return wrong("one host at a time has a new address");
  for (HostIndex i = 0; i < hosts_.size(); ++i) {
    if (star_.address(i) == command.address) return wrong(address_text(command.address) + " is the address of " + hosts_[i].name);
  }
  const HostIndex host = hosts.value()[0];
  RETURN_IF_ERROR(hosts_[host].device.change_address(command.address));
  star_.set_address(host, command.address);
  return {};
}

Result<std::vector<HostIndex>> Emulator::hosts_named(const std::string& name) const {
  std::vector<HostIndex> found;
  for (HostIndex i = 0; i < hosts_.size(); ++i) {
    if (name == "*" || hosts_[i].name == name) found.push_back(i);
  }
  if (found.empty()) return wrong("there is no host " + name);
  return found;
}

std::string Emulator::stats() {
  std::string text = "# from to packets bytes delivered lost dropped cut\n";
  for (HostIndex from = 0; from < hosts_.size(); ++from) {
    for (HostIndex to = 0; to < hosts_.size(); ++to) {
      const Star::Counts& counts = star_.counts(from, to);
      if (counts.packets == 0) continue;
      text += hosts_[from].name + " " + hosts_[to].name;
      for (const auto number : {counts.packets, counts.bytes, counts.delivered, counts.lost, counts.dropped, counts.cut}) {
        text += " " + std::to_string(number);
      }
      text += "\n";
    }
  }
  return text + "# astray " + std::to_string(star_.astray()) + "\n";
}

}  // namespace stagecoach::lab
