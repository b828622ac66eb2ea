// The worker's brain, event by event: links, stamps, offers, custody, commits, reports.
#include "worker/brain.h"

#include <gmock/gmock.h>

#include "worker/test_worker.h"

namespace stagecoach::worker {
namespace {

using base::Duration;
using base::Step;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// Claim: the worker speaks first on every new link to the coordinator, with its whole state; Ready follows where it stands there.
TEST(Join, HelloComesFirst) {
  Worker w;
  ASSERT_TRUE(w.find<wire::Dial>());
  w.up(kCoordinator);
  EXPECT_THAT(w.names(kCoordinator), ElementsAre("hello"));
  EXPECT_EQ(w.sent<wire::Hello>(kCoordinator)[0].run.value(), 0u);
  w.say(kCoordinator, w.assign());
  ASSERT_TRUE(w.find<Prepare>());
  w.give(w.prepared());
  EXPECT_THAT(w.names(kCoordinator), ElementsAre("ready"));
  w.down(kCoordinator);
  w.pass(Duration::seconds(5));
  ASSERT_TRUE(w.find<wire::Dial>());
  w.up(kCoordinator);
  EXPECT_THAT(w.names(kCoordinator), ElementsAre("hello", "ready"));
  EXPECT_EQ(w.sent<wire::Hello>(kCoordinator)[0].run.value(), 7u);
}

/// Claim: a repeated assignment is no news; one for another place, while this one was made ready, ends the worker with what to do.
TEST(Join, AnotherPlaceEndsTheWorker) {
  Worker w;
  w.assigned();
  w.say(kCoordinator, w.assign());
  EXPECT_THAT(w.out, IsEmpty());
  auto other = w.assign();
  other.stage = base::StageIndex(2);
  w.say(kCoordinator, other);
  EXPECT_THAT(w.exit_text(4), HasSubstr("start it again"));
}

/// Claim: a coordinator that proves another key ends the worker at once; one that is silent does after a minute.
TEST(Join, WrongIdentityAndSilence) {
  Worker w;
  w.down(kCoordinator, link::DownReason::wrong_identity);
  EXPECT_THAT(w.exit_text(1), HasSubstr("another key"));
  Worker alone;
  for (int i = 0; i < 59; ++i) {
    alone.down(kCoordinator, link::DownReason::unreachable);
    alone.pass(Duration::seconds(1));
    ASSERT_FALSE(alone.find<wire::Exit>());
  }
  alone.pass(Duration::seconds(2));
  EXPECT_THAT(alone.exit_text(1), HasSubstr("does not answer"));
}

/// Claim: older in attempt or either view is dropped; equal acts; newer in attempt or either view is parked (B0).
TEST(Stamps, DropParkAct) {
  struct Case {
    std::uint64_t attempt, from, to;
    const char* what;
  };
  const Case cases[] = {{2, 2, 2, "act"},  {1, 2, 2, "drop"}, {2, 1, 2, "drop"}, {2, 2, 1, "drop"}, {1, 3, 3, "drop"},
                        {3, 2, 2, "park"}, {2, 3, 2, "park"}, {2, 2, 3, "park"}, {3, 3, 3, "park"}, {3, 1, 3, "drop"}};
  for (const Case& c : cases) {
    Worker w;
    w.begin();
    w.say(kCoordinator, w.view(2));
    w.finish_all();
    auto offer = w.offer(0, c.attempt);
    offer.stamps.from_view = base::ViewNumber(c.from), offer.stamps.to_view = base::ViewNumber(c.to);
    w.say(1, offer);
    const std::string did = !w.sent<wire::Accepted>(1).empty() ? "act" : w.brain.parked() == 1 ? "park" : "drop";
    EXPECT_EQ(did, c.what) << c.attempt << " " << c.from << " " << c.to;
  }
}

/// Claim: a stranger gets no link beside the view's, and nothing of what it sends is kept.
TEST(Stamps, AStrangerIsTurnedAway) {
  Worker w;
  w.begin();
  w.up(77);
  EXPECT_THAT(w.closed(77), HasSubstr("not a neighbour"));
  w.say(77, w.offer(0, 9));
  w.say(77, w.offer(0));
  EXPECT_EQ(w.brain.parked(), 0u);
  EXPECT_FALSE(w.book(0).owned);
}

/// Claim: frames beyond what honest neighbours can be ahead cost the sender its link.
TEST(Stamps, ParkingIsBounded) {
  Worker w;
  w.begin();
  std::size_t sent = 0;
  while (w.closed(1).empty() && sent < 10'000) w.say(1, w.offer(0, 9)), ++sent;
  EXPECT_THAT(w.closed(1), HasSubstr("far ahead"));
  EXPECT_LE(w.brain.parked(), sent);
  EXPECT_LT(sent, 2000u);
}

/// Claim: what was parked before a view, or before a commit, is acted on after it.
TEST(Stamps, ParkedFramesAreActedOnLater) {
  Worker w;
  w.assigned();
  w.up(1);
  w.say(1, w.offer(0));
  EXPECT_EQ(w.brain.parked(), 1u) << "no view yet";
  w.say(kCoordinator, w.view(1));
  EXPECT_EQ(w.brain.parked(), 0u);
  EXPECT_THAT(w.sent<wire::Accepted>(1), testing::SizeIs(1));

  Worker next;
  next.begin();
  next.prepare_step();
  next.say(1, next.offer(2, 1, 2));
  EXPECT_EQ(next.brain.parked(), 1u) << "of step 2, while step 1 is open";
  next.say(kCoordinator, next.commit());
  next.finish();
  EXPECT_THAT(next.sent<wire::Accepted>(1), testing::SizeIs(1));
  EXPECT_EQ(next.brain.version().value(), 1u);
}

/// Claim: an offer that comes again is accepted again, under its own number, and owned once; another owner or tensor is trouble.
TEST(Offers, DuplicatesAndTwoOwners) {
  Worker w;
  w.begin();
  auto offer = w.offer(3);
  offer.stamps.number = 6;
  w.say(1, offer);
  EXPECT_EQ(w.sent<wire::Accepted>(1).at(0).stamps.number, 6u);
  EXPECT_EQ(w.device.size(), 1u);
  w.say(1, offer);
  EXPECT_THAT(w.sent<wire::Accepted>(1), testing::SizeIs(1));
  EXPECT_EQ(w.device.size(), 1u) << "no second forward";
  w.say(2, offer);
  EXPECT_THAT(w.sent<wire::Accepted>(2), IsEmpty());
  ASSERT_THAT(w.sent<wire::Trouble>(kCoordinator), testing::SizeIs(1));
  EXPECT_EQ(w.sent<wire::Trouble>(kCoordinator)[0].kind, wire::TroubleKind::broken_books);
}

/// Claim: tensors of the wrong length, microbatches beyond the plan and messages of the wrong stage cost the sender its link.
TEST(Offers, BadInputClosesTheLink) {
  Worker w;
  w.begin();
  auto shorter = w.offer(0);
  shorter.boundary = tensor(1, 8);
  w.say(1, shorter);
  EXPECT_THAT(w.closed(1), HasSubstr("wrong length"));
  auto no_tokens = w.offer(0);
  no_tokens.tokens = nullptr;
  w.say(1, no_tokens);
  EXPECT_THAT(w.closed(1), HasSubstr("wrong length"));
  w.say(1, w.offer(4));
  EXPECT_THAT(w.closed(1), HasSubstr("beyond"));
  auto other = w.offer(0);
  other.stamps.stage = base::StageIndex(2);
  w.say(1, other);
  EXPECT_THAT(w.closed(1), HasSubstr("another stage"));
  w.say(1, wire::Gradient{w.stamps(0, 0), tensor(1)});
  EXPECT_THAT(w.closed(1), HasSubstr("does not come from that stage"));
  w.say(12, wire::Bits{w.stamps(1, 0), {1, 1, 1}});
  EXPECT_THAT(w.closed(12), HasSubstr("bitmap"));
  w.say(1, wire::StatusRequest{});
  EXPECT_THAT(w.closed(1), HasSubstr("not for a worker"));
  EXPECT_EQ(w.device.size(), 0u);
  w.say(1, w.offer(0));
  w.finish();
  w.say(w.named(0), wire::Gradient{w.stamps(2, 0), tensor(1, 8)});
  EXPECT_THAT(w.closed(w.named(0)), HasSubstr("wrong length"));
}

/// Claim: an answer counts only with the number of the naming; `released` of that number names anew, with the next one (B1).
TEST(Offers, TheNamingNumber) {
  Worker w;
  w.begin();
  w.say(1, w.offer(0));
  w.finish();
  const std::uint8_t first = w.named(0);
  EXPECT_EQ(w.sent<wire::Offer>(first).at(0).stamps.number, 1u);
  auto stamps = w.stamps(2, 0);
  stamps.number = 2;
  w.say(first, wire::Accepted{stamps});
  EXPECT_FALSE(w.book(0).down.held);
  w.say(first, wire::Released{stamps});
  EXPECT_EQ(w.book(0).down.number, 1u);
  stamps.number = 1;
  w.say(first == 21 ? 22 : 21, wire::Released{stamps});
  EXPECT_EQ(w.book(0).down.number, 1u) << "not its own to release";
  w.say(first, wire::Accepted{stamps});
  EXPECT_TRUE(w.book(0).down.held);
  w.say(first, wire::Released{stamps});
  EXPECT_EQ(w.book(0).down.number, 2u);
  EXPECT_EQ(w.sent<wire::Offer>(w.named(0)).at(0).stamps.number, 2u);
}

/// Claim: backward work goes to the device before forward work; a gradient that comes again is accumulated once.
TEST(Compute, BackwardFirstAndOnce) {
  Worker w;
  w.begin();
  for (std::uint64_t m = 0; m < 4; ++m) w.say(1, w.offer(m));
  ASSERT_EQ(w.device.size(), 2u);
  w.finish();  // forward 0; forward 2 takes its place behind forward 1
  w.say(w.named(0), w.gradient(0));
  w.finish();
  ASSERT_EQ(w.device.size(), 2u);
  EXPECT_TRUE(std::holds_alternative<Forward>(w.device[0].request));
  EXPECT_TRUE(std::holds_alternative<Backward>(w.device[1].request)) << "before forward 3, which waited longer";
  const std::uint8_t named = w.named(0);
  w.say(named, w.gradient(0));
  w.finish_all();
  EXPECT_EQ(w.book(0).backward, Work::done);
  w.say(named, w.gradient(0));
  EXPECT_TRUE(w.device.empty());
  w.say(named, wire::Gradient{w.stamps(2, 0), tensor(4)});
  EXPECT_EQ(w.sent<wire::Trouble>(kCoordinator).at(0).kind, wire::TroubleKind::broken_books) << "two different gradients";
}

/// Claim: completions of a void attempt are dropped, whatever they say, and their places on the device come free.
TEST(Compute, LateCompletionsOfAVoidAttempt) {
  Worker w;
  w.begin();
  w.say(1, w.offer(0));
  w.say(1, w.offer(1));
  ASSERT_EQ(w.device.size(), 2u);
  w.say(kCoordinator, w.view(2));
  EXPECT_EQ(w.device.size(), 2u) << "the device is full of void work";
  w.pass(Duration::seconds(40));
  EXPECT_EQ(w.sent<wire::Telemetry>(kCoordinator).at(0).running_ns, static_cast<std::uint64_t>(Duration::seconds(40).ns()))
      << "a device that hangs in void work hangs";
  w.finish();
  EXPECT_THAT(w.sent<wire::Offer>(21), IsEmpty());
  EXPECT_THAT(w.sent<wire::Offer>(22), IsEmpty());
  ASSERT_EQ(w.device.size(), 2u);
  EXPECT_TRUE(std::holds_alternative<VoidAttemptsBefore>(w.device[1].request));
  w.finish_all();
  EXPECT_FALSE(w.book(0).owned);
}

/// Claim: custody of z and dz lasts until the commit is applied, and ends there (B6).
TEST(Close, CustodyUntilTheCommit) {
  Worker w;
  w.begin();
  w.prepare_step();
  for (std::uint64_t m = 0; m < 4; ++m) {
    EXPECT_TRUE(w.book(m).output);
    EXPECT_TRUE(w.book(m).input_gradient);
  }
  w.say(kCoordinator, w.commit());
  ASSERT_EQ(w.device.size(), 1u);
  EXPECT_TRUE(std::holds_alternative<Apply>(w.device[0].request));
  EXPECT_TRUE(w.book(0).output) << "not yet applied";
  w.say(kCoordinator, w.commit());
  EXPECT_EQ(w.device.size(), 1u) << "a commit that comes again is applied once";
  w.finish();
  EXPECT_FALSE(w.brain.books().contains(Step(1)));
  EXPECT_TRUE(w.brain.books().contains(Step(2)));
}

/// Claim: a commit of a result that is not held here, or of another hash, ends the worker with what to do.
TEST(Close, ACommitWithoutTheResult) {
  Worker none;
  none.begin();
  none.say(kCoordinator, none.commit());
  EXPECT_THAT(none.exit_text(1), HasSubstr("does not hold"));
  Worker other;
  other.begin();
  other.prepare_step();
  other.say(kCoordinator, other.commit(1, 56));
  EXPECT_THAT(other.exit_text(1), HasSubstr("resume"));
}

/// Claim: a save exports exactly the version after its apply, before any later one; a request for another version exports nothing.
TEST(Close, ASaveFollowsItsApply) {
  Worker w;
  w.begin();
  w.prepare_step();
  w.say(kCoordinator, w.commit());
  w.say(kCoordinator, wire::SaveRequest{base::Term(1), base::WeightVersion(1)});
  ASSERT_EQ(w.device.size(), 2u);
  EXPECT_TRUE(std::holds_alternative<Apply>(w.device[0].request));
  ASSERT_TRUE(std::holds_alternative<ExportState>(w.device[1].request));
  w.finish();
  ComputeResult state;
  state.state.push_back({"blocks.1.w", {base::DType::f32, {300'000}, tensor(3, 1'200'000)}});
  w.finish(state);
  const auto chunks = w.sent<wire::StateChunk>(kCoordinator);
  ASSERT_EQ(chunks.size(), 2u) << "slices of a mebibyte";
  EXPECT_EQ(chunks[0].version.value(), 1u);
  EXPECT_EQ(chunks[1].offset, 1u << 20);
  EXPECT_EQ(chunks[0].bytes->size() + chunks[1].bytes->size(), 1'200'000u);
  w.say(kCoordinator, wire::SaveRequest{base::Term(1), base::WeightVersion(0)});
  EXPECT_THAT(w.device, IsEmpty());
}

/// Claim: a large state goes out a window at a time, the next when the road has taken the last, whole and in
/// order.
TEST(Close, AStateGoesOutInWindows) {
  Worker w;
  w.begin();
  w.prepare_step();
  w.say(kCoordinator, w.commit());
  w.say(kCoordinator, wire::SaveRequest{base::Term(1), base::WeightVersion(1)});
  w.finish();
  ComputeResult state;
  for (int i = 0; i < 2; ++i) state.state.push_back({"w" + std::to_string(i), {base::DType::f32, {5 << 20}, tensor(i, 20 << 20)}});
  w.finish(state);
  EXPECT_EQ(w.sent<wire::StateChunk>(kCoordinator).size(), 16u) << "16 MiB";
  w.now = w.now + Duration::milliseconds(20);
  w.give(Tick{0, 0, 20u << 20});
  EXPECT_TRUE(w.sent<wire::StateChunk>(kCoordinator).empty()) << "the road still holds 20 MiB";
  std::uint64_t slices = 16;
  for (int turn = 0; turn < 2; ++turn) {
    w.now = w.now + Duration::milliseconds(20);
    w.give(Tick{});
    const auto sent = w.sent<wire::StateChunk>(kCoordinator);
    for (const auto& chunk : sent) {
      EXPECT_EQ(chunk.tensor * 20 + (chunk.offset >> 20), slices);
      ++slices;
    }
  }
  EXPECT_EQ(slices, 40u);
  w.now = w.now + Duration::milliseconds(20);
  w.give(Tick{});
  EXPECT_TRUE(w.sent<wire::StateChunk>(kCoordinator).empty());
}

/// Claim: prepared and trouble are state: told again on a new link to the coordinator, and trouble until a new view answers it.
TEST(Reports, AreRepeated) {
  Worker w;
  w.begin();
  w.prepare_step();
  w.down(21);
  ASSERT_THAT(w.sent<wire::Trouble>(kCoordinator), testing::SizeIs(1));
  EXPECT_EQ(w.sent<wire::Trouble>(kCoordinator)[0].partner, peer(21));
  w.pass(Duration::seconds(3));
  EXPECT_THAT(w.sent<wire::Trouble>(kCoordinator), testing::SizeIs(1));
  w.down(kCoordinator, link::DownReason::idle);
  w.up(kCoordinator);
  EXPECT_THAT(w.names(kCoordinator), ElementsAre("hello", "prepared", "trouble"));
  w.say(kCoordinator, w.view(2));
  w.pass(Duration::seconds(3));
  EXPECT_THAT(w.sent<wire::Trouble>(kCoordinator), IsEmpty());
}

/// Claim: the word of a coordinator that was replaced is ignored, whatever it is (B10).
TEST(Reports, AnOlderTermIsIgnored) {
  Worker w;
  w.begin();
  auto newer = w.view(2);
  newer.term = base::Term(5);
  w.say(kCoordinator, newer);
  EXPECT_EQ(w.brain.attempt().value(), 2u);
  w.say(kCoordinator, w.view(3));
  EXPECT_EQ(w.brain.attempt().value(), 2u);
  w.say(kCoordinator, wire::Evicted{base::Term(1), base::Incarnation(5), "old"});
  w.say(kCoordinator, wire::Finish{base::Term(1), "old"});
  EXPECT_FALSE(w.find<wire::Exit>());
  w.say(kCoordinator, wire::Evicted{base::Term(5), base::Incarnation(4), "another start of it"});
  EXPECT_FALSE(w.find<wire::Exit>());
  w.say(kCoordinator, wire::Evicted{base::Term(5), base::Incarnation(5), "you"});
  EXPECT_EQ(w.exit_text(4), "you");
}

/// Claim: a member that cannot be reached in time is trouble; the links of a new view get the whole time anew.
TEST(Reports, ANewViewRestartsTheTimeForLinks) {
  Worker w;
  w.assigned();
  w.say(kCoordinator, w.view(1));
  w.pass(Duration::milliseconds(7900));
  w.say(kCoordinator, w.view(2));
  w.pass(Duration::milliseconds(7900));
  EXPECT_THAT(w.sent<wire::Trouble>(kCoordinator), IsEmpty());
  w.pass(Duration::milliseconds(200));
  EXPECT_FALSE(w.sent<wire::Trouble>(kCoordinator).empty());
  EXPECT_EQ(w.sent<wire::Trouble>(kCoordinator)[0].kind, wire::TroubleKind::unreachable);
}

/// Claim: a dial that fails is tried again after a while, not at once: a refusal that comes in microseconds must not spin.
TEST(Reports, FailedDialsWait) {
  Worker w;
  w.assigned();
  w.say(kCoordinator, w.view(1));
  w.down(21, link::DownReason::unreachable);
  EXPECT_FALSE(w.find<wire::Dial>());
  EXPECT_LE(w.brain.next_deadline() - w.now, Duration::seconds(1));
  w.pass(Duration::milliseconds(600));
  EXPECT_TRUE(w.find<wire::Dial>());
}

}  // namespace
}  // namespace stagecoach::worker
