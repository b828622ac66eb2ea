// Claim: the plan's language means what lab/README.md says, and what is wrong with a line is told with what was expected.
#include "lab/emulator/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stagecoach::lab {
namespace {

using base::Duration;
using testing::HasSubstr;

template <class T>
T parsed(const std::string& line) {
  const auto command = parse_command(line);
  EXPECT_TRUE(command.ok()) << line << ": " << (command.ok() ? "" : command.error().message);
  return std::get<T>(*command.value());
}

TEST(PlanTest, AHost) {
  const auto host = parsed<HostCommand>("host a netns=/run/netns/x address=10.77.0.1 up=20M down=1.5G up_queue=250k # home");
  EXPECT_EQ(host.name, "a");
  EXPECT_EQ(host.netns, "/run/netns/x");
  EXPECT_EQ(host.address, 0x0a4d0001u);
  EXPECT_EQ(host.up_bits_per_s, 20'000'000u);
  EXPECT_EQ(host.down_bits_per_s, 1'500'000'000u);
  EXPECT_EQ(host.up_queue_bytes, 250'000u);
  EXPECT_FALSE(host.down_queue_bytes);
}

TEST(PlanTest, APairsSettings) {
  const auto pair = parsed<PairCommand>("both a * rate=100M queue=50k delay=25ms jitter=250us keep_order=no loss=0.1% burst_loss=0.01 "
                                        "burst_length=4 reorder=1% reorder_by=3ms duplicate=2% cut=yes");
  EXPECT_TRUE(pair.both);
  EXPECT_EQ(pair.to, "*");
  Road::Settings settings;
  for (const auto& [key, value] : pair.changes) ASSERT_TRUE(change(settings, key, value).ok());
  EXPECT_EQ(settings.rate.bits_per_s, 100'000'000u);
  EXPECT_EQ(settings.rate.queue_bytes, 50'000u);
  EXPECT_EQ(settings.delay, Duration::milliseconds(25));
  EXPECT_EQ(settings.jitter, Duration::microseconds(250));
  EXPECT_FALSE(settings.keep_order);
  EXPECT_DOUBLE_EQ(settings.loss, 0.001);
  EXPECT_DOUBLE_EQ(settings.burst_loss, 0.01);
  EXPECT_DOUBLE_EQ(settings.burst_length, 4);
  EXPECT_DOUBLE_EQ(settings.reorder, 0.01);
  EXPECT_EQ(settings.reorder_by, Duration::milliseconds(3));
  EXPECT_DOUBLE_EQ(settings.duplicate, 0.02);
  EXPECT_TRUE(settings.cut);
}

TEST(PlanTest, CommentsAndEmptyLinesAreNothing) {
  for (const char* line : {"", "   ", "# all of it"}) {
    const auto command = parse_command(line);
    ASSERT_TRUE(command.ok());
    EXPECT_FALSE(command.value());
  }
}

TEST(PlanTest, WhatIsWrongIsTold) {
  const std::pair<const char*, const char*> cases[] = {
      {"hst a", "no command"},
      {"host", "host NAME"},
      {"host a up=fast", "bits a second"},
      {"host a up=20m", "bits a second"},
      {"host a up=200G", "at most 100G"},
      {"host a speed=3", "it has netns"},
      {"host a address=home", "an IPv4 address"},
      {"pair a", "FROM TO"},
      {"pair a b delay", "key=value"},
      {"pair a b delay=25", "25ms"},
      {"pair a b delay=-1ms", "a time"},
      {"pair a b delay=nanms", "a time"},
      {"pair a b loss=100%", "a share"},
      {"pair a b burst_length=0.5", "from 1"},
      {"pair a b burst_loss=90% burst_length=2", "bursts longer"},
      {"pair a b cut=1", "yes or no"},
      {"pair a b slow=1", "it has rate"},
      {"address a", "address NAME"},
      {"stats now", "no command"},
  };
  for (const auto& [line, expected] : cases) {
    const auto command = parse_command(line);
    ASSERT_FALSE(command.ok()) << line;
    EXPECT_THAT(command.error().message, HasSubstr(expected)) << line;
  }
}

TEST(PlanTest, AddressesBothWays) {
  EXPECT_EQ(address_text(parse_address("10.77.3.255").value()), "10.77.3.255");
}

}  // namespace
}  // namespace stagecoach::lab
