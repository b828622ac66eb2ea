// QuicHarness: QUIC endpoints on loopback, driven in turns by real time.
//
// In:      endpoints. Out: turns: each waits in poll() for a datagram or the earliest deadline, then advances every endpoint.
// Thread:  one.
// Why:     the contract, the tests of QUIC's own and those with hostile peers wait in the same way, and none of them sleeps.
#pragma once

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "link/road_harness.h"
#include "world/real/quic_endpoint.h"

namespace stagecoach::world::real {

class QuicHarness : public link::RoadHarness {
 public:
  std::unique_ptr<link::Endpoint> make(const link::Identity& identity, const link::Limits& limits) override {
    QuicEndpoint::Options options;
    options.bind = {"127.0.0.1", 0};
    options.limits = limits;
    auto endpoint = QuicEndpoint::open(identity, std::move(options));
    CHECK(endpoint.ok(), "loopback has free ports");
    return std::move(endpoint).value();
  }
  /// A socket that nobody reads.
  link::Address nowhere() override {
    silent_.push_back(std::make_unique<UdpSocket>(UdpSocket::bind({"127.0.0.1", 0}).value()));
    return silent_.back()->local().to_address();
  }
  base::Instant now() override {
    return base::Instant::from_ns(std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count());
  }
  void turn(std::span<link::Endpoint* const> endpoints) override {
    std::vector<pollfd> sockets;
    base::Instant next = now() + base::Duration::milliseconds(50);
    for (link::Endpoint* endpoint : endpoints) {
      sockets.push_back({static_cast<QuicEndpoint*>(endpoint)->fd(), POLLIN, 0});
      next = std::min(next, endpoint->next_deadline());
    }
    const std::int64_t wait_ns = std::max<std::int64_t>(0, (next - now()).ns());
    const timespec wait{static_cast<time_t>(wait_ns / 1'000'000'000), static_cast<long>(wait_ns % 1'000'000'000)};
    ::ppoll(sockets.data(), sockets.size(), &wait, nullptr);
    for (link::Endpoint* endpoint : endpoints) endpoint->advance(now());
  }

 private:
  std::vector<std::unique_ptr<UdpSocket>> silent_;
};

}  // namespace stagecoach::world::real
