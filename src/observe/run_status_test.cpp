#include "observe/run_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/prng.h"

namespace stagecoach::observe {
namespace {

using ::testing::HasSubstr;

RunStatus example() {
  RunStatus s;
  s.run_id = "5f3a90c2d1e84b67";
  s.config_id = "c0ffee0123456789";
  s.name = "2026-11-22-152603";
  s.phase = Phase::recovering;
  s.reason = "attempt 3: worker ab12cd34 was lost";
  s.term = 2, s.attempt = 3, s.step = 41, s.steps = 600;
  s.train_loss = 2.25;
  s.train_loss_smoothed = 2.3;
  s.validation_loss = LossPoint{0, 5.545};
  s.train_history = {{1, 5.5}, {2, 5.25}};
  s.validation_history = {{0, 5.545}};
  s.tokens = 83968, s.tokens_per_s = 1234.5, s.elapsed_s = 12.5, s.started_unix_ms = 1'790'000'000'000;
  s.eta_s = 77;
  MemberStatus member;
  member.peer = "ab12cd34", member.incarnation = 7, member.address = "127.0.0.1:4433",
  member.state = MemberState::working;
  member.reason = "computes";
  member.weight_version = 41, member.busy_fraction = 0.75, member.queue_length = 2;
  member.microbatches = {1, 2, 3, 4, 328};
  member.bytes_in_per_s = 1e6, member.bytes_out_per_s = 2e6, member.round_trip_ms = 0.5;
  s.stages = {{1, 0, 1, {member}}, {4, 1, 2, {}}};
  s.waits = {{"stage 1", "a worker", 3.5, "no member is left"}};
  s.events = {"worker ab12cd34 joined"};
  s.checkpoint = CheckpointStatus{0, "runs/kjv/checkpoints/step-00000000"};
  return s;
}

/// The status of docs/formats/status.md.
RunStatus documented() {
  RunStatus s;
  s.run_id = "5f3a90c2d1e84b67";
  s.config_id = "c0ffee0123456789";
  s.name = "2026-11-22-152603";
  s.phase = Phase::training;
  s.term = 1, s.attempt = 2, s.step = 41, s.steps = 600;
  s.train_loss = 2.25, s.train_loss_smoothed = 2.5;
  s.validation_loss = LossPoint{0, 5.5};
  s.train_history = {{1, 5.5}, {41, 2.25}};
  s.validation_history = {{0, 5.5}};
  s.tokens = 83968, s.tokens_per_s = 4096, s.eta_s = 279.5, s.elapsed_s = 20.5, s.started_unix_ms = 1'790'000'000'000;
  MemberStatus member;
  member.peer = "ab12cd34", member.incarnation = 7, member.address = "127.0.0.1:41234",
  member.state = MemberState::working;
  member.reason = "3 microbatches wait for compute";
  member.weight_version = 41, member.busy_fraction = 0.75, member.queue_length = 3,
  member.microbatches = {0, 3, 2, 1, 328};
  member.bytes_in_per_s = 131'072, member.bytes_out_per_s = 131'072, member.round_trip_ms = 0.5;
  s.stages = {{2, 0, 4, {member}}};
  s.waits = {{"stage 0", "gradient of microbatch 5", 0.5, "stage 1 computes it"}};
  s.events = {"worker 99ff00aa of stage 0 was lost: idle for 10 s"};
  s.checkpoint = CheckpointStatus{0, "runs/2026-11-22-152603/checkpoints/step-00000000"};
  return s;
}

// Claim: the worked example of the format page is what the documented status is written as, and reads back as it.
TEST(RunStatus, the_format_page_is_true) {
  std::ostringstream page;
  page << std::ifstream(std::filesystem::path(__FILE__).parent_path() / "../../docs/formats/status.md").rdbuf();
  const std::string text = page.str();
  const std::string fence = "```json\n";
  const auto begin = text.find(fence);
  ASSERT_NE(begin, std::string::npos);
  const std::string example_text =
      text.substr(begin + fence.size(), text.find("```", begin + fence.size()) - begin - fence.size());
  EXPECT_EQ(nlohmann::json::parse(example_text).dump(), to_json(documented()));
  const auto read = status_from_json(example_text);
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read.value(), documented());
}

// Claim: what is written reads back equal, for a full status and an empty one.
TEST(RunStatus, reads_back_what_it_wrote) {
  for (const RunStatus& status : {example(), RunStatus{}}) {
    const auto read = status_from_json(to_json(status));
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_EQ(read.value(), status);
  }
}

// Claim: a status that breaks every bound, with numbers that are none and bytes that are no text, still writes
// something that reads back, with the newest of each list.
TEST(RunStatus, whatever_is_written_reads_back) {
  RunStatus s = example();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  s.train_loss = nan, s.tokens_per_s = -1, s.eta_s = std::numeric_limits<double>::infinity(), s.elapsed_s = nan;
  s.validation_loss = LossPoint{3, nan};
  s.train_history.assign(2 * kHistoryMax, {1, 2.0});
  s.train_history.back() = {9, 1.5};
  s.train_history.push_back({10, nan});
  s.reason = std::string(5000, '\xff');
  s.name = std::string("a\x1b[31m") + std::string(5000, 'x');
  s.stages.assign(kStagesMax + 5, s.stages[0]);
  s.stages[0].members.assign(kMembersMax + 1, s.stages[0].members[0]);
  s.stages[0].members[0].busy_fraction = 7;
  s.stages[0].members[0].round_trip_ms = nan;
  s.waits.assign(kWaitsMax + 9, s.waits[0]);
  s.events.assign(kEventsMax + 1, "old");
  s.events.back() = "new";
  const auto read = status_from_json(to_json(s));
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_FALSE(read->train_loss.has_value());
  EXPECT_FALSE(read->validation_loss.has_value());
  EXPECT_EQ(read->train_history.size(), kHistoryMax);
  EXPECT_EQ(read->train_history.back(), (LossPoint{9, 1.5}));
  EXPECT_EQ(read->stages.size(), kStagesMax);
  EXPECT_EQ(read->stages[0].members.size(), kMembersMax);
  EXPECT_EQ(read->stages[0].members[0].busy_fraction, 1);
  EXPECT_EQ(read->events.back(), "new");
  EXPECT_LE(read->reason.size(), kTextBytesMax);
}

// Claim: each missing field, and each field of a wrong type, is refused with its name; nothing throws.
TEST(RunStatus, missing_or_wrong_fields_are_named) {
  const auto good = nlohmann::json::parse(to_json(example()));
  for (const auto& [name, value] : good.items()) {
    auto bad = good;
    bad.erase(name);
    auto read = status_from_json(bad.dump());
    ASSERT_FALSE(read.ok()) << name;
    EXPECT_THAT(read.error().message, HasSubstr(name));
    bad[name] = nlohmann::json::array({nlohmann::json::object({{"x", -1}}), true});
    EXPECT_FALSE(status_from_json(bad.dump()).ok()) << name;
  }
  for (const auto& [name, value] : good["stages"][0]["members"][0].items()) {
    auto bad = good;
    bad["stages"][0]["members"][0].erase(name);
    const auto read = status_from_json(bad.dump());
    ASSERT_FALSE(read.ok()) << name;
    EXPECT_THAT(read.error().message, HasSubstr("stages[0].members[0]." + name));
  }
  auto extra = good;
  extra["of a later version"] = 1;
  EXPECT_TRUE(status_from_json(extra.dump()).ok());
}

// Claim: bounds are enforced on reading: too long a list, text or document, a fraction above 1, a negative count.
TEST(RunStatus, bounds_are_enforced) {
  const auto good = nlohmann::json::parse(to_json(example()));
  auto bad = good;
  bad["events"] = std::vector<std::string>(kEventsMax + 1, "x");
  EXPECT_EQ(status_from_json(bad.dump()).error().code, base::ErrorCode::too_large);
  bad = good, bad["name"] = std::string(kTextBytesMax + 1, 'x');
  EXPECT_EQ(status_from_json(bad.dump()).error().code, base::ErrorCode::too_large);
  bad = good, bad["stages"][0]["members"][0]["busy_fraction"] = 1.5;
  EXPECT_EQ(status_from_json(bad.dump()).error().code, base::ErrorCode::corrupt);
  bad = good, bad["step"] = -1;
  EXPECT_FALSE(status_from_json(bad.dump()).ok());
  bad = good, bad["step"] = 1e300;
  EXPECT_FALSE(status_from_json(bad.dump()).ok());
  bad = good, bad["format"] = 2;
  EXPECT_FALSE(status_from_json(bad.dump()).ok());
  EXPECT_EQ(status_from_json(std::string(kStatusTextBytesMax + 1, ' ')).error().code, base::ErrorCode::too_large);
  EXPECT_FALSE(status_from_json("").ok());
  EXPECT_FALSE(status_from_json(std::string(1 << 20, '[')).ok());
}

// Claim: no damage to the text crashes or throws: cut anywhere, or with random bytes overwritten.
TEST(RunStatus, damaged_text_is_an_error_or_a_status) {
  const std::string good = to_json(example());
  for (std::size_t size = 0; size < good.size(); ++size) EXPECT_FALSE(status_from_json(good.substr(0, size)).ok());
  base::Prng prng(3);
  std::size_t refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bad = good;
    for (std::uint64_t i = 0, n = 1 + prng.below(4); i < n; ++i)
      bad[prng.below(bad.size())] = static_cast<char>(prng.next());
    refused += status_from_json(bad).ok() ? 0 : 1;
  }
  EXPECT_GT(refused, 1000u);
}

// Claim: a curve of any length stays within its bound, keeps its first and its newest point, and its steps ascend.
TEST(RunStatus, long_curves_get_coarser) {
  std::vector<LossPoint> history;
  for (std::uint64_t step = 1; step <= 5000; ++step) {
    add_point(history, {step, 1.0 / static_cast<double>(step)});
    ASSERT_LE(history.size(), kHistoryMax);
    ASSERT_EQ(history.front().step, 1u);
    ASSERT_EQ(history.back().step, step);
  }
  for (std::size_t i = 1; i < history.size(); ++i) EXPECT_LT(history[i - 1].step, history[i].step);
}

// Claim: the newest events stay.
TEST(RunStatus, events_are_bounded) {
  RunStatus status;
  for (int i = 0; i < 1000; ++i) add_event(status, std::to_string(i));
  EXPECT_EQ(status.events.size(), kEventsMax);
  EXPECT_EQ(status.events.back(), "999");
}

}  // namespace
}  // namespace stagecoach::observe
