// The contract of endpoints: each promise of link.h as a test, run against every road.
//
// In:      a RoadHarness: how to make endpoints of that road and how to let time pass for them.
// Out:     the GoogleTest suite EndpointContract. A test program includes this once and instantiates the suite with its harness.
// Thread:  one.
// Why:     code above the road is tested over memory and runs over QUIC; this file is why that is allowed.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "base/prng.h"
#include "link/road_harness.h"

namespace stagecoach::link {

class EndpointContract : public testing::TestWithParam<RoadHarnessMaker> {
 protected:
  void SetUp() override { harness_ = GetParam()(); }

  static Limits quick_limits() {
    Limits limits;
    limits.idle_timeout = base::Duration::milliseconds(2000);
    limits.keep_alive = base::Duration::milliseconds(200);
    limits.handshake_timeout = base::Duration::milliseconds(1500);
    return limits;
  }
  std::unique_ptr<Party> party(const Limits& limits = quick_limits()) { return party(Identity::generate().value(), limits); }
  std::unique_ptr<Party> party(const Identity& identity, const Limits& limits = quick_limits()) {
    return std::make_unique<Party>(*harness_, identity, limits);
  }

  /// Turns until `done`, at most for `limit` of the harness' time. True where it was done.
  bool run(std::initializer_list<Party*> parties, const std::function<bool()>& done,
           base::Duration limit = base::Duration::seconds(20)) {
    const base::Instant end = harness_->now() + limit;
    std::vector<Endpoint*> endpoints;
    for (Party* p : parties) endpoints.push_back(&p->road());
    while (!done()) {
      if (harness_->now() > end) return false;
      harness_->turn(endpoints);
      for (Party* p : parties) p->collect();
    }
    return true;
  }
  /// Lets `time` pass.
  void pass(std::initializer_list<Party*> parties, base::Duration time) {
    run(parties, [] { return false; }, time);
  }
  void join(Party& a, Party& b) {
    a.dial(b);
    ASSERT_TRUE(run({&a, &b}, [&] { return a.is_up(b) && b.is_up(a); }));
  }

  static base::Bytes pattern(std::size_t size, std::uint64_t seed) {
    base::Bytes bytes(size);
    base::Prng prng(seed);
    std::size_t at = 0;
    for (; at + 8 <= size; at += 8) {
      const std::uint64_t word = prng.next();
      std::memcpy(bytes.data() + at, &word, 8);
    }
    for (; at < size; ++at) bytes[at] = static_cast<std::byte>(prng.next());
    return bytes;
  }
  static base::Bytes numbered(std::uint64_t number, std::size_t size = 8) {
    base::ByteWriter writer;
    writer.u64(number);
    writer.raw(base::Bytes(size - 8));
    return writer.take();
  }
  static std::uint64_t number_of(const FrameArrived& frame) { return base::ByteReader(*frame.frame).u64(); }

  std::unique_ptr<RoadHarness> harness_;
};

// Claim: a dial by key ends in LinkUp at both ends, each naming the other's proven key, one dialled and one not.
TEST_P(EndpointContract, dial_by_key_comes_up_at_both_ends) {
  auto a = party(), b = party();
  EXPECT_EQ((*a)->self(), a->id());
  join(*a, *b);
  ASSERT_EQ(a->all<LinkUp>().size(), 1u);
  ASSERT_EQ(b->all<LinkUp>().size(), 1u);
  EXPECT_TRUE(a->all<LinkUp>()[0].dialled);
  EXPECT_EQ(a->all<LinkUp>()[0].address, (*b)->local_address());
  EXPECT_FALSE(b->all<LinkUp>()[0].dialled);
  EXPECT_EQ(b->all<LinkUp>()[0].address, (*a)->local_address());
}

// Claim: a peer that proves another key than the one dialled is refused as wrong_identity; it reports no link at all.
TEST_P(EndpointContract, another_key_is_wrong_identity) {
  auto a = party(), b = party();
  const base::PeerId expected = Identity::generate().value().peer_id();
  const Address address = (*b)->local_address();
  (*a)->dial(expected, std::span(&address, 1));
  ASSERT_TRUE(run({a.get(), b.get()}, [&] { return !a->events.empty(); }));
  ASSERT_EQ(a->all<LinkDown>().size(), 1u);
  EXPECT_EQ(a->all<LinkDown>()[0].reason, DownReason::wrong_identity) << a->all<LinkDown>()[0].text;
  EXPECT_EQ(a->all<LinkDown>()[0].peer, expected);
  EXPECT_EQ(a->all<LinkDown>()[0].generation, LinkGeneration());
  pass({a.get(), b.get()}, base::Duration::milliseconds(300));
  EXPECT_EQ(a->events.size(), 1u);
  EXPECT_TRUE(b->events.empty());
}

// Claim: a dial that nobody answers ends as unreachable within the handshake time-out, and not much before it.
TEST_P(EndpointContract, nobody_answers_is_unreachable) {
  auto a = party();
  const Address address = harness_->nowhere();
  const base::Instant begin = harness_->now();
  (*a)->dial(Identity::generate().value().peer_id(), std::span(&address, 1));
  ASSERT_TRUE(run({a.get()}, [&] { return !a->events.empty(); }));
  ASSERT_EQ(a->all<LinkDown>().size(), 1u);
  EXPECT_EQ(a->all<LinkDown>()[0].reason, DownReason::unreachable);
  EXPECT_LE((harness_->now() - begin).ns(), base::Duration::milliseconds(2500).ns());
}

// Claim: a dial with no address, or to our own key, fails with a sentence instead of hanging.
TEST_P(EndpointContract, impossible_dials_fail) {
  auto a = party();
  (*a)->dial(Identity::generate().value().peer_id(), {});
  a->dial(*a);
  ASSERT_TRUE(run({a.get()}, [&] { return a->all<LinkDown>().size() == 2; }));
  for (const LinkDown& down : a->all<LinkDown>()) EXPECT_EQ(down.reason, DownReason::unreachable);
}

// Claim: of several addresses the one that answers with the right key is used.
TEST_P(EndpointContract, first_address_that_answers_with_the_key) {
  auto a = party(), b = party(), stranger = party();
  const Address addresses[] = {harness_->nowhere(), (*stranger)->local_address(), (*b)->local_address()};
  (*a)->dial(b->id(), addresses);
  ASSERT_TRUE(run({a.get(), b.get(), stranger.get()}, [&] { return a->is_up(*b) && b->is_up(*a); }));
  pass({a.get(), b.get(), stranger.get()}, base::Duration::milliseconds(300));
  EXPECT_TRUE(a->all<LinkDown>().empty());
  EXPECT_TRUE(stranger->events.empty());
}

// Claim: a second dial to a peer that is being dialled or up does nothing.
TEST_P(EndpointContract, second_dial_does_nothing) {
  auto a = party(), b = party();
  a->dial(*b);
  join(*a, *b);
  a->dial(*b);
  pass({a.get(), b.get()}, base::Duration::milliseconds(500));
  EXPECT_EQ(a->events.size(), 1u);
  EXPECT_EQ(b->events.size(), 1u);
}

// Claim: control frames arrive in the order they were sent, whatever else is on the road.
TEST_P(EndpointContract, control_frames_keep_their_order) {
  auto a = party(), b = party();
  join(*a, *b);
  constexpr std::uint64_t kFrames = 500;
  for (std::uint64_t i = 0; i < kFrames; ++i) {
    ASSERT_TRUE(a->send(*b, numbered(i, 8 + i % 3000), Priority::control).ok());
    if (i % 10 != 0) continue;
    ASSERT_TRUE(a->send(*b, numbered(i, 20'000), Priority::bulk).ok());
  }
  ASSERT_TRUE(run({a.get(), b.get()}, [&] { return b->frame_count() == kFrames + kFrames / 10; }));
  std::uint64_t expected = 0;
  for (const FrameArrived& frame : b->frames()) {
    if (frame.priority != Priority::control) continue;
    EXPECT_EQ(number_of(frame), expected++);
  }
  EXPECT_EQ(expected, kFrames);
}

// Claim: frames of every priority and size, 0 bytes and several MiB among them, arrive whole and once, both ways at once.
TEST_P(EndpointContract, frames_arrive_whole_and_once) {
  auto a = party(), b = party();
  join(*a, *b);
  std::multiset<std::pair<Priority, base::Bytes>> sent[2];
  base::Prng prng(3);
  const std::size_t sizes[] = {0, 0, 1, 2, 1195, 1196, 4096, 65'536, 1'000'000, 5u << 20};
  for (int round = 0; round < 4; ++round) {
    for (std::size_t size : sizes) {
      for (int way = 0; way < 2; ++way) {
        const auto priority = static_cast<Priority>(prng.below(kPriorities));
        if (priority == Priority::control && size > kControlFrameBytesMax) continue;
        base::Bytes frame = pattern(size, prng.next());
        sent[way].emplace(priority, frame);
        Party& from = way == 0 ? *a : *b;
        Party& to = way == 0 ? *b : *a;
        ASSERT_TRUE(from.send(to, std::move(frame), priority).ok());
      }
    }
  }
  ASSERT_TRUE(run({a.get(), b.get()}, [&] { return b->frame_count() >= sent[0].size() && a->frame_count() >= sent[1].size(); }));
  pass({a.get(), b.get()}, base::Duration::milliseconds(100));
  for (int way = 0; way < 2; ++way) {
    std::multiset<std::pair<Priority, base::Bytes>> arrived;
    for (const FrameArrived& frame : (way == 0 ? b : a)->frames()) arrived.emplace(frame.priority, *frame.frame);
    EXPECT_TRUE(arrived == sent[way]);
  }
}

// Claim: many more small frames than a link may have under way at once all arrive.
TEST_P(EndpointContract, more_frames_than_the_limit_at_once_all_arrive) {
  Limits limits = quick_limits();
  limits.incoming_streams_max = 8;
  auto a = party(limits), b = party(limits);
  join(*a, *b);
  constexpr std::uint64_t kFrames = 1000;
  for (std::uint64_t i = 0; i < kFrames; ++i) ASSERT_TRUE(a->send(*b, numbered(i, 100), static_cast<Priority>(1 + i % 3)).ok());
  ASSERT_TRUE(run({a.get(), b.get()}, [&] { return b->frame_count() == kFrames; }));
  std::set<std::uint64_t> seen;
  for (const FrameArrived& frame : b->frames()) seen.insert(number_of(frame));
  EXPECT_EQ(seen.size(), kFrames);
}

// Claim: an owner that sleeps until next_deadline() does not sleep on events that it has not taken.
TEST_P(EndpointContract, events_that_wait_are_a_deadline) {
  auto a = party(), b = party();
  join(*a, *b);
  ASSERT_TRUE(a->send(*b, numbered(1), Priority::forward).ok());
  std::vector<Endpoint*> endpoints{&a->road(), &b->road()};
  // Nobody takes b's events meanwhile: the turns only carry the frame over.
  for (int i = 0; i < 50; ++i) harness_->turn(endpoints);
  EXPECT_LE((*b)->next_deadline(), harness_->now());
  b->collect();
  EXPECT_EQ(b->frame_count(), 1u);
  pass({a.get(), b.get()}, base::Duration::milliseconds(100));
  EXPECT_GT((*b)->next_deadline(), harness_->now()) << "and with nothing to take there is none at once";
}

// Claim: take_in() alone brings what has arrived.
TEST_P(EndpointContract, taking_in_brings_what_has_arrived) {
  auto a = party(), b = party();
  join(*a, *b);
  ASSERT_TRUE(a->send(*b, numbered(1), Priority::forward).ok());
  std::vector<Endpoint*> sender{&a->road()};
  for (int i = 0; i < 1000 && b->frame_count() == 0; ++i) {
    harness_->turn(sender);
    (*b)->take_in(harness_->now());
    b->collect();
  }
  EXPECT_EQ(b->frame_count(), 1u);
}

// Claim: send() to nobody is not_found; beyond the length limits it is too_large, and the link stays up.
TEST_P(EndpointContract, send_refuses_with_codes) {
  auto a = party(), b = party();
  EXPECT_EQ(a->send(*b, numbered(0), Priority::control).error().code, base::ErrorCode::not_found);
  join(*a, *b);
  EXPECT_EQ(a->send(*b, base::Bytes(kControlFrameBytesMax + 1), Priority::control).error().code, base::ErrorCode::too_large);
  EXPECT_EQ(a->send(*b, base::Bytes(kFrameBytesMax + 1), Priority::bulk).error().code, base::ErrorCode::too_large);
  ASSERT_TRUE(a->send(*b, pattern(kControlFrameBytesMax, 1), Priority::control).ok());
  ASSERT_TRUE(run({a.get(), b.get()}, [&] { return b->frame_count() == 1; }));
  EXPECT_EQ(*b->frames()[0].frame, pattern(kControlFrameBytesMax, 1));
}

// Claim: beyond the queue limit send() is unavailable; when the queue has drained it takes frames again, and none was lost.
TEST_P(EndpointContract, full_queue_is_unavailable_until_it_drains) {
  Limits limits = quick_limits();
  limits.send_queue_bytes_max = 3u << 20;
  auto a = party(limits), b = party();
  join(*a, *b);
  std::uint64_t accepted = 0;
  base::Result<void> last;
  while ((last = a->send(*b, numbered(accepted, 500'000), Priority::forward)).ok()) ++accepted;
  EXPECT_EQ(last.error().code, base::ErrorCode::unavailable);
  EXPECT_GE(accepted, 5u);
  EXPECT_LE((*a)->stats(b->id())->bytes_queued, limits.send_queue_bytes_max);
  ASSERT_TRUE(run({a.get(), b.get()}, [&] { return (*a)->stats(b->id())->bytes_queued == 0; }));
  ASSERT_TRUE(a->send(*b, numbered(accepted++, 500'000), Priority::forward).ok());
  ASSERT_TRUE(run({a.get(), b.get()}, [&] { return b->frame_count() == accepted; }));
}

// Claim: close() tells the peer the text; both ends report the link down once, each from its own side, and nothing of it afterwards.
TEST_P(EndpointContract, close_reaches_both_ends_with_its_text) {
  auto a = party(), b = party();
  join(*a, *b);
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(b->send(*a, base::Bytes(100'000), Priority::bulk).ok());
  (*a)->close(b->id(), "the run is over");
  ASSERT_TRUE(run({a.get(), b.get()}, [&] { return !a->is_up(*b) && !b->is_up(*a); }));
  EXPECT_EQ(a->all<LinkDown>()[0].reason, DownReason::closed_by_us);
  EXPECT_EQ(a->all<LinkDown>()[0].text, "the run is over");
  EXPECT_EQ(b->all<LinkDown>()[0].reason, DownReason::closed_by_peer);
  EXPECT_EQ(b->all<LinkDown>()[0].text, "the run is over");
  pass({a.get(), b.get()}, base::Duration::milliseconds(300));
  EXPECT_EQ(a->all<LinkDown>().size(), 1u);
  EXPECT_EQ(b->all<LinkDown>().size(), 1u);
  EXPECT_EQ(a->send(*b, numbered(0), Priority::control).error().code, base::ErrorCode::not_found);
}

// Claim: after a close either side can dial again; the new link has a higher generation.
TEST_P(EndpointContract, a_closed_link_can_be_dialled_again) {
  auto a = party(), b = party();
  join(*a, *b);
  const LinkGeneration first = a->generation(*b);
  (*a)->close(b->id(), "for a moment");
  ASSERT_TRUE(run({a.get(), b.get()}, [&] { return !a->is_up(*b) && !b->is_up(*a); }));
  join(*b, *a);
  EXPECT_GT(a->generation(*b), first);
  ASSERT_TRUE(a->send(*b, numbered(1), Priority::control).ok());
  ASSERT_TRUE(run({a.get(), b.get()}, [&] { return b->frame_count() == 1; }));
}

// Claim: a process that died and came back under its key replaces its old link at once (peer_restarted), long before it is idle.
TEST_P(EndpointContract, restarted_peer_replaces_its_old_link) {
  Limits limits = quick_limits();
  limits.idle_timeout = base::Duration::seconds(60);
  auto a = party(limits), b = party(limits);
  join(*a, *b);
  auto again = party(a->identity(), limits);
  a.reset();
  again->dial(*b);
  ASSERT_TRUE(run({again.get(), b.get()}, [&] { return again->is_up(*b) && b->all<LinkUp>().size() == 2; }, base::Duration::seconds(5)));
  ASSERT_EQ(b->all<LinkDown>().size(), 1u);
  EXPECT_EQ(b->all<LinkDown>()[0].reason, DownReason::peer_restarted);
  ASSERT_TRUE(b->send(*again, numbered(5), Priority::control).ok());
  ASSERT_TRUE(run({again.get(), b.get()}, [&] { return again->frame_count() == 1; }));
}

// Claim: when both dial at once exactly one link comes up at each end and stays, whichever key is smaller.
TEST_P(EndpointContract, both_dial_at_once_and_one_link_stays) {
  for (int pair = 0; pair < 4; ++pair) {
    auto a = party(), b = party();
    a->dial(*b);
    b->dial(*a);
    ASSERT_TRUE(run({a.get(), b.get()}, [&] { return a->is_up(*b) && b->is_up(*a); }));
    pass({a.get(), b.get()}, base::Duration::milliseconds(400));
    EXPECT_EQ(a->events.size(), 1u);
    EXPECT_EQ(b->events.size(), 1u);
    EXPECT_NE(a->all<LinkUp>()[0].dialled, b->all<LinkUp>()[0].dialled) << "both ends keep the same one of the two";
    ASSERT_TRUE(a->send(*b, numbered(1), Priority::control).ok());
    ASSERT_TRUE(b->send(*a, numbered(2), Priority::bulk).ok());
    ASSERT_TRUE(run({a.get(), b.get()}, [&] { return a->frame_count() == 1 && b->frame_count() == 1; }));
  }
}

// Claim: a peer that falls silent is reported idle after the idle time-out, and the other links of the endpoint do not notice.
TEST_P(EndpointContract, silent_peer_is_idle_and_nobody_else_notices) {
  Limits limits = quick_limits();
  limits.idle_timeout = base::Duration::milliseconds(1000);
  limits.keep_alive = base::Duration::milliseconds(150);
  auto a = party(limits), silent = party(limits), other = party(limits);
  join(*a, *silent);
  join(*a, *other);
  ASSERT_TRUE(run({a.get(), other.get()}, [&] { return !a->is_up(*silent); }, base::Duration::seconds(5)));
  ASSERT_EQ(a->all<LinkDown>().size(), 1u);
  EXPECT_EQ(a->all<LinkDown>()[0].reason, DownReason::idle);
  EXPECT_EQ(a->all<LinkDown>()[0].peer, silent->id());
  pass({a.get(), other.get()}, base::Duration::milliseconds(1500));
  EXPECT_TRUE(a->is_up(*other)) << "keep-alives hold a quiet link up";
  EXPECT_TRUE(other->is_up(*a));
}

// Claim: an urgent frame sent behind a long queue of bulk arrives before most of it.
TEST_P(EndpointContract, urgent_frames_overtake_queued_bulk) {
  auto a = party(), b = party();
  join(*a, *b);
  constexpr std::size_t kBulk = 40;
  for (std::size_t i = 0; i < kBulk; ++i) ASSERT_TRUE(a->send(*b, base::Bytes(1u << 20), Priority::bulk).ok());
  ASSERT_TRUE(run({a.get(), b.get()}, [&] { return b->frame_count() >= 1; }));
  const std::size_t before = b->frame_count();
  ASSERT_TRUE(a->send(*b, base::Bytes(200'000), Priority::forward).ok());
  ASSERT_TRUE(a->send(*b, base::Bytes(200'000), Priority::backward).ok());
  ASSERT_TRUE(a->send(*b, base::Bytes(100), Priority::control).ok());
  ASSERT_TRUE(run({a.get(), b.get()}, [&] { return b->frame_count() == kBulk + 3; }));
  const std::vector<FrameArrived> frames = b->frames();
  for (const Priority urgent : {Priority::control, Priority::backward, Priority::forward}) {
    const auto at = std::find_if(frames.begin(), frames.end(), [&](const FrameArrived& f) { return f.priority == urgent; });
    EXPECT_LE(static_cast<std::size_t>(at - frames.begin()), before + 12) << "of " << frames.size() << " frames";
  }
}

// Claim: statistics count what went and came, and the queue is empty when all was taken.
TEST_P(EndpointContract, statistics_move) {
  auto a = party(), b = party();
  EXPECT_FALSE((*a)->stats(b->id()).has_value());
  join(*a, *b);
  ASSERT_TRUE(a->send(*b, base::Bytes(1'000'000), Priority::backward).ok());
  EXPECT_GE((*a)->stats(b->id())->bytes_queued, 1'000'000u);
  ASSERT_TRUE(run({a.get(), b.get()}, [&] { return b->frame_count() == 1 && (*a)->stats(b->id())->bytes_queued == 0; }));
  EXPECT_EQ((*a)->stats(b->id())->bytes_sent, 1'000'000u);
  EXPECT_EQ((*b)->stats(a->id())->bytes_received, 1'000'000u);
  EXPECT_GT((*a)->stats(b->id())->packets_sent, 0u);
}

// Claim: with an uplink cap a transfer takes its time, and not several times as long.
TEST_P(EndpointContract, uplink_cap_is_kept) {
  Limits limits = quick_limits();
  limits.uplink_bytes_per_s = 1'000'000;
  auto a = party(limits), b = party();
  join(*a, *b);
  const base::Instant begin = harness_->now();
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(a->send(*b, base::Bytes(20'000), Priority::forward).ok());
  ASSERT_TRUE(run({a.get(), b.get()}, [&] { return b->frame_count() == 50; }));
  const double seconds = (harness_->now() - begin).seconds_f64();
  EXPECT_GE(seconds, 0.95);
  EXPECT_LE(seconds, 2.5);
}

// Claim: an endpoint that has as many links as it may have refuses one more with a sentence, and keeps those it has.
TEST_P(EndpointContract, links_are_limited) {
  Limits one = quick_limits();
  one.links_max = 1;
  auto a = party(one), b = party(), c = party();
  join(*b, *a);
  c->dial(*a);
  ASSERT_TRUE(run({a.get(), b.get(), c.get()}, [&] { return !c->events.empty(); }));
  ASSERT_EQ(c->all<LinkDown>().size(), 1u);
  EXPECT_EQ(c->all<LinkDown>()[0].reason, DownReason::unreachable);
  EXPECT_THAT(c->all<LinkDown>()[0].text, testing::HasSubstr("as many links"));
  EXPECT_TRUE(a->is_up(*b));
}

// Claim: an endpoint in which nothing happens asks to be driven only for its keep-alives.
TEST_P(EndpointContract, quiet_endpoints_are_not_driven) {
  auto a = party(), b = party();
  join(*a, *b);
  pass({a.get(), b.get()}, base::Duration::milliseconds(300));
  std::size_t turns = 0;
  run({a.get(), b.get()}, [&] { return ++turns > 10'000; }, base::Duration::seconds(1));
  EXPECT_LE(turns, 100u) << "in one second with keep-alives each 200 ms";
}

}  // namespace stagecoach::link
