#include "world/real/quic_endpoint.h"

#include <gtest/gtest.h>

#include "link/contract.h"
#include "world/real/quic_harness.h"

namespace stagecoach::world::real {
namespace {

using base::Duration;

link::RoadHarnessMaker quic() {
  return [] { return std::make_unique<QuicHarness>(); };
}

/// Two endpoints that are not both made by the contract's harness.
struct Pair {
  QuicHarness harness;
  std::unique_ptr<QuicEndpoint> a, b;
  std::vector<link::Event> a_events, b_events;

  bool run(const std::function<bool()>& done, Duration limit = Duration::seconds(5)) {
    const base::Instant end = harness.now() + limit;
    std::vector<link::Endpoint*> endpoints = {a.get(), b.get()};
    while (!done()) {
      if (harness.now() > end) return false;
      harness.turn(endpoints);
      for (link::Event& event : a->take_events()) a_events.push_back(std::move(event));
      for (link::Event& event : b->take_events()) b_events.push_back(std::move(event));
    }
    return true;
  }
  void dial() {
    const link::Address address = b->local_address();
    a->dial(b->self(), std::span(&address, 1));
  }
};

std::unique_ptr<QuicEndpoint> open(QuicEndpoint::Options options, link::Identity identity = link::Identity::generate().value()) {
  auto endpoint = QuicEndpoint::open(identity, std::move(options));
  CHECK(endpoint.ok(), "loopback has free ports");
  return std::move(endpoint).value();
}

// Claim: a key that is not admitted is refused with a sentence, and the endpoint that refused reports nothing.
TEST(QuicEndpoint, keys_that_are_not_admitted_are_refused) {
  Pair pair;
  QuicEndpoint::Options choosy;
  choosy.bind = {"127.0.0.1", 0};
  choosy.admit = [](const base::PeerId&) { return false; };
  pair.a = open({{"127.0.0.1", 0}, {}, {}});
  pair.b = open(choosy);
  pair.dial();
  ASSERT_TRUE(pair.run([&] { return !pair.a_events.empty(); }));
  const auto& down = std::get<link::LinkDown>(pair.a_events[0]);
  EXPECT_EQ(down.reason, link::DownReason::unreachable);
  EXPECT_THAT(down.text, testing::HasSubstr("does not take links from that key"));
  EXPECT_TRUE(pair.b_events.empty());
}

/// What stands between a dialler and the world and translates its address, as a home router does; a tunnel's end, too.
class Translator {
 public:
  explicit Translator(const UdpAddress& server) : server_(server) {}
  link::Address inside() const { return inside_.local().to_address(); }
  link::Address outside() const { return outside_->local().to_address(); }
  void take_another_address() { outside_ = std::make_unique<UdpSocket>(UdpSocket::bind({"127.0.0.1", 0}).value()); }
  void pump() {
    while (const auto in = inside_.receive()) client_ = in->from, outside_->send(server_, seen(*in), in->datagram_size);
    while (const auto out = outside_->receive()) inside_.send(client_, seen(*out), out->datagram_size), ++answers_;
  }
  std::size_t largest() const { return largest_; }  // datagram in either direction
  std::size_t answers() const { return answers_; }  // batches that the server sent

 private:
  std::span<const std::byte> seen(const UdpSocket::Received& received) {
    largest_ = std::max(largest_, received.datagram_size);
    return received.bytes;
  }

  std::size_t largest_ = 0, answers_ = 0;
  UdpAddress server_, client_;
  UdpSocket inside_ = UdpSocket::bind({"127.0.0.1", 0}).value();
  std::unique_ptr<UdpSocket> outside_ = std::make_unique<UdpSocket>(UdpSocket::bind({"127.0.0.1", 0}).value());
};

base::Instant shown;  // what the clock of some tests shows

/// Two endpoints with a translator between them, and one clock; a has dialled b.
struct TranslatedPair : Pair {
  base::Instant (*clock)();
  Translator translator;

  TranslatedPair(const QuicEndpoint::Options& a_options, const QuicEndpoint::Options& b_options)
      : clock(a_options.clock), translator(make(a_options, b_options)) {
    const link::Address seen = translator.inside();
    a->dial(b->self(), std::span(&seen, 1));
  }
  UdpAddress make(const QuicEndpoint::Options& a_options, const QuicEndpoint::Options& b_options) {
    a = open(a_options);
    b = open(b_options);
    return UdpAddress::from(b->local_address()).value();
  }
  void turn() {
    translator.pump();
    for (auto* endpoint : {a.get(), b.get()}) endpoint->advance(clock());
    for (link::Event& event : a->take_events()) a_events.push_back(std::move(event));
    for (link::Event& event : b->take_events()) b_events.push_back(std::move(event));
  }
  bool run(const std::function<bool()>& done) {
    for (const base::Instant end = harness.now() + Duration::seconds(5); !done(); turn()) {
      if (harness.now() > end) return false;
    }
    return true;
  }
  bool come_up() {
    return run([&] { return !a_events.empty() && !b_events.empty(); });
  }
};

QuicEndpoint::Options on_loopback(std::uint64_t id) {
  QuicEndpoint::Options options{{"127.0.0.1", 0}, {}, {}};
  options.loopback = id;
  return options;
}

// Claim: two processes of one machine send each other datagrams of many times a road's size. Where the loopback address is a tunnel to
// another machine, or nobody knows, both keep to what every path takes.
TEST(QuicEndpoint, datagrams_are_large_between_processes_of_one_machine_only) {
  struct Row {
    std::uint64_t a, b;
    std::size_t largest;
  };
  for (const Row& row : {Row{7, 7, kHomeDatagramBytes}, Row{7, 8, 1200}, Row{7, 0, 1200}, Row{0, 0, 1200}}) {
    TranslatedPair pair(on_loopback(row.a), on_loopback(row.b));
    ASSERT_TRUE(pair.come_up());
    ASSERT_TRUE(pair.a->send(pair.b->self(), base::make_payload(base::Bytes(50'000)), {link::Priority::forward}).ok());
    ASSERT_TRUE(pair.b->send(pair.a->self(), base::make_payload(base::Bytes(50'000)), {link::Priority::bulk}).ok());
    ASSERT_TRUE(pair.run([&] { return pair.a_events.size() == 2 && pair.b_events.size() == 2; })) << row.a << ' ' << row.b;
    EXPECT_EQ(pair.translator.largest(), row.largest) << row.a << ' ' << row.b;
  }
}

// Claim: between processes of one machine the acknowledgement of a few packets waits for a frame of its side, which carries it, or for the
// end of its patience; that of many packets does not, nor where no frame has gone lately.
TEST(QuicEndpoint, an_acknowledgement_at_home_waits_for_company) {
  shown = base::Instant() + Duration::seconds(100);
  QuicEndpoint::Options options = on_loopback(7);
  options.clock = [] { return shown; };
  TranslatedPair pair(options, options);
  ASSERT_TRUE(pair.come_up());
  const auto pass = [&](std::int64_t ms) {
    for (std::int64_t i = 0; i < ms; ++i, shown = shown + Duration::milliseconds(1)) {
      for (int k = 0; k < 5; ++k) pair.turn();
    }
    return pair.a->stats(pair.b->self())->bytes_queued;
  };
  EXPECT_EQ(pass(100), 0u);
  const auto send = [&](QuicEndpoint& from, const QuicEndpoint& to, std::size_t bytes) {
    ASSERT_TRUE(from.send(to.self(), base::make_payload(base::Bytes(bytes)), {link::Priority::forward}).ok());
  };
  send(*pair.a, *pair.b, 1000);
  EXPECT_GT(pass(4), 0u) << "the greeting was answered in company";
  send(*pair.b, *pair.a, 1000);
  EXPECT_EQ(pass(1), 0u) << "with it";
  send(*pair.a, *pair.b, 1000);
  EXPECT_GT(pass(16), 0u);
  EXPECT_EQ(pass(2), 0u) << "at the end of the patience";
  send(*pair.a, *pair.b, 1000);
  EXPECT_EQ(pass(1), 0u) << "waited in vain the last time";
  send(*pair.b, *pair.a, 1000);
  pass(100);
  const std::size_t before = pair.translator.answers();
  send(*pair.a, *pair.b, 5 * kHomeDatagramBytes);
  pass(1);
  EXPECT_GT(pair.translator.answers(), before) << "many packets";
}

// Claim: a dialler whose address changes keeps its link, and the other end reports the new address.
TEST(QuicEndpoint, a_new_address_of_the_dialler_is_reported) {
  TranslatedPair pair({{"127.0.0.1", 0}, {}, {}}, {{"127.0.0.1", 0}, {}, {}});
  Translator& translator = pair.translator;
  ASSERT_TRUE(pair.come_up());
  EXPECT_EQ(std::get<link::LinkUp>(pair.b_events.at(0)).address, translator.outside());
  translator.take_another_address();
  ASSERT_TRUE(pair.a->send(pair.b->self(), base::make_payload(base::Bytes(100'000)), {link::Priority::forward}).ok());
  const auto changed = [&] {
    for (const link::Event& event : pair.b_events)
      if (const auto* found = std::get_if<link::AddressChanged>(&event)) return found;
    return static_cast<const link::AddressChanged*>(nullptr);
  };
  ASSERT_TRUE(pair.run([&] { return changed() != nullptr && pair.b_events.size() >= 3; }));
  EXPECT_EQ(changed()->address, translator.outside());
  EXPECT_EQ(changed()->peer, pair.a->self());
  EXPECT_EQ(changed()->generation, std::get<link::LinkUp>(pair.b_events[0]).generation);
  EXPECT_EQ(pair.a_events.size(), 1u);
}

// Claim: a round trip is not measured shorter than it was where the thread is held up between being told the time and reading.
TEST(QuicEndpoint, a_thread_that_is_held_up_does_not_shorten_the_road) {
  shown = base::Instant() + Duration::seconds(100);
  const QuicEndpoint::Options options{{"127.0.0.1", 0}, {}, {}, [] { return shown; }};
  Pair pair;
  pair.a = open(options);
  pair.b = open(options);
  pair.dial();
  const auto pass = [](std::int64_t ms) { return shown = shown + Duration::milliseconds(ms); };
  for (int i = 0; i < 20; ++i) {
    if (pair.a->stats(pair.b->self())) {
      ASSERT_TRUE(pair.a->send(pair.b->self(), base::make_payload(base::Bytes(100)), {link::Priority::forward}).ok());
    }
    pair.a->advance(shown);
    pair.b->advance(pass(20));
    const base::Instant told = pass(20);
    pass(20);
    pair.a->advance(told);
  }
  const auto stats = pair.a->stats(pair.b->self());
  ASSERT_TRUE(stats);
  EXPECT_GE(stats->round_trip, Duration::milliseconds(55));
}

// Claim: links work over IPv6 and between an IPv6 socket and an IPv4 one.
TEST(QuicEndpoint, ipv6_and_mixed_links_come_up) {
  if (!UdpSocket::bind({"::1", 0}).ok()) GTEST_SKIP() << "no IPv6 here";
  for (const auto& [dialler, dialled] : {std::pair{"::1", "::1"}, std::pair{"::", "127.0.0.1"}}) {
    Pair pair;
    pair.a = open({{dialler, 0}, {}, {}});
    pair.b = open({{dialled, 0}, {}, {}});
    pair.dial();
    ASSERT_TRUE(pair.run([&] { return !pair.a_events.empty() && !pair.b_events.empty(); }));
    EXPECT_TRUE(std::holds_alternative<link::LinkUp>(pair.a_events[0])) << dialler;
  }
}

// Claim: a port in use is unavailable with a sentence that names the port.
TEST(QuicEndpoint, port_in_use_is_unavailable) {
  const auto first = open({{"127.0.0.1", 0}, {}, {}});
  const auto second = QuicEndpoint::open(link::Identity::generate().value(), {first->local_address(), {}, {}});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, base::ErrorCode::unavailable);
  EXPECT_THAT(second.error().message, testing::HasSubstr(std::to_string(first->local_address().port)));
}

// Claim: a process that comes back under its key and port tells the peers of its former life that their links are gone: with the first
// packet, not after the idle time-out.
TEST(QuicEndpoint, restart_on_the_same_port_is_noticed_at_once) {
  Pair pair;
  QuicEndpoint::Options options;
  options.bind = {"127.0.0.1", 0};
  options.limits.idle_timeout = Duration::seconds(60);
  options.limits.keep_alive = Duration::milliseconds(100);
  const link::Identity identity = link::Identity::generate().value();
  pair.a = open(options);
  pair.b = open(options, identity);
  pair.dial();
  ASSERT_TRUE(pair.run([&] { return !pair.a_events.empty() && !pair.b_events.empty(); }));
  options.bind = pair.b->local_address();
  pair.b.reset();
  pair.b = open(options, identity);
  ASSERT_TRUE(pair.run([&] { return pair.a_events.size() == 2; }));
  EXPECT_EQ(std::get<link::LinkDown>(pair.a_events[1]).reason, link::DownReason::closed_by_peer);
  EXPECT_THAT(std::get<link::LinkDown>(pair.a_events[1]).text, testing::HasSubstr("restarted"));
}

// Claim: time that goes back does not: endpoints driven with instants that jump back and forth keep their own, and come up.
TEST(QuicEndpoint, time_never_goes_back) {
  Pair pair;
  pair.a = open({{"127.0.0.1", 0}, {}, {}});
  pair.b = open({{"127.0.0.1", 0}, {}, {}});
  pair.dial();
  const base::Instant begin = pair.harness.now();
  std::size_t events = 0;
  for (int i = 0; i < 1000 && events < 2; ++i) {
    pair.a->advance(begin + Duration::milliseconds(i + (i % 2) * 300));
    pair.b->advance(begin + Duration::milliseconds(i + (i % 3) * 200));
    events += pair.a->take_events().size() + pair.b->take_events().size();
  }
  EXPECT_EQ(events, 2u);
}

// Claim: while urgent frames to one peer wait, bulk to another peer gets no more than its floor of the uplink.
TEST(QuicEndpoint, urgent_frames_to_one_peer_hold_back_bulk_to_another) {
  QuicHarness harness;
  link::Limits capped;
  capped.uplink_bytes_per_s = 4'000'000;
  link::Party from(harness, link::Identity::generate().value(), capped);
  link::Party urgent(harness, link::Identity::generate().value(), {});
  link::Party bulk(harness, link::Identity::generate().value(), {});
  from.dial(urgent);
  from.dial(bulk);
  link::Endpoint* endpoints[] = {&from.road(), &urgent.road(), &bulk.road()};
  auto run = [&](const std::function<bool()>& done) {
    for (const base::Instant end = harness.now() + Duration::seconds(10); !done();) {
      if (harness.now() > end) return false;
      harness.turn(endpoints);
      for (link::Party* party : {&from, &urgent, &bulk}) party->collect();
    }
    return true;
  };
  ASSERT_TRUE(run([&] { return from.is_up(urgent) && from.is_up(bulk); }));
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(from.send(bulk, base::Bytes(20'000), link::Priority::bulk).ok());
    if (i >= 100) continue;
    ASSERT_TRUE(from.send(urgent, base::Bytes(20'000), link::Priority::forward).ok());
  }
  ASSERT_TRUE(run([&] { return urgent.frame_count() == 100; }));
  EXPECT_LE(bulk.frame_count(), 100 * 2 * 5 / 100) << "twice the floor, for the first and last packets";
  ASSERT_TRUE(run([&] { return bulk.frame_count() == 200; }));
}

}  // namespace
}  // namespace stagecoach::world::real

namespace stagecoach::link {
INSTANTIATE_TEST_SUITE_P(Quic, EndpointContract, testing::Values(world::real::quic()));
}  // namespace stagecoach::link
