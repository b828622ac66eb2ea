#include "app/view_thread.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace stagecoach::app {
namespace {

class ViewThreadTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(::pipe2(ends_, O_CLOEXEC), 0); }
  void TearDown() override {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  /// Reads until the line `last` has come. Waits for the writer, as a pager that goes on does.
  std::vector<std::string> lines_until(const std::string& last) {
    std::vector<std::string> lines;
    std::string line;
    for (char c = 0; ::read(ends_[0], &c, 1) == 1;) {
      if (c != '\n') {
        line += c;
        continue;
      }
      lines.push_back(std::exchange(line, ""));
      if (lines.back() == last) break;
    }
    return lines;
  }
  int ends_[2] = {-1, -1};
};

// Claim: lines come out all and in order where somebody reads, and close() waits for them.
TEST_F(ViewThreadTest, lines_keep_their_order) {
  std::vector<std::string> said;
  {
    ViewThread view({.descriptor = ends_[1]});
    for (int i = 0; i < 100; ++i) view.say(said.emplace_back("line " + std::to_string(i)));
    view.close(base::Duration::seconds(60));
  }
  EXPECT_EQ(lines_until("line 99"), said);
}

// Claim: a reader that stops holds up nobody: say() and close() return, what waits is bounded, and once the reader goes on it gets the
// newest lines in order and the number of those it missed.
TEST_F(ViewThreadTest, a_reader_that_stops_holds_up_nobody) {
  constexpr std::size_t kSaid = 20'000;
  const std::string padding(100, '.');  // the pipe holds 64 KiB: some hundred lines
  {
    ViewThread view({.descriptor = ends_[1]});
    for (std::size_t i = 0; i < kSaid; ++i) view.say(padding + std::to_string(i));
    view.close(base::Duration());
  }
  const auto lines = lines_until(padding + std::to_string(kSaid - 1));
  std::size_t shown = 0, missed = 0, next = 0;
  for (const auto& line : lines) {
    if (line.starts_with("…")) {
      const std::size_t dropped = std::stoul(line.substr(std::string("… ").size()));
      missed += dropped, next += dropped;
      continue;
    }
    ASSERT_EQ(line, padding + std::to_string(next));
    ++next, ++shown;
  }
  EXPECT_EQ(shown + missed, kSaid);
  EXPECT_GE(shown, ViewThread::kLinesMax);
  EXPECT_GT(missed, 0u);
}

}  // namespace
}  // namespace stagecoach::app
