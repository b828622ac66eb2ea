// The coordinator's brain: when a new attempt is opened, who is in it, and who is lost.
#include <gmock/gmock.h>

#include "fleet/test_coordinator.h"

namespace stagecoach::fleet {
namespace {

using base::Duration;
using link::DownReason;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Claim: a lost worker opens a new attempt without it and never comes back as that incarnation; the last of its stage ends the run
/// with what to do.
TEST(Views, LossesAndTheLastWorker) {
  Coordinator c(2, 2);
  c.begin(4);
  const auto attempt = c.brain.attempt();
  c.down(1, DownReason::idle);
  EXPECT_FALSE(c.find<StoreView>()) << "a suspicion until the next tick";
  c.pass(base::Duration::seconds(1));
  ASSERT_TRUE(c.find<StoreView>());
  EXPECT_EQ(c.find<StoreView>()->record.attempt, attempt.next());
  EXPECT_EQ(c.find<StoreView>()->record.evictions.at(0).peer, peer(1));
  EXPECT_EQ(c.find<StoreView>()->record.stages[0].members.size(), 1u);
  c.stored();
  c.hello(1);
  EXPECT_THAT(c.refusal(1), HasSubstr("incarnation was evicted"));
  c.give(PeerExited{peer(3), "killed by signal 9"});
  EXPECT_THAT(c.exit_text(5), HasSubstr("stage 0 has lost its last worker"));
  EXPECT_THAT(c.exit_text(5), HasSubstr("resume"));
}

/// Claim: who comes back within the grace gets all that it missed, in order: the commit, the view, its leases.
TEST(Views, AReturnGetsWhatItMissed) {
  Coordinator c(2, 2);
  c.begin(4);
  c.prepare(1, 10), c.prepare(3, 10), c.prepare(2, 20, Coordinator::losses(2));
  c.prepare(4, 20);
  c.down(1, DownReason::peer_restarted);
  EXPECT_TRUE(c.out.empty()) << "it has the grace to come back";
  c.stored();  // the commit of step 1
  EXPECT_TRUE(c.names(1).empty());
  c.say(3, wire::Trouble{c.brain.attempt(), wire::TroubleKind::link_down, peer(2), "test"});
  c.stored();  // attempt 2
  c.pass(Duration::seconds(2));
  c.hello(1, {.in_view = true, .version = base::WeightVersion(0), .attempt = base::Attempt(1)});
  EXPECT_THAT(c.names(1), ElementsAre("commit", "view", "lease"));
  c.hello(1, {.in_view = true, .version = base::WeightVersion(1), .attempt = base::Attempt(2)});
  EXPECT_THAT(c.names(1), ElementsAre("lease"));
  c.hello(1, {.in_view = true, .version = base::WeightVersion(2), .attempt = base::Attempt(2)});
  EXPECT_THAT(c.exit_text(6), HasSubstr("the database is damaged")) << "a step that was applied but never committed (B10)";
}

/// Claim: a death of which its neighbours hear first, each in its own moment, opens one attempt: that without the dead.
TEST(Views, ADeathToldByManyIsOneAttempt) {
  Coordinator c(2, 3);
  c.begin(6);
  const base::Attempt before = c.brain.attempt();
  const auto talk = [&](std::uint8_t from) { c.say(from, wire::Telemetry{.attempt = c.brain.attempt()}); };
  for (int second = 0; second < 10; ++second) {
    c.pass(Duration::seconds(1));
    for (std::uint8_t i = 2; i <= 6; ++i) talk(i);  // peer 1 has died
  }
  for (const std::uint8_t from : {2, 3, 4, 5, 6}) {
    c.say(from, wire::Trouble{c.brain.attempt(), wire::TroubleKind::link_down, peer(1), "idle"});
    EXPECT_TRUE(c.out.empty());
    c.say(from, wire::Trouble{c.brain.attempt(), wire::TroubleKind::unreachable, peer(1), "nobody answers"});
    EXPECT_TRUE(c.out.empty());
  }
  c.down(1, DownReason::idle);
  c.pass(Duration::milliseconds(500));
  ASSERT_TRUE(c.find<StoreView>());
  EXPECT_THAT(c.find<StoreView>()->record.reason, HasSubstr("was lost: nothing was heard from it"));
  c.stored();
  EXPECT_EQ(c.brain.attempt(), before.next());
}

/// Claim: where both ends of a broken link are heard, an attempt is opened at once; where one is not heard for a while, when it is
/// heard again and the other repeats its word.
TEST(Views, ABrokenLinkBetweenTheLiving) {
  Coordinator c(2, 2);
  c.begin(4);
  const auto complain = [&] { c.say(2, wire::Trouble{c.brain.attempt(), wire::TroubleKind::link_down, peer(1), "idle"}); };
  complain();
  EXPECT_TRUE(c.find<StoreView>());
  c.stored();
  c.pass(Duration::seconds(5));
  complain();
  EXPECT_FALSE(c.find<StoreView>()) << "it may be dead: then it will be lost";
  c.say(1, wire::Telemetry{.attempt = c.brain.attempt()});
  EXPECT_FALSE(c.find<StoreView>());
  complain();
  EXPECT_TRUE(c.find<StoreView>());
}

/// Claim: where a worker is seen at another address, the next view names that instead of the one seen before, beside its own.
TEST(Views, ANewAddressIsInTheNextView) {
  Coordinator c(1, 2);
  const link::Address own{"10.0.0.2", 7000}, before{"203.0.113.5", 41000}, after{"198.51.100.7", 50123};
  c.give(wire::LinkIsUp{peer(1), before});
  c.hello(1, {.addresses = {own}});
  c.say(1, wire::Ready{base::WeightVersion(0), "cpu"});
  c.join(2);
  c.stored();
  c.give(wire::PeerMoved{peer(1), after});
  EXPECT_TRUE(c.out.empty());
  c.say(2, wire::Trouble{c.brain.attempt(), wire::TroubleKind::link_down, peer(1), "idle"});
  ASSERT_TRUE(c.find<StoreView>());
  EXPECT_THAT(c.find<StoreView>()->record.stages.at(0).members.at(0).addresses, ElementsAre(own, after));
  c.stored();
  EXPECT_THAT(c.sent<wire::View>(2).at(0).stages.at(0).members.at(0).addresses, ElementsAre(own, after));
}

/// Claim: two that cannot reach each other get one new attempt, however often both complain; the second time the one goes whose stage
/// keeps more replicas (time-out 5).
TEST(Views, UnreachableTwice) {
  auto options = Coordinator::options(2, 2);
  Coordinator c(options);
  c.begin(4);
  c.down(3, DownReason::idle);  // stage 0 is down to worker 1
  c.pass(base::Duration::seconds(1));
  c.stored();
  const auto complain = [&](std::uint8_t from, std::uint8_t to) {
    c.say(from, wire::Trouble{c.brain.attempt(), wire::TroubleKind::unreachable, peer(to), "test"});
  };
  complain(1, 2);
  ASSERT_TRUE(c.find<StoreView>());
  complain(2, 1);
  EXPECT_TRUE(c.brain.workers().contains(peer(1)) && c.brain.workers().contains(peer(2))) << "one round, told by both";
  c.stored();
  complain(2, 1);
  EXPECT_FALSE(c.brain.workers().contains(peer(2)));
  EXPECT_TRUE(c.brain.workers().contains(peer(1)));
  EXPECT_THAT(c.find<StoreView>()->record.reason, HasSubstr("no link between"));
}

/// Claim: a device that does not answer is found by telemetry; a slow first operation is not taken for one.
TEST(Views, AHangingDevice) {
  Coordinator c(1, 2);
  c.begin(2);
  const auto telemetry = [&](std::uint8_t from, std::int64_t running_s) {
    wire::Telemetry t;
    t.attempt = c.brain.attempt();
    t.running_ns = static_cast<std::uint64_t>(Duration::seconds(running_s).ns());
    t.service_max_ns = static_cast<std::uint64_t>(Duration::milliseconds(100).ns());
    c.say(from, t);
    c.pass(Duration::seconds(1));
  };
  telemetry(1, 90);
  EXPECT_TRUE(c.brain.workers().contains(peer(1))) << "before the first commit nobody knows what is slow";
  c.prepare(1, 10, Coordinator::losses(2));
  c.prepare(2, 10);
  c.stored();
  telemetry(1, 29);
  EXPECT_TRUE(c.brain.workers().contains(peer(1)));
  telemetry(1, 31);
  EXPECT_FALSE(c.brain.workers().contains(peer(1)));
}

/// Claim: a step in which nothing moves is opened again, each time in a row twice as late; work that is seen puts it off.
TEST(Views, AStallOpensTheStepAgain) {
  Coordinator c(1, 1);
  c.begin(1);
  for (int i = 0; i < 200; ++i) {
    wire::Telemetry t;
    t.attempt = c.brain.attempt();
    t.running_ns = 1;
    c.say(1, t);
    c.pass(Duration::seconds(1));
    ASSERT_FALSE(c.find<StoreView>());
  }
  for (std::uint32_t i = 0; i < 8; ++i) {  // a reduce over slow lines: a shard comes every 50 seconds, nothing else happens
    for (int again = 0; again < 50; ++again) {
      wire::Telemetry t;
      t.attempt = c.brain.attempt();
      t.reduced = i + 1;
      c.say(1, t);
      c.pass(Duration::seconds(1));
    }
    ASSERT_FALSE(c.find<StoreView>());
  }
  c.pass(Duration::seconds(121));
  ASSERT_TRUE(c.find<StoreView>());
  EXPECT_THAT(c.find<StoreView>()->record.reason, HasSubstr("made no progress"));
  c.stored();
  c.pass(Duration::seconds(121));
  EXPECT_FALSE(c.find<StoreView>());
  c.pass(Duration::seconds(121));
  EXPECT_TRUE(c.find<StoreView>());
}

/// Claim: an evicted worker hears of it once the view without it is durable, not before, and keeps its link to hear it.
TEST(Views, TheEvictedAreToldAfterTheWrite) {
  Coordinator c(1, 2);
  c.begin(2);
  wire::Trouble trouble;
  trouble.attempt = c.brain.attempt();
  trouble.kind = wire::TroubleKind::device_failed;
  trouble.text = "smoke";
  c.give(wire::LinkIsUp{peer(2), {}});
  c.say(2, trouble);
  EXPECT_TRUE(c.find<StoreView>());
  EXPECT_TRUE(c.sent<wire::Evicted>(2).empty());
  EXPECT_FALSE(c.find<wire::CloseLink>());
  c.stored();
  EXPECT_THAT(c.refusal(2), HasSubstr("smoke"));
  c.pass(base::Duration::seconds(11));
  EXPECT_TRUE(c.find<wire::CloseLink>());
}

}  // namespace
}  // namespace stagecoach::fleet
