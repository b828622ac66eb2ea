#include "world/real/coordinator_node.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "data/shards.h"
#include "data/test_directory.h"
#include "data/tokenizer.h"
#include "digest/digest.h"
#include "wire/codec.h"

namespace stagecoach::world::real {
namespace {

using ::testing::HasSubstr;
using base::Duration;

/// A coordinator on loopback that waits for workers, and a stranger with a link to it.
class CoordinatorNodeTest : public data::DirectoryTest {
 protected:
  void SetUp() override {
    data::DirectoryTest::SetUp();
    std::string text;
    for (int i = 0; i < 20'000; ++i) text += static_cast<char>('a' + i % 26);
    auto built = data::build_shards(directory_ / "shards", text, *data::make_byte_tokenizer());
    ASSERT_TRUE(built.ok()) << built.error().message;
    CoordinatorNode::Options options;
    std::string why;
    options.fleet.split = model::balanced_split(options.fleet.config.model, 1, why);
    options.fleet.config_text = model::canonical_text(options.fleet.config);
    static_cast<base::Bytes32&>(options.fleet.config_id) = digest::sha256(options.fleet.config_text);
    options.store = {directory_, built->directory, false, 3};
    options.bind = {"127.0.0.1", 0};
    auto identity = link::Identity::generate();
    auto log = Log::open((directory_ / "log").string(), false);
    ASSERT_TRUE(identity.ok() && log.ok());
    coordinator_ = identity->peer_id();
    auto node = CoordinatorNode::make(*identity, std::move(options), *log);
    ASSERT_TRUE(node.ok()) << node.error().message;
    node_ = std::move(*node);
    thread_ = std::thread([this] { node_->run(); });

    auto stranger = link::Identity::generate();
    ASSERT_TRUE(stranger.ok());
    auto endpoint = QuicEndpoint::open(*stranger, {{"127.0.0.1", 0}, {}, {}});
    ASSERT_TRUE(endpoint.ok()) << endpoint.error().message;
    stranger_ = std::move(*endpoint);
    const link::Address address = node_->address();
    stranger_->dial(coordinator_, {&address, 1});
  }
  void TearDown() override {
    if (thread_.joinable()) {
      node_->request_stop();
      thread_.join();
    }
    data::DirectoryTest::TearDown();
  }

  void ask(const wire::Message& message) {
    const auto sent = stranger_->send(coordinator_, base::make_payload(wire::encode(message)), {wire::priority_of(message), base::Instant::never()});
    ASSERT_TRUE(sent.ok()) << sent.error().message;
  }
  /// Drives the stranger until its link is down; gives each event to `on_event` first.
  link::LinkDown until_down(const std::function<void(const link::Event&)>& on_event) {
    std::optional<link::LinkDown> down;
    Wakeup wakeup;
    Loop loop(*stranger_, stranger_->fd(), wakeup,
              {[&](link::Event& event) {
                 on_event(event);
                 if (const auto* is_down = std::get_if<link::LinkDown>(&event)) down = *is_down;
               },
               [] {}, [] {}, [] { return base::Instant::never(); }, [&] { return down.has_value(); }});
    loop.run();
    return *down;
  }

  base::PeerId coordinator_;
  std::unique_ptr<CoordinatorNode> node_;
  std::thread thread_;
  std::unique_ptr<QuicEndpoint> stranger_;
};

// Claim: whoever asks for the status a thousand times at once is answered once in a quarter of a second, and a stranger that asks for
// files loses its link.
TEST_F(CoordinatorNodeTest, many_questions_get_few_answers) {
  std::uint64_t answers = 0;
  base::Instant began;
  const link::LinkDown down = until_down([&](const link::Event& event) {
    if (std::holds_alternative<link::LinkUp>(event)) {
      began = monotonic_now();
      for (int i = 0; i < 1000; ++i) ask(wire::StatusRequest{});
    } else if (const auto* arrived = std::get_if<link::FrameArrived>(&event)) {
      const auto message = wire::decode(*arrived->frame);
      ASSERT_TRUE(message.ok() && std::holds_alternative<wire::StatusReply>(*message));
      if (++answers == 1) ask(wire::ObjectRequest{});  // read after all questions: control frames keep their order
    }
  });
  EXPECT_EQ(down.reason, link::DownReason::closed_by_peer) << down.text;
  EXPECT_THAT(down.text, HasSubstr("files are for workers"));
  const auto quarters = static_cast<std::uint64_t>((monotonic_now() - began).ns() / Duration::milliseconds(250).ns());
  EXPECT_GE(answers, 1u);
  EXPECT_LE(answers, quarters + 1);
}

// Claim: when the run ends, whoever has a link hears so at once, with the reason.
TEST_F(CoordinatorNodeTest, the_end_is_told) {
  const link::LinkDown down = until_down([&](const link::Event& event) {
    if (std::holds_alternative<link::LinkUp>(event)) node_->request_stop();
  });
  EXPECT_EQ(down.reason, link::DownReason::closed_by_peer) << down.text;
  EXPECT_THAT(down.text, HasSubstr("the run ended: "));
  thread_.join();
  EXPECT_THAT(down.text, HasSubstr(node_->last_words().substr(0, 20)));
}

}  // namespace
}  // namespace stagecoach::world::real
