// Claim: what a worker writes reads back as it was; anything else is refused.
#include "observe/trace_text.h"

#include <gtest/gtest.h>

namespace stagecoach::observe {
namespace {

TEST(TraceText, EachKindOfLineReadsBack) {
  const auto at = base::Instant::from_ns(1'790'000'000'123'456'789);
  const TraceLine lines[] = {
      {at, trace::Opened{base::StageIndex(3), base::Step(7), base::Attempt(2), true}},
      {at, trace::Worked{trace::Kind::evaluate, base::Step(7), base::Attempt(2), base::MicrobatchIndex(11), base::Instant::from_ns(5)}},
      {at, trace::Arrived{trace::Kind::backward, base::Step(7), base::Attempt(2), base::MicrobatchIndex(0)}}};
  for (const TraceLine& line : lines) {
    const std::string text = to_line(line);
    const auto read = parse_trace_line(text);
    ASSERT_TRUE(read.ok()) << text;
    EXPECT_EQ(read->at, at);
    EXPECT_EQ(read->event.index(), line.event.index());
    EXPECT_EQ(to_line(*read), text);
  }
}

TEST(TraceText, NonsenseIsRefused) {
  for (const char* text : {"", "{", "[]", "{}", R"({"at_ns":1,"event":"gone"})", R"({"at_ns":-1,"event":"opened","stage":0,"step":1,"attempt":1,"after_view":true})",
                           R"({"at_ns":1,"event":"opened","stage":0,"step":1,"attempt":"1","after_view":true})",
                           R"({"at_ns":1,"event":"worked","kind":"sideways","step":1,"attempt":1,"microbatch":1,"began_ns":0})",
                           R"({"at_ns":1,"event":"arrived","kind":"forward","step":1,"attempt":1,"microbatch":99999999999})"})
    EXPECT_FALSE(parse_trace_line(text).ok()) << text;
}

}  // namespace
}  // namespace stagecoach::observe
