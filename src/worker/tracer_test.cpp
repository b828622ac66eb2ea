// Claim: the tracer tells each step once when it may begin, again after a view, and not while it is being applied; it finds the
// microbatch of an evaluation in the books.
#include "worker/tracer.h"

#include "worker/test_worker.h"

namespace stagecoach::worker {
namespace {

TEST(Tracer, AStepOpensOnceAndAgainAfterAView) {
  Worker w;
  Tracer tracer;
  EXPECT_FALSE(tracer.stepped(w.brain, base::StageIndex(1)));
  w.begin();
  const auto first = tracer.stepped(w.brain, base::StageIndex(1));
  ASSERT_TRUE(first);
  EXPECT_TRUE(first->after_view);
  EXPECT_EQ(first->step, base::Step(1));
  EXPECT_FALSE(tracer.stepped(w.brain, base::StageIndex(1)));
  w.say(kCoordinator, w.view(2));
  const auto again = tracer.stepped(w.brain, base::StageIndex(1));
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->after_view);
  EXPECT_EQ(again->attempt, base::Attempt(2));
}

TEST(Tracer, AViewDuringTheApplyDoesNotOpenTheStepAgain) {
  Worker w;
  Tracer tracer;
  w.begin();
  w.prepare_step();
  ASSERT_TRUE(tracer.stepped(w.brain, base::StageIndex(1)));
  w.say(kCoordinator, w.commit());
  ASSERT_FALSE(w.device.empty());
  tracer.begins(w.device.front().request);
  w.say(kCoordinator, w.view(2, 1));
  EXPECT_FALSE(tracer.stepped(w.brain, base::StageIndex(1)));
  w.finish_all();
  const auto next = tracer.stepped(w.brain, base::StageIndex(1));
  ASSERT_TRUE(next);
  EXPECT_FALSE(next->after_view);
  EXPECT_EQ(next->step, base::Step(2));
}

TEST(Tracer, WorkAndArrivalsBearTheirNames) {
  Worker w;
  Tracer tracer;
  w.begin();
  (void)tracer.stepped(w.brain, base::StageIndex(1));
  const wire::Offer offer = w.offer(3);
  const auto arrival = Tracer::arrival(offer);
  ASSERT_TRUE(arrival);
  EXPECT_EQ(arrival->microbatch, base::MicrobatchIndex(3));
  w.say(1, offer);
  ASSERT_EQ(w.device.size(), 1u);
  const base::Instant began = base::Instant::from_ns(5);
  const auto work = tracer.work(w.brain, w.device.front().request, began);
  ASSERT_TRUE(work);
  EXPECT_EQ(work->kind, observe::trace::Kind::forward);
  EXPECT_EQ(work->microbatch, base::MicrobatchIndex(3));
  EXPECT_EQ(work->began, began);
  EXPECT_FALSE(tracer.work(w.brain, VoidAttemptsBefore{}, began));
  EXPECT_FALSE(Tracer::arrival(wire::Bits{}));
}

}  // namespace
}  // namespace stagecoach::worker
