#include "observe/event.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <limits>
#include <sstream>

namespace stagecoach::observe {
namespace {

using ::testing::HasSubstr;

std::string fresh_path(const std::string& name) {
  const std::string path = ::testing::TempDir() + "stagecoach_event_" + std::to_string(::getpid()) + name;
  std::remove(path.c_str());
  return path;
}

std::string content(const std::string& path) {
  std::ostringstream out;
  out << std::ifstream(path).rdbuf();
  return out.str();
}

// Claim: bits are those of IEEE 754: 1.0 is 0x3ff0…, −0 differs from 0.
TEST(Event, bits_are_ieee_754) {
  EXPECT_EQ(bits_of(1.0), "3ff0000000000000");
  EXPECT_EQ(bits_of(-0.0), "8000000000000000");
  EXPECT_EQ(bits_of(0.1), "3fb999999999999a");
}

// Claim: the documented line is what is written, and it reads back.
TEST(Event, a_line_is_stable_and_reads_back) {
  const Event event = step_committed(1'790'000'000'000, 12, 1, 2.5, 0.75);
  const std::string line =
      R"({"time_ms":1790000000000,"kind":"step_committed","step":12,"attempt":1,"loss":2.5,"loss_bits":"4004000000000000","global_norm":0.75})";
  EXPECT_EQ(to_line(event), line);
  const auto read = parse_event(line);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read.value(), event);
  EXPECT_EQ(describe(event), "step 12 committed: loss 2.5000");
  const Event lost{1, EventKind::worker_lost, {{"peer", std::string(64, 'a')}, {"stage", std::uint64_t{2}}, {"reason", "idle"}}};
  EXPECT_EQ(describe(lost), "worker aaaaaaaa of stage 2 was lost: idle");
}

// Claim: every kind's name reads back as that kind.
TEST(Event, every_kind_reads_back) {
  for (int i = 0; i <= static_cast<int>(EventKind::run_finished); ++i) {
    const Event event{
        1, static_cast<EventKind>(i), {{"reason", std::string("q\"\n")}, {"flag", true}, {"less", std::int64_t{-3}}}};
    const auto read = parse_event(to_line(event));
    ASSERT_TRUE(read.ok());
    EXPECT_EQ(read.value(), event);
    EXPECT_FALSE(describe(event).empty());
  }
}

// Claim: a loss that is no number is null in the line, and its bits tell which.
TEST(Event, not_a_number_is_null) {
  const std::string line = to_line(step_committed(1, 1, 1, std::numeric_limits<double>::quiet_NaN(), 0));
  EXPECT_THAT(line, HasSubstr("\"loss\":null,\"loss_bits\":\"7ff8"));
  EXPECT_TRUE(parse_event(line).ok());
}

// Claim: whatever the fields hold, the line stays within its bound and reads back.
TEST(Event, long_lines_are_cut) {
  Event event{1, EventKind::view, {}};
  for (std::size_t i = 0; i < 2 * kEventFieldsMax; ++i)
    event.fields.push_back({std::to_string(i) + std::string(5000, '\xff'), std::string(5000, '\x01')});
  const std::string line = to_line(event);
  EXPECT_LE(line.size(), kEventLineBytesMax);
  const auto read = parse_event(line);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->fields.size(), kEventFieldsMax);
}

// Claim: what is no event is refused without a throw.
TEST(Event, bad_lines_are_refused) {
  for (const char* line : {"", "{", "[]", "{}", R"({"time_ms":1})", R"({"time_ms":"1","kind":"view"})",
                           R"({"time_ms":1,"kind":"x"})", R"({"time_ms":1.5,"kind":"view"})"})
    EXPECT_FALSE(parse_event(line).ok()) << line;
  EXPECT_EQ(parse_event(std::string(kEventLineBytesMax + 1, ' ')).error().code, base::ErrorCode::too_large);
}

// Claim: lines reach the file in order, when flushed, when the buffer is full and when the log is closed.
TEST(EventLog, appends_in_order) {
  const std::string path = fresh_path("order");
  {
    auto log = EventLog::open(path, 300);
    ASSERT_TRUE(log.ok());
    for (std::uint64_t step = 1; step <= 20; ++step) ASSERT_TRUE(log->append(evaluated(1, step, 1.0)).ok());
    EXPECT_FALSE(content(path).empty()) << "a full buffer was written";
  }
  const auto read = read_events(path);
  ASSERT_TRUE(read.ok());
  ASSERT_EQ(read->events.size(), 20u);
  for (std::uint64_t step = 1; step <= 20; ++step) EXPECT_EQ(read->events[step - 1], evaluated(1, step, 1.0));
}

// Claim: a line torn by a kill spoils itself only: the next start's lines are whole.
TEST(EventLog, a_torn_line_spoils_only_itself) {
  const std::string path = fresh_path("torn");
  const std::string whole = to_line(evaluated(1, 1, 1.0));
  std::ofstream(path) << whole << "\n" << whole.substr(0, 20);
  {
    auto log = EventLog::open(path);
    ASSERT_TRUE(log.ok());
    ASSERT_TRUE(log->append(evaluated(2, 2, 1.0)).ok());
  }
  const auto read = read_events(path);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->damaged_lines, 1u);
  ASSERT_EQ(read->events.size(), 2u);
  EXPECT_EQ(read->events[1], evaluated(2, 2, 1.0));
}

// Claim: a disk without space is out_of_space, the buffer keeps what was not written, and it goes out once there is
// space.
TEST(EventLog, a_full_disk_loses_nothing_that_was_taken) {
  const std::string path = fresh_path("full");
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_IGN);
  auto log = EventLog::open(path);
  ASSERT_TRUE(log.ok());
  for (std::uint64_t step = 1; step <= 3; ++step) ASSERT_TRUE(log->append(evaluated(1, step, 1.0)).ok());
  rlimit small = before;
  small.rlim_cur = 100;
  setrlimit(RLIMIT_FSIZE, &small);
  const auto failed = log->flush();
  setrlimit(RLIMIT_FSIZE, &before);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().code, base::ErrorCode::out_of_space);
  ASSERT_TRUE(log->flush().ok());
  const auto read = read_events(path);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->events.size(), 3u);
  EXPECT_EQ(read->damaged_lines, 0u);
}

// Claim: a log that is not there is not_found; a folder that is not there cannot be opened.
TEST(EventLog, absent_files_are_errors) {
  EXPECT_EQ(read_events(fresh_path("absent")).error().code, base::ErrorCode::not_found);
  EXPECT_EQ(EventLog::open("/does/not/exist/events.jsonl").error().code, base::ErrorCode::io_error);
}

}  // namespace
}  // namespace stagecoach::observe
