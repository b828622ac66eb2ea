// What the virtual network promises: no less than link/link.h, and no more.
#include "world/sim/network.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/bytes.h"

namespace stagecoach::world::sim {
namespace {

using base::Duration;
using link::DownReason;
using link::Priority;

struct Fixture {
  explicit Fixture(std::uint64_t seed = 1, NetworkOptions options = {})
      : network(timeline, options, seed,
                {[this](Node at, Node peer) { ups.emplace_back(at, peer); },
                 [this](Node at, Node peer, DownReason reason, const std::string& text) { downs.push_back({at, peer, reason, text}); },
                 [this](Node at, Node, const base::Payload& frame) { frames[at].push_back(static_cast<int>((*frame)[0])); }}) {}
  void send(Node from, Node to, int number, Priority priority) {
    network.send(from, to, base::make_payload({static_cast<std::byte>(number)}), priority, 100);
  }
  void run() {
    while (timeline.run_one()) {
    }
  }
  void run_until(Duration time) {
    bool reached = false;
    timeline.at(base::Instant() + time, [&] { reached = true; });
    while (!reached && timeline.run_one()) {
    }
  }
  struct Down {
    Node at, peer;
    DownReason reason;
    std::string text;
  };
  Timeline timeline;
  std::vector<std::pair<Node, Node>> ups;
  std::vector<Down> downs;
  std::map<Node, std::vector<int>> frames;
  Network network;
};

/// Claim: control frames come in order whatever the network loses and jitters; others overtake each other.
TEST(Network, ControlComesInOrderOthersNeedNot) {
  NetworkOptions lossy;
  lossy.loss = 0.2;
  Fixture f(7, lossy);
  f.network.dial(1, 2);
  f.run();
  for (int i = 0; i < 100; ++i) f.send(1, 2, i, Priority::control);
  f.run();
  ASSERT_EQ(f.frames[2].size(), 100u);
  EXPECT_TRUE(std::is_sorted(f.frames[2].begin(), f.frames[2].end()));
  f.frames.clear();
  for (int i = 0; i < 100; ++i) f.send(1, 2, i, Priority::forward);
  f.run();
  ASSERT_EQ(f.frames[2].size(), 100u);
  EXPECT_FALSE(std::is_sorted(f.frames[2].begin(), f.frames[2].end()));
}

/// Claim: both ends dialling at once get one link.
TEST(Network, TwoDialsMakeOneLink) {
  Fixture f;
  f.network.dial(1, 2);
  f.network.dial(2, 1);
  f.run();
  EXPECT_EQ(f.ups.size(), 2u);
  EXPECT_TRUE(f.downs.empty());
  EXPECT_TRUE(f.network.linked(1, 2));
}

/// Claim: nothing of a link that broke arrives over the one that replaces it; the end that had not noticed hears of both.
TEST(Network, AFrameBelongsToItsLink) {
  Fixture f;
  f.network.dial(1, 2);
  f.run();
  f.send(1, 2, 5, Priority::backward);
  f.network.break_link(1, 2, {Duration::milliseconds(1), Duration::seconds(6)});
  f.run_until(Duration::seconds(1));
  ASSERT_EQ(f.downs.size(), 1u);
  EXPECT_EQ(f.downs[0].at, 1u);
  EXPECT_EQ(f.downs[0].reason, DownReason::idle);
  f.send(2, 1, 6, Priority::control);  // into the link that node 2 still believes in
  f.network.dial(1, 2);
  f.run();
  ASSERT_EQ(f.downs.size(), 2u);
  EXPECT_EQ(f.downs[1].at, 2u);
  EXPECT_EQ(f.downs[1].reason, DownReason::peer_restarted);
  EXPECT_EQ(f.ups.size(), 4u);
  EXPECT_TRUE(f.frames.empty());
}

/// Claim: a peer that dies without a word is noticed by silence, one that closes is heard, after what it sent before.
TEST(Network, SilenceAndWords) {
  Fixture f;
  f.network.dial(1, 2);
  f.network.dial(1, 3);
  f.run();
  const base::Instant began = f.timeline.now();
  f.send(1, 3, 9, Priority::control);
  f.network.close(1, 3, "enough");
  f.network.crash(2);
  f.run();
  ASSERT_EQ(f.downs.size(), 3u);
  EXPECT_EQ(f.downs[0].reason, DownReason::closed_by_us);
  EXPECT_EQ(f.downs[1].reason, DownReason::closed_by_peer);
  EXPECT_EQ(f.downs[1].text, "enough");
  EXPECT_EQ(f.frames[3], std::vector<int>{9});
  EXPECT_EQ(f.downs[2].reason, DownReason::idle);
  EXPECT_GE(f.timeline.now() - began, NetworkOptions{}.idle_timeout);
}

/// Claim: what comes to a node that stands still waits, in order, until it wakes up; a dial to it finds nobody.
TEST(Network, AStalledNodeHearsLater) {
  Fixture f;
  f.network.dial(1, 2);
  f.run();
  f.network.stall(2, f.timeline.now() + Duration::seconds(2));
  for (int i = 0; i < 5; ++i) f.send(1, 2, i, Priority::control);
  f.network.dial(3, 2);
  f.run_until(Duration::seconds(1));
  EXPECT_TRUE(f.frames.empty());
  f.run();
  EXPECT_EQ(f.frames[2], (std::vector<int>{0, 1, 2, 3, 4}));
  ASSERT_EQ(f.downs.size(), 1u);
  EXPECT_EQ(f.downs[0].reason, DownReason::unreachable);
}

}  // namespace
}  // namespace stagecoach::world::sim
