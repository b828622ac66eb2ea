#include "observe/trace_text.h"

#include <nlohmann/json.hpp>

#include "base/check.h"

namespace stagecoach::observe {

using nlohmann::ordered_json;

namespace {

constexpr std::array<const char*, 3> kKinds = {"forward", "backward", "evaluate"};
constexpr std::size_t kLineBytesMax = 1024;

void describe(const trace::Opened& event, ordered_json& out) {
  out["event"] = "opened";
  out["stage"] = event.stage.value();
  out["step"] = event.step.value();
  out["attempt"] = event.attempt.value();
  out["after_view"] = event.after_view;
}
void describe(const trace::Worked& event, ordered_json& out) {
  out["event"] = "worked";
  out["kind"] = kKinds[static_cast<std::size_t>(event.kind)];
  out["step"] = event.step.value();
  out["attempt"] = event.attempt.value();
  out["microbatch"] = event.microbatch.value();
  out["began_ns"] = event.began.ns();
}
void describe(const trace::Arrived& event, ordered_json& out) {
  out["event"] = "arrived";
  out["kind"] = kKinds[static_cast<std::size_t>(event.kind)];
  out["step"] = event.step.value();
  out["attempt"] = event.attempt.value();
  out["microbatch"] = event.microbatch.value();
}
template <class Other>
void describe(const Other&, ordered_json&) {
  CHECK(false, "a worker's trace holds what the worker did");
}

/// The members of one line, as far as they have the right types.
class Line {
 public:
  explicit Line(const nlohmann::json& json) : json_(json) {}
  std::uint64_t number(const char* name) {
    const auto it = json_.find(name);
    if (it != json_.end() && it->is_number_unsigned()) return it->get<std::uint64_t>();
    ok_ = false;
    return 0;
  }
  std::string text(const char* name) {
    const auto it = json_.find(name);
    if (it != json_.end() && it->is_string()) return it->get<std::string>();
    ok_ = false;
    return "";
  }
  bool flag(const char* name) {
    const auto it = json_.find(name);
    if (it != json_.end() && it->is_boolean()) return it->get<bool>();
    ok_ = false;
    return false;
  }
  trace::Kind kind() {
    const std::string name = text("kind");
    for (std::size_t i = 0; i < kKinds.size(); ++i)
      if (name == kKinds[i]) return static_cast<trace::Kind>(i);
    ok_ = false;
    return trace::Kind::forward;
  }
  base::Instant time(const char* name) { return base::Instant::from_ns(static_cast<std::int64_t>(number(name) & (~std::uint64_t{0} >> 1))); }
  base::Step step() { return base::Step(number("step")); }
  base::Attempt attempt() { return base::Attempt(number("attempt")); }
  base::MicrobatchIndex microbatch() {
    const std::uint64_t m = number("microbatch");
    ok_ = ok_ && m <= kMicrobatchMax;  // the accounts hold a row for each before it
    return base::MicrobatchIndex(m);
  }
  bool ok() const { return ok_; }

 private:
  static constexpr std::uint64_t kMicrobatchMax = 1u << 20;
  const nlohmann::json& json_;
  bool ok_ = true;
};

}  // namespace

std::string to_line(const TraceLine& line) {
  ordered_json out;
  out["at_ns"] = line.at.ns();
  std::visit([&](const auto& event) { describe(event, out); }, line.event);
  return out.dump();
}

base::Result<TraceLine> parse_trace_line(std::string_view text) {
  const base::Error bad{base::ErrorCode::corrupt, "not a line of a worker's trace: \"" + std::string(text.substr(0, 80)) + "\""};
  if (text.size() > kLineBytesMax) return bad;
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return bad;
  Line line(json);
  TraceLine out;
  out.at = line.time("at_ns");
  const std::string event = line.text("event");
  if (event == "opened") out.event = trace::Opened{base::StageIndex(line.number("stage")), line.step(), line.attempt(), line.flag("after_view")};
  else if (event == "worked") out.event = trace::Worked{line.kind(), line.step(), line.attempt(), line.microbatch(), line.time("began_ns")};
  else if (event == "arrived") out.event = trace::Arrived{line.kind(), line.step(), line.attempt(), line.microbatch()};
  else return bad;
  if (!line.ok()) return bad;
  return out;
}

}  // namespace stagecoach::observe
