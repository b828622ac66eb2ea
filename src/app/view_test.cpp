#include "app/view.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <limits>

#include "base/prng.h"

namespace stagecoach::app {
namespace {

using observe::MemberState;
using observe::MemberStatus;
using observe::Phase;
using observe::RunStatus;
using observe::StageStatus;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

RunStatus laptop() {
  RunStatus s;
  s.name = "kjv";
  s.phase = Phase::training;
  s.attempt = 2, s.step = 150, s.steps = 600;
  s.train_loss = 2.3456, s.train_loss_smoothed = 2.4;
  s.validation_loss = observe::LossPoint{100, 2.5};
  for (std::uint64_t step = 1; step <= 150; ++step)
    observe::add_point(s.train_history, {step, 5.5 - 0.02 * static_cast<double>(step)});
  s.validation_history = {{0, 5.545}, {100, 2.5}};
  s.tokens = 307'200, s.tokens_per_s = 3456, s.elapsed_s = 89, s.eta_s = 267;
  for (std::uint64_t i = 0; i < 4; ++i) {
    StageStatus stage{1, i, i + 1, {}};
    for (int r = 0; r < 2; ++r) {
      MemberStatus member;
      member.peer = fmt::format("ab12cd{}{}", i, r);
      member.state = MemberState::working;
      member.busy_fraction = 0.5 + 0.4 * r;
      member.queue_length = 1;
      member.bytes_in_per_s = 100'000, member.bytes_out_per_s = 1'000'000;
      stage.members.push_back(member);
    }
    s.stages.push_back(stage);
  }
  s.events = {"worker ab12cd00 joined stage 0", "checkpoint of step 100 written"};
  s.checkpoint = observe::CheckpointStatus{100, "runs/kjv/checkpoints/step-00000100"};
  return s;
}

ViewOptions size(std::size_t columns, std::size_t rows) { return {.columns = columns, .rows = rows}; }

// Claim: the screen holds what the design lists: progress with time left, both losses with curves, tokens/s, and per
// stage layers, busy, queue, traffic and names; then events.
TEST(View, shows_all_that_a_user_watches) {
  const std::string text = render_text(laptop(), size(100, 30));
  EXPECT_THAT(text, AllOf(HasSubstr("kjv  training"), HasSubstr("25 %  step 150 of 600  4 min 27 s left"),
                          HasSubstr("3.46k tokens/s"), HasSubstr("307k tokens")));
  EXPECT_THAT(text, AllOf(HasSubstr("train        2.4000 █"), HasSubstr("validation   2.5000 █▁"),
                          HasSubstr("checkpoint of step 100")));
  EXPECT_THAT(text, AllOf(HasSubstr("70 %      2    200 kB/s   2.00 MB/s  ab12cd30 ab12cd31"),
                          HasSubstr("— worker ab12cd00 joined")));
}

// Claim: whatever the size, no line is wider than the terminal and there are not more lines than rows; the title is
// always there.
TEST(View, fits_every_size) {
  RunStatus status = laptop();
  status.stages.resize(40, status.stages[0]);
  status.waits.assign(20, {"stage 3", "a gradient", 12.5, "its sender was lost"});
  status.reason = std::string(300, 'r');
  for (const bool colour : {false, true})
    for (const bool unicode : {false, true})
      for (std::size_t columns = 20; columns <= 200; columns += 7)
        for (std::size_t rows = 3; rows <= 60; ++rows) {
          const auto lines = render_lines(status, {columns, rows, colour, unicode});
          ASSERT_LE(lines.size(), rows);
          ASSERT_THAT(lines.front(), HasSubstr("stagecoach"));
          for (const std::string& line : lines) ASSERT_LE(width_of(line), columns) << line;
        }
}

// Claim: at 60 columns each stage still shows busy, queue, traffic and its first member.
TEST(View, sixty_columns_show_every_stage) {
  const auto lines = render_lines(laptop(), size(60, 24));
  EXPECT_EQ(std::count_if(lines.begin(), lines.end(),
                          [](const std::string& l) { return l.find("70 %      2   200 kB/s  2.00 MB/s") != l.npos; }),
            4)
      << ::testing::PrintToString(lines);
  EXPECT_THAT(lines, Contains(HasSubstr("ab12cd00")));
}

// Claim: with too few rows the stages that are not shown are counted.
TEST(View, hidden_stages_are_counted) {
  RunStatus status = laptop();
  status.stages.resize(40, status.stages[0]);
  EXPECT_THAT(render_lines(status, size(80, 12)), Contains(HasSubstr("more stages")));
}

// Claim: a member that is lost is named as such and not counted into busy; a stage without members says so.
TEST(View, lost_members_are_named) {
  RunStatus status = laptop();
  status.stages[0].members[1].state = MemberState::lost;
  status.stages[1].members.clear();
  const std::string text = render_text(status, size(100, 0));
  EXPECT_THAT(text,
              AllOf(HasSubstr("50 %      1    100 kB/s   1.00 MB/s  ab12cd00 ab12cd01(lost)"), HasSubstr("nobody")));
}

// Claim: an empty status, and numbers that are none, draw without a crash; nothing says "nan" or "inf".
TEST(View, empty_and_odd_numbers_draw) {
  RunStatus status = laptop();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  status.tokens_per_s = nan, status.eta_s = std::numeric_limits<double>::infinity(), status.elapsed_s = -1;
  status.stages[0].members[0].bytes_in_per_s = nan;
  status.train_history[3].nats_per_token = nan;
  status.step = 700;
  for (const RunStatus& s : {status, RunStatus{}})
    EXPECT_THAT(render_text(s, size(80, 24)), AllOf(Not(HasSubstr("nan")), Not(HasSubstr("inf"))));
}

// Claim: text from peers cannot move the cursor, colour the screen, break the line or turn the reading direction.
TEST(View, hostile_text_is_defused) {
  RunStatus status = laptop();
  const std::string evil =
      "x\x1b[2J\x1b]0;t\x07\r\n\t\x9b"
      "1m\xe2\x80\xae\xff";
  status.name = status.reason = status.stages[0].members[0].peer = evil;
  status.events = {evil};
  status.waits = {{evil, evil, 1, evil}};
  const std::string text = render_text(status, size(100, 40));
  for (const char c : text) EXPECT_FALSE((static_cast<unsigned char>(c) < 0x20 && c != '\n') || c == 0x7f);
  EXPECT_THAT(text, Not(HasSubstr("\xe2\x80\xae")));
  PlainView plain(1);
  for (const std::string& line : plain.lines(status)) EXPECT_EQ(line.find_first_of("\x1b\r\n\x07"), std::string::npos);
  base::Prng prng(5);
  for (int round = 0; round < 200; ++round) {
    for (char& c : status.reason) c = static_cast<char>(prng.next());
    const std::string title = render_lines(status, size(100, 40)).front();
    EXPECT_EQ(std::count_if(title.begin(), title.end(), [](unsigned char c) { return c < 0x20; }), 0);
  }
}

// Claim: waits are shown with the reason.
TEST(View, waits_show_their_reason) {
  RunStatus status = laptop();
  status.waits = {{"stage 2", "gradient of microbatch 7", 4.2, "stage 3 computes it"}};
  EXPECT_THAT(render_text(status, size(100, 30)),
              HasSubstr("waits  stage 2 for gradient of microbatch 7, 4.2 s: stage 3 computes it"));
}

// Claim: numbers are shown with three digits that count, and times in two units.
TEST(View, numbers_for_people) {
  EXPECT_EQ(bytes_per_s_text(0), "0 B/s");
  EXPECT_EQ(bytes_per_s_text(999.4), "999 B/s");
  EXPECT_EQ(bytes_per_s_text(999.6), "1.00 kB/s");
  EXPECT_EQ(bytes_per_s_text(12'345), "12.3 kB/s");
  EXPECT_EQ(bytes_per_s_text(99'960), "100 kB/s");
  EXPECT_EQ(bytes_text(2048), "2.05 kB");
  EXPECT_EQ(count_text(1'234'567), "1.23M");
  EXPECT_EQ(duration_text(9.94), "9.9 s");
  EXPECT_EQ(duration_text(59.4), "59 s");
  EXPECT_EQ(duration_text(59.6), "1 min 00 s");
  EXPECT_EQ(duration_text(3'599.4), "59 min 59 s");
  EXPECT_EQ(duration_text(7'500), "2 h 05 min");
  EXPECT_EQ(duration_text(356'400), "4 d 03 h");
}

// Claim: clipping counts columns, not bytes: umlauts one, Chinese two, colours none.
TEST(View, widths_are_columns) {
  EXPECT_EQ(width_of("ü\x1b[31m中"), 3u);
  EXPECT_EQ(clipped("übermut", 4, size(80, 24)), "übe…");
  EXPECT_EQ(clipped("中中中", 4, size(80, 24)), "中…");
  EXPECT_EQ(clipped("\x1b[31mred and long\x1b[0m", 4, size(80, 24)), "\x1b[31mred…\x1b[0m");
  EXPECT_EQ(printable("ok \xc3\xbc \xc3 \x01"), "ok ü ? ?");
}

// Claim: bars and curves have the width asked for and their ends are empty, full, lowest and highest.
TEST(View, bars_and_curves) {
  EXPECT_EQ(bar(0, 3, size(80, 24)), "░░░");
  EXPECT_EQ(bar(0.5, 3, size(80, 24)), "█▌░");
  EXPECT_EQ(bar(7, 3, size(80, 24)), "███");
  EXPECT_EQ(bar(0.5, 4, {.unicode = false}), "##..");
  EXPECT_EQ(sparkline({{1, 3.0}, {2, 1.0}, {3, 2.0}}, 10, size(80, 24)), "█▁▅");
  EXPECT_EQ(sparkline({{1, 4.0}, {2, 2.0}, {3, 1.0}, {4, 1.0}}, 2, size(80, 24)), "█▁");
  EXPECT_EQ(sparkline({}, 10, size(80, 24)), "");
}

// Claim: plain output has one line per phase change, per new event, per N steps and per evaluation, and none twice.
TEST(PlainView, prints_what_is_new_once) {
  PlainView view(10);
  RunStatus s;
  s.steps = 30;
  s.phase = Phase::gathering, s.reason = "5 of 8 workers have joined";
  EXPECT_THAT(view.lines(s), ElementsAre("gathering: 5 of 8 workers have joined"));
  EXPECT_THAT(view.lines(s), IsEmpty());
  s.phase = Phase::training, s.reason = "";
  s.events = {"a", "b"};
  EXPECT_THAT(view.lines(s), ElementsAre("a", "b", "training"));
  s.events = {"b", "c", "c"};
  EXPECT_THAT(view.lines(s), ElementsAre("c", "c"));
  s.reason = "step 1";  // a step's number comes with the steps below, not as a change of phase
  EXPECT_THAT(view.lines(s), IsEmpty());
  s.step = 9, s.train_loss = 2.5, s.tokens_per_s = 2000;
  EXPECT_THAT(view.lines(s), IsEmpty());
  s.step = 11;
  EXPECT_THAT(view.lines(s), ElementsAre("step 11/30  loss 2.5000  2.00k tokens/s"));
  s.step = 19;
  EXPECT_THAT(view.lines(s), IsEmpty());
  s.step = 20, s.eta_s = 5.0, s.validation_loss = observe::LossPoint{20, 2.25};
  EXPECT_THAT(view.lines(s), ElementsAre("step 20/30  loss 2.5000  2.00k tokens/s  5.0 s left",
                                         "validation loss after step 20: 2.2500"));
  EXPECT_THAT(view.lines(s), IsEmpty());
  s.step = 30;
  EXPECT_THAT(view.lines(s), ElementsAre(HasSubstr("step 30/30")));
}

std::string drained(int descriptor) {
  std::string out;
  char buffer[4096];
  for (ssize_t n = 0; (n = ::read(descriptor, buffer, sizeof buffer)) > 0;)
    out.append(buffer, static_cast<std::size_t>(n));
  return out;
}

// Claim: into a pipe the view writes plain lines without a single escape, and a pipe whose reader is gone does not end
// the process.
TEST(TerminalView, a_pipe_gets_plain_lines) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  {
    TerminalView view({.descriptor = ends[1]});
    EXPECT_FALSE(view.live());
    view.show(laptop());
    view.say("hello");
  }
  const std::string text = drained(ends[0]);
  EXPECT_THAT(text, AllOf(HasSubstr("step 150/600"), HasSubstr("hello\n"), Not(HasSubstr("\x1b"))));
  ::close(ends[1]);
  ::close(ends[0]);
}

// Claim: in a terminal the second picture begins where the first did, the cursor is hidden once and shown again at the
// end.
TEST(TerminalView, a_terminal_is_drawn_in_place_and_restored) {
  const int controller = ::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (controller < 0 || ::grantpt(controller) != 0 || ::unlockpt(controller) != 0)
    GTEST_SKIP() << "no pseudo-terminal here";
  const int terminal = ::open(::ptsname(controller), O_RDWR | O_NOCTTY | O_CLOEXEC);
  ASSERT_GE(terminal, 0);
  ASSERT_EQ(::setenv("TERM", "xterm-256color", 1), 0);
  std::string text;
  std::size_t lines = 0;
  {
    TerminalView view({.descriptor = terminal});
    ASSERT_TRUE(view.live());
    RunStatus status = laptop();
    view.show(status);
    text += drained(controller);
    lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
    status.step = 151;
    view.show(status);
    EXPECT_THAT(drained(controller), HasSubstr(fmt::format("\r\x1b[{}A", lines)));
    view.show(status);
    EXPECT_EQ(drained(controller), "") << "an unchanged picture is not drawn again";
  }
  EXPECT_THAT(text, HasSubstr("\x1b[?25l"));
  EXPECT_EQ(drained(controller), "\x1b[?25h\x1b[0m");
  ::close(terminal);
  ::close(controller);
}

}  // namespace
}  // namespace stagecoach::app
