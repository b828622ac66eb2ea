// RoadHarness and Party: what tests need to drive endpoints of any road (test only).
//
// In:      how a road makes endpoints and lets time pass. Out: endpoints with all they reported, checked at every event.
// Thread:  one.
// Why:     the contract and each road's own tests drive and watch endpoints in the same way.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "link/identity.h"
#include "link/link.h"

namespace stagecoach::link {

class RoadHarness {
 public:
  virtual ~RoadHarness() = default;
  virtual std::unique_ptr<Endpoint> make(const Identity& identity, const Limits& limits) = 0;
  /// An address at which nobody answers.
  virtual Address nowhere() = 0;
  virtual base::Instant now() = 0;
  /// Waits, really or virtually, for an arrival or the earliest deadline of `endpoints`, then advances each of them.
  virtual void turn(std::span<Endpoint* const> endpoints) = 0;
};

using RoadHarnessMaker = std::function<std::unique_ptr<RoadHarness>()>;

/// An endpoint with its key and all that it reported; checks the promises that hold at every moment.
class Party {
 public:
  Party(RoadHarness& harness, const Identity& identity, const Limits& limits)
      : identity_(identity), endpoint_(harness.make(identity, limits)) {}

  Endpoint& road() { return *endpoint_; }
  Endpoint* operator->() { return endpoint_.get(); }
  base::PeerId id() const { return identity_.peer_id(); }
  const Identity& identity() const { return identity_; }

  void dial(Party& other) {
    const Address address = other->local_address();
    endpoint_->dial(other.id(), std::span(&address, 1));
  }
  base::Result<void> send(const Party& to, base::Bytes frame, Priority priority) {
    return endpoint_->send(to.id(), base::make_payload(std::move(frame)), SendOptions{priority, base::Instant::never()});
  }

  void collect() {
    for (Event& event : endpoint_->take_events()) {
      std::visit([this](auto& e) { check(e); }, event);
      events.push_back(std::move(event));
    }
  }
  bool is_up(const Party& peer) const { return up_.contains(peer.id()); }
  LinkGeneration generation(const Party& peer) const { return up_.at(peer.id()); }

  template <class T>
  std::vector<T> all() const {
    std::vector<T> found;
    for (const Event& event : events) {
      if (const T* e = std::get_if<T>(&event)) found.push_back(*e);
    }
    return found;
  }
  std::vector<FrameArrived> frames() const { return all<FrameArrived>(); }
  std::size_t frame_count() const { return frame_count_; }

  std::vector<Event> events;

 private:
  void check(const LinkUp& up) {
    EXPECT_FALSE(up_.contains(up.peer)) << "at most one link per peer is up";
    EXPECT_GT(up.generation, newest_[up.peer]) << "a new link has a higher generation";
    up_[up.peer] = newest_[up.peer] = up.generation;
  }
  void check(const AddressChanged& changed) { EXPECT_EQ(up_[changed.peer], changed.generation); }
  void check(const FrameArrived& frame) {
    ASSERT_TRUE(up_.contains(frame.peer)) << "a frame without a link";
    EXPECT_EQ(up_[frame.peer], frame.generation) << "a frame of a link that is down";
    ++frame_count_;
  }
  void check(const LinkDown& down) {
    EXPECT_FALSE(down.text.empty()) << "a reason has a sentence";
    if (down.generation == LinkGeneration()) {
      EXPECT_FALSE(up_.contains(down.peer)) << "a dial fails only where there is no link";
      return;
    }
    ASSERT_TRUE(up_.contains(down.peer)) << "a link goes down once, and only after it was up";
    EXPECT_EQ(up_[down.peer], down.generation);
    up_.erase(down.peer);
  }

  Identity identity_;
  std::unique_ptr<Endpoint> endpoint_;
  std::map<base::PeerId, LinkGeneration> up_;
  std::map<base::PeerId, LinkGeneration> newest_;
  std::size_t frame_count_ = 0;
};

}  // namespace stagecoach::link
