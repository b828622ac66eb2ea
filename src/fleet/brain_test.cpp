// The coordinator's brain, event by event: seats, commits, saves, the end. Attempts and losses: views_test.cpp.
#include "fleet/brain.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/tensor_bytes.h"
#include "fleet/test_coordinator.h"

namespace stagecoach::fleet {
namespace {

using base::Duration;
using link::DownReason;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Claim: seats fill stage by stage, evenly, and the one beyond the last is refused with the reason.
TEST(Gather, SeatsFillEvenly) {
  Coordinator c(2, 2);
  for (std::uint8_t i = 1; i <= 4; ++i) {
    c.hello(i);
    const auto assigned = c.sent<wire::Assign>(i);
    ASSERT_EQ(assigned.size(), 1u);
    EXPECT_EQ(assigned[0].stage.value(), (i - 1u) % 2);
    EXPECT_EQ(assigned[0].run, base::RunId(77));
  }
  c.hello(5);
  EXPECT_THAT(c.refusal(5), HasSubstr("places of this run are taken"));
}

/// Claim: a worker's addresses are those that it names and the one that the coordinator sees, once each.
TEST(Gather, TheSeenAddressIsAdded) {
  Coordinator c(1, 3);
  const link::Address own{"10.0.0.2", 7000}, seen{"203.0.113.5", 41000};
  c.give(wire::LinkIsUp{peer(1), seen});
  c.hello(1, {.addresses = {own}});
  EXPECT_THAT(c.brain.workers().at(peer(1)).addresses, ElementsAre(own, seen));
  c.give(wire::LinkIsUp{peer(2), own});
  c.hello(2, {.addresses = {own}});
  EXPECT_THAT(c.brain.workers().at(peer(2)).addresses, ElementsAre(own));
  c.give(wire::LinkIsUp{peer(3), seen});
  c.hello(3, {.addresses = std::vector<link::Address>(wire::kAddressesMax, own)});
  EXPECT_EQ(c.brain.workers().at(peer(3)).addresses.size(), wire::kAddressesMax);
  EXPECT_EQ(c.brain.workers().at(peer(3)).addresses.back(), seen);
}

/// Claim: whoever cannot take part hears why, each in words of its own.
TEST(Gather, Refusals) {
  auto options = Coordinator::options(1, 2);
  options.ever_admitted.insert({peer(3), base::Incarnation(3)});
  Coordinator c(options);
  c.hello(1, {.run = base::RunId(5)});
  EXPECT_THAT(c.refusal(1), HasSubstr("another run"));
  c.hello(2, {.protocol_version = 9});
  EXPECT_THAT(c.refusal(2), HasSubstr("protocol version"));
  c.hello(3);
  EXPECT_THAT(c.refusal(3), HasSubstr("incarnation was evicted"));
  c.join(4, "cpu one");
  c.join(5, "cpu two");
  EXPECT_THAT(c.refusal(5), HasSubstr("equal kernels"));
  EXPECT_FALSE(c.brain.workers().contains(peer(5)));
  c.join(6, "cpu one");
  c.stored();
  EXPECT_TRUE(c.brain.running());
  c.hello(7);
  EXPECT_THAT(c.refusal(7), HasSubstr("has begun"));
}

/// Claim: a worker whose link is replaced while workers gather keeps its place and hears its assignment again.
TEST(Gather, AReturnFindsItsOwnPlace) {
  Coordinator c(3, 1);
  c.hello(1), c.hello(2);
  c.down(1, DownReason::peer_restarted);
  c.hello(3);
  EXPECT_EQ(c.sent<wire::Assign>(3).at(0).stage.value(), 2u) << "stage 0 is not free";
  c.hello(1);
  EXPECT_EQ(c.sent<wire::Assign>(1).at(0).stage.value(), 0u);
  c.down(2, DownReason::peer_restarted);
  c.pass(Duration::seconds(4));
  EXPECT_FALSE(c.brain.workers().contains(peer(2))) << "it did not come back in time";
}

/// Claim: neither a view nor a commit is said before the database has it.
TEST(Steps, NothingIsAnnouncedBeforeItIsDurable) {
  Coordinator c(2, 1);
  c.join(1), c.join(2);
  ASSERT_TRUE(c.find<StoreView>());
  EXPECT_EQ(c.sent_to_all<wire::View>(), 0u);
  EXPECT_EQ(c.sent_to_all<wire::Lease>(), 0u);
  c.stored();
  EXPECT_EQ(c.sent_to_all<wire::View>(), 2u);
  EXPECT_THAT(c.names(1), ElementsAre("view", "lease"));
  c.prepare(1, 10);
  c.prepare(2, 20, Coordinator::losses(2));
  const auto* commit = c.find<StoreCommit>();
  ASSERT_TRUE(commit);
  EXPECT_EQ(commit->record.global_norm, std::sqrt(18.0));
  EXPECT_EQ(c.sent_to_all<wire::Commit>(), 0u);
  EXPECT_EQ(c.brain.committed().value(), 0u);
  c.stored();
  EXPECT_THAT(c.names(1), ElementsAre("commit", "lease"));
  EXPECT_EQ(c.sent<wire::Commit>(1).at(0).hash, 10u);
  EXPECT_EQ(c.sent<wire::Commit>(2).at(0).hash, 20u);
}

/// Claim: the heads share a step's microbatches in turns: each has one owner, shares differ by at most one, and among the first microbatches
/// of a step, as among the last, every head has its share.
TEST(Steps, HeadsTakeMicrobatchesInTurns) {
  for (const std::int64_t train : {1, 2, 3, 7, 384, 1000, 4001}) {
    auto options = Coordinator::options(2, 3);
    options.config.batch.microbatches = train;
    Coordinator c(options);
    c.begin(6);
    std::vector<int> owner(static_cast<std::size_t>(train), 0);
    std::map<int, std::int64_t> share{{1, 0}, {3, 0}, {5, 0}};
    for (const int head : {1, 3, 5}) {
      for (const auto& lease : c.sent<wire::Lease>(static_cast<std::uint8_t>(head)))
        for (const auto& range : lease.ranges)
          for (std::uint64_t m = range.first.value(); m < range.first.value() + range.count; ++m) {
            EXPECT_EQ(owner.at(m), 0) << "microbatch " << m << " has two owners";
            owner.at(m) = head, ++share[head];
          }
    }
    EXPECT_EQ(std::count(owner.begin(), owner.end(), 0), 0);
    const auto [least, most] = std::minmax({share[1], share[3], share[5]});
    EXPECT_LE(most - least, 1) << train;
    if (train < 100) continue;
    const auto tenth = train / 10;
    for (const int head : {1, 3, 5}) {
      EXPECT_GE(std::count(owner.begin(), owner.begin() + tenth, head), tenth / 4) << train << " microbatches, the first of head " << head;
      EXPECT_GE(std::count(owner.end() - tenth, owner.end(), head), tenth / 4) << train << " microbatches, the last of head " << head;
    }
  }
}

/// Claim: all members of all stages must be prepared in the present view; what belongs to another attempt or view does not count.
TEST(Steps, ACommitNeedsEveryMember) {
  Coordinator c(2, 2);
  c.begin(4);
  c.prepare(1, 10), c.prepare(3, 10), c.prepare(2, 20, Coordinator::losses(2));
  EXPECT_FALSE(c.find<StoreCommit>());
  wire::Prepared old;
  old.step = base::Step(1), old.attempt = base::Attempt(0), old.view = c.brain.views()[1].number, old.hash = 20;
  c.say(4, old);
  EXPECT_FALSE(c.find<StoreCommit>());
  old.attempt = c.brain.attempt(), old.view = base::ViewNumber(99);
  c.say(4, old);
  EXPECT_FALSE(c.find<StoreCommit>());
  c.prepare(4, 20);
  EXPECT_TRUE(c.find<StoreCommit>());
}

/// Claim: replicas that reduced to different sums open a new attempt, and after three the run ends with what differed.
TEST(Steps, DifferentSumsAreTriedAgainAndThenEnd) {
  Coordinator c(1, 2);
  c.begin(2);
  for (int round = 1; round <= 3; ++round) {
    c.prepare(1, 10, {{base::MicrobatchIndex(0), 1.0}});
    c.prepare(2, 11, {{base::MicrobatchIndex(1), 1.0}});
    if (round == 3) break;
    ASSERT_TRUE(c.find<StoreView>()) << round;
    EXPECT_THAT(c.find<StoreView>()->record.reason, HasSubstr("different sums"));
    c.stored();
  }
  EXPECT_THAT(c.exit_text(8), HasSubstr("different sums"));
}

/// Claim: so do losses that are reported twice, or by nobody.
TEST(Steps, LossesTwiceOrMissing) {
  Coordinator c(1, 2);
  c.begin(2);
  c.prepare(1, 10, Coordinator::losses(2));
  c.prepare(2, 10, Coordinator::losses(1));
  EXPECT_THAT(c.find<StoreView>()->record.reason, HasSubstr("twice"));
  c.stored();
  for (int round = 2; round <= 3; ++round) {
    c.prepare(1, 10, Coordinator::losses(1));
    c.prepare(2, 10);
    if (round == 2) c.stored();
  }
  EXPECT_THAT(c.exit_text(8), HasSubstr("microbatch 1 was not reported"));
}

/// Claim: a database that refuses a write, and numbers that every worker would get, end the run with what to do.
TEST(End, StoreErrorsAndBadNumbers) {
  Coordinator c(1, 1);
  c.join(1);
  c.give(StoreDone{c.store, base::Error{base::ErrorCode::out_of_space, "disk full"}});
  EXPECT_THAT(c.exit_text(6), HasSubstr("disk full"));

  Coordinator bad(1, 2);
  bad.begin(2);
  bad.say(1, wire::Trouble{bad.brain.attempt(), wire::TroubleKind::bad_numbers, {}, "step 1: NaN in blocks.0"});
  EXPECT_THAT(bad.exit_text(7), HasSubstr("peak_lr"));
}

wire::StateChunk chunk(std::uint64_t version, std::uint32_t tensor, std::uint64_t offset, std::size_t bytes) {
  wire::StateChunk c;
  c.version = base::WeightVersion(version);
  c.tensor = tensor, c.tensors = 2, c.name = "tensor " + std::to_string(tensor), c.shape = {4}, c.offset = offset;  // float32: 16 bytes
  c.bytes = base::make_payload(base::Bytes(bytes));
  return c;
}

/// A run of one worker that is asked to stop and has committed step 1: its state is wanted.
Coordinator stopping() {
  Coordinator c(1, 1);
  c.begin(1);
  c.give(StopRequested{});
  c.prepare(1, 10, Coordinator::losses(2));
  c.stored();
  return c;
}

/// Claim: a wish to stop ends the present step, its checkpoint and then the run, in this order.
TEST(End, StopCommitsSavesAndFinishes) {
  Coordinator c = stopping();
  EXPECT_THAT(c.names(1), ElementsAre("commit", "save_request"));
  EXPECT_TRUE(c.find<CheckpointBegin>());
  c.say(1, chunk(1, 1, 8, 8));
  EXPECT_TRUE(c.find<CheckpointChunk>());
  c.say(1, chunk(1, 0, 0, 16));
  c.say(1, chunk(1, 0, 0, 16));
  EXPECT_TRUE(c.out.empty()) << "a slice that came before neither fills a hole nor is written again";
  c.say(1, chunk(1, 1, 0, 8));
  EXPECT_TRUE(c.find<CheckpointFinish>());
  EXPECT_FALSE(c.find<wire::Exit>());
  c.give(CheckpointDone{base::WeightVersion(1), "where", std::nullopt});
  EXPECT_THAT(c.exit_text(0), HasSubstr("stopped after step 1"));
  EXPECT_THAT(c.names(1), ElementsAre("finish"));
}

/// Claim: a checkpoint that cannot be written does not stop the training, but the end is then a failure that says so.
TEST(End, AFailedCheckpointFailsTheEnd) {
  auto options = Coordinator::options(1, 1);
  options.checkpoint_every = 1;
  Coordinator c(options);
  c.begin(1);
  for (std::uint64_t step = 1; step <= 2; ++step) {
    c.prepare(1, 10, Coordinator::losses(2));
    c.stored();
    c.say(1, chunk(step, 0, 0, 16));
    c.say(1, chunk(step, 1, 0, 16));
    ASSERT_TRUE(c.find<CheckpointFinish>()) << step;
    c.give(CheckpointDone{base::WeightVersion(step), "", base::Error{base::ErrorCode::out_of_space, "disk full"}});
    EXPECT_FALSE(c.find<wire::Exit>());
  }
  // The step after the last validates and trains nothing; then the run is at its end.
  c.prepare(1, 0, Coordinator::losses(1));
  const auto* commit = c.find<StoreCommit>();
  ASSERT_TRUE(commit);
  EXPECT_TRUE(commit->record.train_losses.empty());
  EXPECT_EQ(commit->record.eval_losses.size(), 1u);
  c.stored();
  EXPECT_THAT(c.exit_text(6), HasSubstr("disk full"));
}

/// Claim: slices that contradict themselves or each other cost their sender its place.
TEST(Save, NonsenseCostsThePlace) {
  const auto verdict = [](wire::StateChunk first, std::optional<wire::StateChunk> second) {
    Coordinator c = stopping();
    c.say(1, std::move(first));
    if (second) c.say(1, std::move(*second));
    return c.find<CheckpointAbandon>() && !c.brain.workers().contains(peer(1));
  };
  const auto good = chunk(1, 0, 0, 8);
  auto other_shape = chunk(1, 0, 8, 8), other_count = chunk(1, 1, 0, 8), huge = good, no_bytes = good;
  other_shape.shape = {8};
  other_count.tensors = 3;
  huge.shape = {1ull << 39, 1ull << 39};
  no_bytes.bytes = nullptr;
  EXPECT_FALSE(verdict(good, chunk(1, 0, 8, 8)));
  EXPECT_FALSE(verdict(chunk(9, 0, 0, 99), std::nullopt)) << "of another version: of a save that was given up";
  EXPECT_TRUE(verdict(chunk(1, 0, 8, 9), std::nullopt)) << "beyond the end";
  EXPECT_TRUE(verdict(chunk(1, 2, 0, 8), std::nullopt)) << "a tensor beyond their number";
  EXPECT_TRUE(verdict(good, chunk(1, 0, 4, 8))) << "overlaps";
  EXPECT_TRUE(verdict(good, other_shape));
  EXPECT_TRUE(verdict(good, other_count));
  EXPECT_TRUE(verdict(huge, std::nullopt));
  EXPECT_TRUE(verdict(no_bytes, std::nullopt));
}

/// Claim: where the state's tensors are known, a checkpoint takes those and no others, each under one name.
TEST(Save, OnlyTheStagesOwnTensors) {
  const auto accepted = [](auto change) {
    auto options = Coordinator::options(1, 1);
    options.state_shapes = {{{"tensor 0", {4}}, {"tensor 1", {4}}}};
    Coordinator c(options);
    c.begin(1);
    c.give(StopRequested{});
    c.prepare(1, 10, Coordinator::losses(2));
    c.stored();
    auto slice = chunk(1, 0, 0, 8);
    change(slice);
    c.say(1, slice);
    return c.find<CheckpointChunk>() != nullptr;
  };
  EXPECT_TRUE(accepted([](wire::StateChunk&) {}));
  EXPECT_FALSE(accepted([](wire::StateChunk& c) { c.name = "tensor 2"; }));
  EXPECT_FALSE(accepted([](wire::StateChunk& c) { c.shape = {std::uint64_t{1} << 38}; }));
  EXPECT_FALSE(accepted([](wire::StateChunk& c) { c.dtype = 2; }));
  EXPECT_FALSE(accepted([](wire::StateChunk& c) { c.dtype = 1; })) << "bfloat16 where numbers.state is float32";
  EXPECT_FALSE(accepted([](wire::StateChunk& c) { c.tensors = 3; }));
  Coordinator c = stopping();
  c.say(1, chunk(1, 0, 0, 8));
  auto twin = chunk(1, 1, 0, 8);
  twin.name = "tensor 0";
  c.say(1, twin);
  EXPECT_TRUE(c.find<CheckpointAbandon>()) << "two positions under one name would leave a hole";
}

/// Claim: where numbers.state is bfloat16, a checkpoint takes tensors of two bytes an element and no others.
TEST(Save, StateInBfloat16) {
  const auto accepted = [](std::uint8_t dtype, std::size_t bytes) {
    auto options = Coordinator::options(1, 1);
    options.config.numbers = {model::FloatKind::bfloat16, model::FloatKind::bfloat16, model::SumKind::fixed64};
    options.state_shapes = {{{"tensor 0", {4}}, {"tensor 1", {4}}}};
    Coordinator c(options);
    c.begin(1);
    c.give(StopRequested{});
    c.prepare(1, 10, Coordinator::losses(2));
    c.stored();
    for (std::uint32_t tensor = 0; tensor < 2; ++tensor) {
      auto whole = chunk(1, tensor, 0, bytes);
      whole.dtype = dtype;
      c.say(1, whole);
    }
    return c.find<CheckpointFinish>() != nullptr;
  };
  EXPECT_TRUE(accepted(static_cast<std::uint8_t>(base::DType::bf16), 8));
  EXPECT_FALSE(accepted(static_cast<std::uint8_t>(base::DType::bf16), 16));
  EXPECT_FALSE(accepted(static_cast<std::uint8_t>(base::DType::f32), 16));
}

/// Claim: whoever streams its state and is lost takes the save with it, and another member is asked once the view stands.
TEST(Save, ALostSourceIsReplaced) {
  auto options = Coordinator::options(1, 2);
  options.checkpoint_every = 1;
  Coordinator c(options);
  c.begin(2);
  c.prepare(1, 10, Coordinator::losses(2));
  c.prepare(2, 10);
  c.stored();
  const std::uint8_t source = c.sent<wire::SaveRequest>(1).empty() ? 2 : 1, other = 3 - source;
  ASSERT_EQ(c.sent<wire::SaveRequest>(source).size(), 1u);
  c.give(PeerExited{peer(source), "killed"});
  EXPECT_TRUE(c.find<CheckpointAbandon>());
  c.stored();
  EXPECT_EQ(c.sent<wire::SaveRequest>(other).size(), 1u);
}

/// Claim: a run that is resumed from a checkpoint behind its last step ends instead of waiting for a step that does not exist.
TEST(End, ResumedBehindTheLastStep) {
  auto options = Coordinator::options(1, 1);
  options.committed = base::Step(3);
  options.state = {{}};
  Coordinator c(options);
  c.begin(1);
  EXPECT_THAT(c.exit_text(0), HasSubstr("complete"));
}

/// Claim: a worker whose kernels differ is told so and does not come back into the seat again and again.
TEST(Gather, OtherKernelsAreRefusedForGood) {
  Coordinator c(1, 2);
  c.join(1, std::string(4000, 'a'));
  c.join(2, std::string(4000, 'b'));
  EXPECT_FALSE(c.refusal(2).empty());
  EXPECT_LE(c.refusal(2).size(), wire::kTextMax);
  c.hello(2);
  EXPECT_FALSE(c.refusal(2).empty());
  EXPECT_TRUE(c.sent<wire::Assign>(2).empty());
}

/// Claim: a paced worker finds no place in a run that computes, nor one that computes in a paced run; each is told what to do.
TEST(Gather, PacedWorkersAreAllOrNone) {
  Coordinator computes(1, 2);
  computes.join(1, "paced, bulk scale 1");
  EXPECT_THAT(computes.refusal(1), HasSubstr("a real --device"));
  auto options = Coordinator::options(1, 2);
  options.paced = true;
  Coordinator paced(options);
  paced.join(1, "cpu");
  EXPECT_THAT(paced.refusal(1), HasSubstr("--device paced:NAME"));
  paced.join(2, "paced, bulk scale 1");
  EXPECT_EQ(paced.refusal(2), "");
}

/// Claim: where all workers fall silent together the coordinator was away: they have a moment to come back and nobody is lost.
TEST(Losses, SilenceOfAllIsOurOwn) {
  Coordinator c(2, 2);
  c.begin(4);
  const auto attempt = c.brain.attempt();
  for (std::uint8_t i = 1; i <= 4; ++i) c.down(i, DownReason::idle);
  c.pass(base::Duration::seconds(1));
  for (std::uint8_t i = 1; i <= 4; ++i) {
    wire::Hello back;
    back.in_view = true;
    back.attempt = attempt;
    c.hello(i, back);
  }
  c.pass(base::Duration::seconds(4));
  EXPECT_EQ(c.brain.workers().size(), 4u);
  EXPECT_EQ(c.brain.attempt(), attempt);
  for (std::uint8_t i = 1; i <= 4; ++i) c.down(i, DownReason::idle);
  c.pass(base::Duration::seconds(1));
  c.pass(base::Duration::seconds(3));
  EXPECT_TRUE(c.find<wire::Exit>()) << "who does not come back is gone all the same";
}

/// Claim: pieces make a tensor whole in any order, once each.
TEST(Save, PiecesInAnyOrder) {
  TensorPieces pieces(10);
  using Added = TensorPieces::Added;
  EXPECT_EQ(pieces.add(6, 4), Added::fresh);
  EXPECT_EQ(pieces.add(0, 3), Added::fresh);
  EXPECT_EQ(pieces.add(7, 2), Added::repeat);
  EXPECT_EQ(pieces.add(2, 2), Added::nonsense);
  EXPECT_EQ(pieces.add(5, 2), Added::nonsense);
  EXPECT_EQ(pieces.add(3, 0), Added::nonsense);
  EXPECT_EQ(pieces.add(9, 2), Added::nonsense);
  EXPECT_FALSE(pieces.whole());
  EXPECT_EQ(pieces.add(3, 3), Added::fresh);
  EXPECT_TRUE(pieces.whole());
  EXPECT_EQ(pieces.add(0, 10), Added::repeat);
}

}  // namespace
}  // namespace stagecoach::fleet
