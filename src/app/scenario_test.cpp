// Reading scenarios: what is written is what comes out, and every problem is named at once, with its line.
#include "app/scenario.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace stagecoach::app {
namespace {

using base::Duration;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kFine = R"([scenario]
what = "two towns"
steps = 20
seed = 7
bulk_scale = 0.5

[config.layout]
stages = 2
replicas = 2

[sites]
names = ["left", "right"]
round_trip = [["1ms"], ["40ms", "2ms"]]

[coordinator]
site = "left"
up = "1Gbps"

[[hosts]]
name = "left"
count = 2
site = "left"
up = "100Mbps"
down = "200Mbps"
device = "paced:slow"

[[hosts]]
name = "right"
count = 2
site = "right"
up = "20Mbps"
device = "paced:slow"
slowdown = 1.5

[devices.slow]
forward = ["100ms"]
backward = ["200ms", "0.3s"]

[network]
loss = 0.001
jitter = "500us"

[[paths]]
between = ["left", "right"]
loss = 0.01

[[events]]
at = "2min"
do = "cut"
between = ["left-1", "right-2"]
for = "5s"

[[events]]
at = "1min"
do = "kill"
worker = 3

[churn]
every = "10min"
do = "stop"
for = "20s"
)";

std::string without(std::string text, const std::string& part, const std::string& instead = "") {
  const auto at = text.find(part);
  EXPECT_NE(at, std::string::npos) << part;
  return text.replace(at, part.size(), instead);
}

/// Claim: every value of a scenario comes out as it was written, in its base unit.
TEST(Scenario, SaysWhatIsWritten) {
  const LoadedScenario loaded = parse_scenario(kFine, "fine.toml");
  ASSERT_THAT(loaded.problems, ElementsAre());
  const Scenario& s = loaded.scenario;
  EXPECT_EQ(s.what, "two towns");
  EXPECT_EQ(s.seed, 7u);
  EXPECT_EQ(s.steps, 20);
  EXPECT_EQ(s.settings.train.schedule.steps, 20);
  EXPECT_EQ(s.settings.stages, 2);
  EXPECT_EQ(s.bulk_scale, 0.5);
  EXPECT_EQ(s.round_trips[0][1], Duration::milliseconds(40));
  EXPECT_EQ(s.round_trips[1][0], Duration::milliseconds(40));
  EXPECT_EQ(s.round_trips[1][1], Duration::milliseconds(2));
  ASSERT_EQ(s.workers.size(), 4u);
  EXPECT_EQ(s.workers[0].name, "left-1");
  EXPECT_EQ(s.workers[3].name, "right-2");
  EXPECT_EQ(s.workers[3].site, 1u);
  EXPECT_EQ(s.workers[0].up_bytes_per_s, 12.5e6);
  EXPECT_EQ(s.workers[0].down_bytes_per_s, 25e6);
  EXPECT_EQ(s.workers[2].down_bytes_per_s, 0);
  EXPECT_EQ(s.workers[2].slowdown, 1.5);
  EXPECT_EQ(s.coordinator.up_bytes_per_s, 125e6);
  ASSERT_NE(s.device_of(s.workers[0]), nullptr);
  EXPECT_THAT(s.device_of(s.workers[0])->backward, ElementsAre(Duration::milliseconds(200), Duration::milliseconds(300)));
  EXPECT_EQ(s.jitter, Duration::microseconds(500));
  ASSERT_EQ(s.paths.size(), 1u);
  EXPECT_EQ(s.paths[0].ends.kind, ScenarioEnds::Kind::sites);
  ASSERT_EQ(s.events.size(), 2u);
  EXPECT_EQ(s.events[0].kind, ScenarioEvent::Kind::kill) << "events are in order of time";
  EXPECT_EQ(s.events[0].host, 3u);
  EXPECT_EQ(s.events[1].path.ends.kind, ScenarioEnds::Kind::hosts);
  EXPECT_EQ(s.events[1].path.ends.b, 4u);
  EXPECT_EQ(s.events[1].length, Duration::seconds(5));
  ASSERT_TRUE(s.churn);
  EXPECT_EQ(s.churn->every, Duration::seconds(600));
}

/// Claim: dealt round robin, worker n + 1 is of the next group.
TEST(Scenario, DealsRoundRobin) {
  const LoadedScenario loaded = parse_scenario(without(kFine, "seed = 7", "deal = \"round-robin\""), "deal.toml");
  ASSERT_THAT(loaded.problems, ElementsAre());
  std::vector<std::string> names;
  for (const auto& host : loaded.scenario.workers) names.push_back(host.name);
  EXPECT_THAT(names, ElementsAre("left-1", "right-1", "left-2", "right-2"));
}

/// Claim: a scenario with many faults gets one sentence for each, with the line of each.
TEST(Scenario, NamesEveryProblemAtOnce) {
  const LoadedScenario loaded = parse_scenario(R"([scenario]
duration = "ten minutes"
color = "red"
[config.layout]
stages = 2
replicas = "two"
[sites]
names = ["a", "b"]
round_trip = [["1ms"], ["40 parsecs", "1ms"]]
[[hosts]]
name = "w w"
count = 4
site = "c"
up = "fast"
device = "paced:nothing"
[[events]]
do = "explode"
worker = 99
[weather]
)",
                                               "bad.toml");
  const std::vector<std::string> expected = {
      "bad.toml:1: [scenario] what is needed",
      "bad.toml:2: [scenario] duration is wrong: expected a time such as",
      "bad.toml:3: [scenario] has no key color",
      "bad.toml:6: [config] layout.replicas",
      "bad.toml:9: [sites] round_trip: expected a time",
      "bad.toml:11: [[hosts]] name must be given, of letters",
      "bad.toml:13: [[hosts]] site names no site",
      "bad.toml:14: [[hosts]] up is wrong: expected a rate",
      "bad.toml:15: [[hosts]] device is paced by a table [devices.nothing]",
      "[[events]] at is needed",
      "bad.toml:17: [[events]] do must be one of",
      "bad.toml:18: [[events]] worker must be an integer from 1 to 4",
      "bad.toml:19: there is no table [weather]",
  };
  std::string all;
  for (const std::string& each : loaded.problems) all += each + "\n";
  for (const std::string& each : expected) EXPECT_THAT(all, HasSubstr(each));
}

/// Claim: a number of hosts that is not the number of places is told with both numbers; so is a text that is no TOML, with its line.
TEST(Scenario, HostsMustFillTheLayout) {
  const LoadedScenario few = parse_scenario(without(kFine, "count = 2", "count = 1"), "few.toml");
  ASSERT_FALSE(few.ok());
  EXPECT_THAT(few.problems[0], HasSubstr("make 3 workers, but layout.stages × layout.replicas is 4"));
  const LoadedScenario broken = parse_scenario("[scenario]\nwhat = \n", "broken.toml");
  ASSERT_EQ(broken.problems.size(), 1u);
  EXPECT_THAT(broken.problems[0], HasSubstr("broken.toml:2: not TOML"));
  EXPECT_THAT(load_scenario("/nowhere/at-all.toml").problems.at(0), HasSubstr("/nowhere/at-all.toml"));
}

/// Claim: round trips that contradict each other across the diagonal are refused.
TEST(Scenario, RoundTripsAreSymmetric) {
  const LoadedScenario loaded = parse_scenario(without(kFine, R"([["1ms"], ["40ms", "2ms"]])", R"([["1ms", "50ms"], ["40ms", "2ms"]])"), "both.toml");
  ASSERT_EQ(loaded.problems.size(), 1u);
  EXPECT_THAT(loaded.problems[0], HasSubstr("symmetric"));
}

/// Claim: the scenarios that are shipped have no problems.
TEST(Scenario, ShippedScenariosAreFine) {
  for (const auto& entry : std::filesystem::directory_iterator(STAGECOACH_SCENARIO_DIR)) {
    if (entry.path().extension() != ".toml") continue;
    EXPECT_THAT(load_scenario(entry.path().string()).problems, ElementsAre()) << entry.path();
  }
}

}  // namespace
}  // namespace stagecoach::app
