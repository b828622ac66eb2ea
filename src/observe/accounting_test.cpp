// Accounting on traces made by hand: every number below is arithmetic on the times in the trace.
#include "observe/accounting.h"

#include <gtest/gtest.h>

#include "base/prng.h"
#include "observe/histogram.h"

namespace stagecoach::observe {
namespace {

using base::Attempt;
using base::Duration;
using base::Instant;
using base::MicrobatchIndex;
using base::StageIndex;
using base::Step;

Instant at(std::int64_t ms) { return Instant() + Duration::milliseconds(ms); }
Duration ms(std::int64_t n) { return Duration::milliseconds(n); }

/// Two stages of one worker each; worker = stage.
struct Trace {
  Accounting accounting{2};
  Attempt attempt{1};
  Step step{1};
  void open(std::int64_t time, bool after_view = false) {
    for (std::uint64_t w : {0, 1}) accounting.feed(at(time), w, trace::Opened{StageIndex(w), step, attempt, after_view});
  }
  void work(WorkerNumber w, trace::Kind kind, std::int64_t began, std::int64_t ended, std::uint64_t m = 0) {
    accounting.feed(at(ended), w, trace::Worked{kind, step, attempt, MicrobatchIndex(m), at(began)});
  }
  void arrive(WorkerNumber w, trace::Kind kind, std::int64_t time, std::uint64_t m = 0) {
    accounting.feed(at(time), w, trace::Arrived{kind, step, attempt, MicrobatchIndex(m)});
  }
  void commit(std::int64_t time) { accounting.feed(at(time), 0, trace::Committed{step, attempt, 100}); }
  /// One microbatch: 10 forward, 5 on the road, 20 at the tail, 5 on the road, 20 backward: 60 from its begin to its end.
  void one_microbatch(std::int64_t t) {
    work(0, trace::Kind::forward, t, t + 10);
    arrive(1, trace::Kind::forward, t + 15);
    work(1, trace::Kind::backward, t + 15, t + 35);
    arrive(0, trace::Kind::backward, t + 40);
    work(0, trace::Kind::backward, t + 40, t + 60);
  }
};

/// Claim: a wait is the network's as far as the awaited tensor, or one that it was made from, was on a link; what the busier device
/// worked longer is pace, the rest of waiting for devices flush.
TEST(Accounting, AWaitIsFollowedBackThroughAllStages) {
  Trace trace;
  trace.open(0, true);
  trace.one_microbatch(0);
  trace.commit(62);
  trace.step = Step(2);
  trace.open(65);
  const AccountTable table = trace.accounting.table();
  const Parts& head = table.stages[0];
  EXPECT_EQ(head[Parts::busy], ms(30));
  EXPECT_EQ(head[Parts::network], ms(10));  // there and back
  EXPECT_EQ(head[Parts::flush], ms(20));    // the tail's work
  EXPECT_EQ(head[Parts::reduce], ms(5));    // 60 to 65
  EXPECT_EQ(head.total(), ms(65));
  const Parts& tail = table.stages[1];
  EXPECT_EQ(tail[Parts::busy], ms(20));
  EXPECT_EQ(tail[Parts::network], ms(10));  // 10 to 15 and 35 to 40
  EXPECT_EQ(tail[Parts::pace], ms(10));     // the head worked 30
  EXPECT_EQ(tail[Parts::flush], ms(20));
  EXPECT_EQ(tail[Parts::reduce], ms(5));
  EXPECT_EQ(tail.total(), ms(65));
  EXPECT_EQ(table.all.total(), ms(130));
  EXPECT_EQ(table.span, ms(62));
  EXPECT_EQ(table.steps, 1u);
  EXPECT_EQ(table.tokens, 100u);
}

/// Claim: a voided attempt is recovery from its period's first moment; its work is told as repeated; the event that did it gets the
/// time to the work that was committed and to the commit.
TEST(Accounting, AVoidedAttemptIsRecovery) {
  Trace trace;
  trace.open(0, true);
  trace.work(0, trace::Kind::forward, 0, 10);
  trace.accounting.feed(at(12), 0, trace::Struck{"a link broke"});
  trace.attempt = Attempt(2);
  trace.open(30, true);
  trace.attempt = Attempt(1);
  trace.work(0, trace::Kind::forward, 25, 35, 1);  // it ran on for the attempt that was void
  trace.attempt = Attempt(2);
  trace.one_microbatch(40);
  trace.commit(102);
  trace.step = Step(2);
  trace.open(105);
  const AccountTable table = trace.accounting.table();
  const Parts& head = table.stages[0];
  EXPECT_EQ(head[Parts::recovery], ms(30 + 10));  // the first attempt, and from its view to its first work
  EXPECT_EQ(head[Parts::busy], ms(30));
  EXPECT_EQ(head.total(), ms(105));
  EXPECT_EQ(table.stages[1].total(), ms(105));
  EXPECT_EQ(table.attempts, 2u);
  ASSERT_EQ(table.incidents.size(), 1u);
  const Incident& incident = table.incidents[0];
  EXPECT_EQ(incident.attempts, 1u);
  EXPECT_EQ(incident.to_work, ms(40 - 12));
  EXPECT_EQ(incident.to_commit, ms(102 - 12));
  EXPECT_EQ(incident.repeated, ms(20));
  EXPECT_EQ(incident.repeated_works, 2u);
}

/// Claim: trouble that needs no attempt costs none; a worker that is gone counts until then, all of it as lost.
TEST(Accounting, TroubleWithoutAnAttemptAndALostWorker) {
  Trace trace;
  trace.open(0, true);
  trace.accounting.feed(at(5), 0, trace::Struck{"a short stop"});
  trace.one_microbatch(0);
  trace.commit(60);
  trace.step = Step(2);
  trace.open(60);
  trace.accounting.feed(at(80), 1, trace::Gone{});
  trace.accounting.feed(at(99), 1, trace::Gone{});
  const AccountTable table = trace.accounting.table();
  EXPECT_EQ(table.incidents.at(0).attempts, 0u);
  EXPECT_FALSE(table.incidents.at(0).to_work);
  EXPECT_EQ(table.incidents.at(0).to_commit, ms(55));
  EXPECT_EQ(table.stages[1][Parts::recovery], ms(20));
  EXPECT_EQ(table.stages[1].total(), ms(80));
  EXPECT_EQ(table.stages[0].total(), ms(60)) << "its open period is not counted yet";
}

/// Claim: a death that is missed only after the commit of its step is what the attempt after that is for.
TEST(Accounting, ADeathShortBeforeACommitIsTheNextAttemptsCause) {
  Trace trace;
  trace.open(0, true);
  trace.one_microbatch(0);
  trace.accounting.feed(at(61), 1, trace::Struck{"killed"});
  trace.commit(62);
  trace.step = Step(2);
  trace.open(65);
  trace.work(0, trace::Kind::forward, 65, 75);
  trace.accounting.feed(at(90), 1, trace::Gone{});
  trace.attempt = Attempt(2);
  trace.open(100, true);
  trace.one_microbatch(100);
  trace.commit(160);
  const Incident incident = trace.accounting.table().incidents.at(0);
  EXPECT_EQ(incident.attempts, 1u);
  EXPECT_EQ(incident.to_work, ms(100 - 61));
  EXPECT_EQ(incident.to_commit, ms(160 - 61));
  EXPECT_EQ(incident.to_new, ms(160 - 61));
  EXPECT_EQ(incident.repeated, ms(10));
}

/// Claim: steps behind the checkpoint that a resume goes back to are taken out again: their tokens do not count, their time is recovery;
/// what struck is made up for when a step is committed that never had been.
TEST(Accounting, AResumeTakesStepsBack) {
  Trace trace;
  trace.open(0, true);
  trace.one_microbatch(0);
  trace.commit(60);
  trace.accounting.feed(at(60), 0, trace::Saved{Step(1)});
  trace.step = Step(2);
  trace.open(60);
  trace.one_microbatch(60);
  trace.commit(120);
  trace.step = Step(3);
  trace.open(120);
  trace.accounting.feed(at(124), 0, trace::Struck{"a stage is lost"});
  trace.accounting.feed(at(125), 0, trace::Gone{});
  trace.accounting.feed(at(125), 1, trace::Gone{});
  trace.accounting.feed(at(130), 0, trace::Rewound{Step(1)});
  trace.accounting.feed(at(130), 0, trace::Back{StageIndex(0)});
  trace.accounting.feed(at(130), 1, trace::Back{StageIndex(1)});
  trace.step = Step(2);
  trace.attempt = Attempt(2);
  trace.open(150, true);
  trace.one_microbatch(150);
  trace.commit(210);
  trace.step = Step(3);
  trace.open(210);
  const AccountTable table = trace.accounting.table();
  EXPECT_EQ(table.steps, 2u);
  EXPECT_EQ(table.tokens, 200u);
  EXPECT_EQ(table.stages[0][Parts::busy], ms(60));
  EXPECT_EQ(table.stages[0][Parts::recovery], ms(60 + 5 + 20));
  EXPECT_EQ(table.stages[0].total(), ms(125 + 80));
  EXPECT_EQ(table.repeated, ms(30 + 20));
  ASSERT_EQ(table.incidents.size(), 1u);
  EXPECT_EQ(table.incidents[0].repeated, ms(30 + 20));
  EXPECT_EQ(table.incidents[0].to_commit, ms(210 - 124));
  EXPECT_FALSE(table.incidents[0].to_new) << "step 2 had been committed before";
  trace.one_microbatch(210);
  trace.commit(270);
  EXPECT_EQ(trace.accounting.table().incidents[0].to_new, ms(270 - 124));
}

/// Claim: whatever order, overlap and attempts a trace has, no part is negative and a stage's parts add up to its workers' time.
TEST(Accounting, PartsAlwaysAddUp) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    base::Prng pick(seed);
    Trace trace;
    std::int64_t t = 0;
    const auto later = [&](std::uint64_t most) { return t += static_cast<std::int64_t>(pick.below(most)); };
    trace.open(0, true);
    std::int64_t opened = 0;
    for (int i = 0; i < 200; ++i) {
      const WorkerNumber w = pick.below(2);
      const std::uint64_t m = pick.below(4);
      switch (pick.below(12)) {
        case 0: {
          trace.commit(later(5));
          trace.step = trace.step.next();
          trace.open(opened = later(5));
          break;
        }
        case 1: {
          trace.attempt = trace.attempt.next();
          trace.open(opened = later(5), true);
          break;
        }
        case 2: trace.arrive(0, trace::Kind::backward, later(5), m); break;
        case 3: trace.arrive(1, trace::Kind::forward, later(5), m); break;
        default: {
          const std::int64_t began = later(10);
          trace.work(w, w == 0 && pick.below(2) ? trace::Kind::forward : trace::Kind::backward, began, later(10), m);
        }
      }
    }
    trace.attempt = trace.attempt.next();
    trace.open(opened = later(5), true);
    const AccountTable table = trace.accounting.table();
    for (const Parts& stage : table.stages) {
      EXPECT_EQ(stage.total(), ms(opened)) << "seed " << seed;
      for (const Duration& part : stage.time) EXPECT_GE(part, Duration()) << "seed " << seed;
    }
  }
}

/// Claim: quantiles are right to 1/64, at both ends and in the middle.
TEST(Histogram, Quantiles) {
  Histogram histogram;
  EXPECT_EQ(histogram.quantile(0.5), Duration());
  for (std::int64_t i = 1; i <= 10'000; ++i) histogram.add(Duration::microseconds(i));
  for (const double share : {0.01, 0.5, 0.99, 0.999}) {
    const double expected = share * 10'000e3;
    EXPECT_NEAR(static_cast<double>(histogram.quantile(share).ns()), expected, expected / 50) << share;
  }
  EXPECT_EQ(histogram.count(), 10'000u);
  Histogram edges;
  edges.add(Duration::nanoseconds(0));
  EXPECT_EQ(edges.quantile(0.99), Duration());
  edges.add(Duration::nanoseconds(std::int64_t{1} << 62));
  EXPECT_GE(edges.quantile(0.99), Duration::nanoseconds(std::int64_t{1} << 62));
}

}  // namespace
}  // namespace stagecoach::observe
