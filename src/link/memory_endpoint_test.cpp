#include "link/memory_endpoint.h"

#include "link/contract.h"

namespace stagecoach::link {
namespace {

/// Virtual time: each turn jumps to the earliest deadline.
class MemoryHarness : public RoadHarness {
 public:
  explicit MemoryHarness(MemoryRoad::Options options) : road_(options) {}
  std::unique_ptr<Endpoint> make(const Identity& identity, const Limits& limits) override {
    return road_.make_endpoint(identity.peer_id(), limits);
  }
  Address nowhere() override { return {"memory", 0}; }
  base::Instant now() override { return now_; }
  void turn(std::span<Endpoint* const> endpoints) override {
    base::Instant next = now_ + base::Duration::milliseconds(50);
    for (Endpoint* endpoint : endpoints) next = std::min(next, endpoint->next_deadline());
    now_ = std::max(now_, next);
    for (Endpoint* endpoint : endpoints) endpoint->advance(now_);
  }

 private:
  MemoryRoad road_;
  base::Instant now_ = base::Instant::from_ns(1'000'000'000);
};

RoadHarnessMaker memory(bool reorder, base::Duration delay) {
  return [=] {
    MemoryRoad::Options options;
    options.reorder = reorder;
    options.delay = delay;
    return std::make_unique<MemoryHarness>(options);
  };
}

constexpr const char* kRoadNames[] = {"plain", "delayed", "reordered"};
INSTANTIATE_TEST_SUITE_P(Memory, EndpointContract,
                         testing::Values(memory(false, base::Duration()), memory(false, base::Duration::milliseconds(5)),
                                         memory(true, base::Duration::milliseconds(5))),
                         [](const auto& info) { return std::string(kRoadNames[info.index]); });

// Claim: the reordering option does reorder, and one seed gives one order.
TEST(MemoryRoad, reordering_is_seeded) {
  auto order = [](std::uint64_t seed) {
    MemoryRoad::Options options;
    options.seed = seed;
    options.reorder = true;
    MemoryRoad road(options);
    base::PeerId one, two;
    one.bytes[0] = 1;
    two.bytes[0] = 2;
    auto a = road.make_endpoint(one, Limits());
    auto b = road.make_endpoint(two, Limits());
    const Address address = b->local_address();
    a->dial(two, std::span(&address, 1));
    const base::Instant now = base::Instant::from_ns(1);
    for (int i = 0; i < 3; ++i) {
      a->advance(now);
      b->advance(now);
    }
    for (int i = 0; i < 20; ++i) {
      EXPECT_TRUE(a->send(two, base::make_payload(base::Bytes(1, static_cast<std::byte>(i))), {Priority::forward}).ok());
    }
    a->advance(now);
    b->advance(now);
    std::vector<int> arrived;
    for (const Event& event : b->take_events()) {
      if (const auto* frame = std::get_if<FrameArrived>(&event)) arrived.push_back(static_cast<int>((*frame->frame)[0]));
    }
    return arrived;
  };
  EXPECT_EQ(order(1).size(), 20u);
  EXPECT_FALSE(std::is_sorted(order(1).begin(), order(1).end()) && std::is_sorted(order(2).begin(), order(2).end()));
  EXPECT_EQ(order(1), order(1));
  EXPECT_NE(order(1), order(2));
}

}  // namespace
}  // namespace stagecoach::link
