// Claims: a worker's trace reads back without the line that its end tore; a tensor's way is told from its maker's end to its arrival.
#include "app/account.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace stagecoach::app {
namespace {

namespace trace = observe::trace;
using base::Attempt;
using base::Instant;
using base::MicrobatchIndex;
using base::StageIndex;
using base::Step;

TEST(Account, ATornLastLineIsLeftOut) {
  const auto path = std::filesystem::temp_directory_path() / ("trace-" + std::to_string(::getpid()));
  std::ofstream(path) << R"({"worker":"abcd"})" << "\n"
                      << R"({"at_ns":5,"event":"opened","stage":1,"step":1,"attempt":1,"after_view":true})" << "\n"
                      << R"({"at_ns":6,"event":"arr)";
  const auto read = read_trace(path.string());
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read->peer, "abcd");
  EXPECT_EQ(read->told.size(), 1u);
  std::ofstream(path) << R"({"worker":"abcd"})" << "\n" << "nonsense\n";
  const auto damaged = read_trace(path.string());
  ASSERT_FALSE(damaged.ok());
  EXPECT_NE(damaged.error().message.find(":2"), std::string::npos);
  std::filesystem::remove(path);
  EXPECT_FALSE(read_trace(path.string()).ok());
}

TEST(Account, ATensorsWayBeginsWhereItIsMade) {
  const Step step(1);
  const Attempt attempt(1);
  const MicrobatchIndex m(4);
  const auto at = [](std::int64_t ms) { return Instant::from_ns(ms * 1'000'000); };
  const std::vector<Told> told = {{at(0), 1, trace::Opened{StageIndex(0), step, attempt, true}},
                                  {at(0), 2, trace::Opened{StageIndex(1), step, attempt, true}},
                                  {at(10), 1, trace::Worked{trace::Kind::forward, step, attempt, m, at(1)}},
                                  {at(17), 2, trace::Arrived{trace::Kind::forward, step, attempt, m}},
                                  {at(30), 2, trace::Worked{trace::Kind::backward, step, attempt, m, at(20)}},
                                  {at(33), 1, trace::Arrived{trace::Kind::backward, step, attempt, m}},
                                  {at(40), 1, trace::Arrived{trace::Kind::backward, step, Attempt(2), m}}};
  const Journeys ways = journeys_of(told);
  ASSERT_EQ(ways.forward.count(), 1u);
  ASSERT_EQ(ways.backward.count(), 1u);
  EXPECT_NEAR(ways.forward.quantile(0.5).seconds_f64(), 0.007, 0.001);
  EXPECT_NEAR(ways.backward.quantile(0.5).seconds_f64(), 0.003, 0.0005);
}

}  // namespace
}  // namespace stagecoach::app
