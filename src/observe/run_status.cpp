#include "observe/run_status.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "observe/json_reader.h"

namespace stagecoach::observe {
namespace {

using nlohmann::json;

constexpr std::uint64_t kFormat = 1;
constexpr double kHuge = std::numeric_limits<double>::max();

constexpr std::array<std::string_view, 7> kPhaseNames = {"starting", "gathering", "training", "recovering",
                                                         "saving",   "finished",  "stopped"};
constexpr std::array<std::string_view, 5> kMemberStateNames = {"joining", "loading", "ready", "working", "lost"};

json finite(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }
json finite(const std::optional<double>& value) { return value ? finite(*value) : json(nullptr); }
/// Rates and times: what is not a number of at least 0 says nothing, and 0 says that.
double amount(double value) { return std::isfinite(value) && value > 0 ? value : 0; }

/// A prefix of at most kTextBytesMax bytes. Replacing bytes that are no UTF-8 may triple a text, so such bytes count
/// three.
std::string bounded(const std::string& text) {
  std::size_t cost = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    cost += static_cast<unsigned char>(text[i]) < 0x80 ? 1 : 3;
    if (cost > kTextBytesMax) return text.substr(0, i);
  }
  return text;
}

/// The newest `most` elements, each through `convert`.
template <class T, class Convert>
json newest(const std::vector<T>& list, std::size_t most, Convert convert) {
  json out = json::array();
  for (std::size_t i = list.size() > most ? list.size() - most : 0; i < list.size(); ++i)
    out.push_back(convert(list[i]));
  return out;
}

json json_of(const LossPoint& point) { return {{"step", point.step}, {"nats_per_token", point.nats_per_token}}; }

/// The newest points that are numbers.
json curve(const std::vector<LossPoint>& history) {
  std::vector<LossPoint> points;
  for (const LossPoint& point : history)
    if (std::isfinite(point.nats_per_token)) points.push_back(point);
  return newest(points, kHistoryMax, [](const LossPoint& point) { return json_of(point); });
}

json json_of(const MemberStatus& member) {
  const MicrobatchCounts& counts = member.microbatches;
  return {{"peer", bounded(member.peer)},
          {"incarnation", member.incarnation},
          {"address", bounded(member.address)},
          {"state", to_string(member.state)},
          {"reason", bounded(member.reason)},
          {"weight_version", member.weight_version},
          {"busy_fraction", std::min(amount(member.busy_fraction), 1.0)},
          {"queue_length", member.queue_length},
          {"microbatches",
           {{"offered", counts.offered},
            {"accepted", counts.accepted},
            {"forwarded", counts.forwarded},
            {"accumulated", counts.accumulated},
            {"committed", counts.committed}}},
          {"bytes_in_per_s", amount(member.bytes_in_per_s)},
          {"bytes_out_per_s", amount(member.bytes_out_per_s)},
          {"round_trip_ms", member.round_trip_ms ? finite(amount(*member.round_trip_ms)) : json(nullptr)}};
}

json json_of(const StageStatus& stage) {
  json members = json::array();
  for (std::size_t i = 0; i < stage.members.size() && i < kMembersMax; ++i)
    members.push_back(json_of(stage.members[i]));
  return {
      {"view", stage.view}, {"first_layer", stage.first_layer}, {"end_layer", stage.end_layer}, {"members", members}};
}

json json_of(const Wait& wait) {
  return {{"who", bounded(wait.who)},
          {"what_for", bounded(wait.what_for)},
          {"waiting_s", amount(wait.waiting_s)},
          {"reason", bounded(wait.reason)}};
}

LossPoint read_point(ObjectReader& in) {
  return {in.unsigned_integer("step"), in.number("nats_per_token", -kHuge, kHuge)};
}

MemberStatus read_member(ObjectReader& in) {
  MemberStatus out;
  out.peer = in.text("peer", kTextBytesMax);
  out.incarnation = in.unsigned_integer("incarnation");
  out.address = in.text("address", kTextBytesMax);
  out.state = static_cast<MemberState>(in.one_of("state", {"joining", "loading", "ready", "working", "lost"}));
  out.reason = in.text("reason", kTextBytesMax);
  out.weight_version = in.unsigned_integer("weight_version");
  out.busy_fraction = in.number("busy_fraction", 0, 1);
  out.queue_length = in.unsigned_integer("queue_length");
  in.optional_object("microbatches", [&](ObjectReader& counts) {
    out.microbatches = {counts.unsigned_integer("offered"), counts.unsigned_integer("accepted"),
                        counts.unsigned_integer("forwarded"), counts.unsigned_integer("accumulated"),
                        counts.unsigned_integer("committed")};
  });
  out.bytes_in_per_s = in.number("bytes_in_per_s", 0, kHuge);
  out.bytes_out_per_s = in.number("bytes_out_per_s", 0, kHuge);
  out.round_trip_ms = in.optional_number("round_trip_ms", 0, kHuge);
  return out;
}

StageStatus read_stage(ObjectReader& in) {
  StageStatus out;
  out.view = in.unsigned_integer("view");
  out.first_layer = in.unsigned_integer("first_layer");
  out.end_layer = in.unsigned_integer("end_layer");
  in.list("members", kMembersMax, [&](ObjectReader& member) { out.members.push_back(read_member(member)); });
  return out;
}

RunStatus read_status(ObjectReader& in) {
  RunStatus out;
  out.run_id = in.text("run_id", kTextBytesMax);
  out.config_id = in.text("config_id", kTextBytesMax);
  out.name = in.text("name", kTextBytesMax);
  out.phase = static_cast<Phase>(
      in.one_of("phase", {"starting", "gathering", "training", "recovering", "saving", "finished", "stopped"}));
  out.reason = in.text("reason", kTextBytesMax);
  out.term = in.unsigned_integer("term");
  out.attempt = in.unsigned_integer("attempt");
  out.step = in.unsigned_integer("step");
  out.steps = in.unsigned_integer("steps");
  out.train_loss = in.optional_number("train_loss", -kHuge, kHuge);
  out.train_loss_smoothed = in.optional_number("train_loss_smoothed", -kHuge, kHuge);
  in.optional_object("validation_loss", [&](ObjectReader& point) { out.validation_loss = read_point(point); });
  in.list("train_history", kHistoryMax, [&](ObjectReader& point) { out.train_history.push_back(read_point(point)); });
  in.list("validation_history", kHistoryMax,
          [&](ObjectReader& point) { out.validation_history.push_back(read_point(point)); });
  out.tokens = in.unsigned_integer("tokens");
  out.tokens_per_s = in.number("tokens_per_s", 0, kHuge);
  out.eta_s = in.optional_number("eta_s", 0, kHuge);
  out.elapsed_s = in.number("elapsed_s", 0, kHuge);
  out.started_unix_ms = in.integer("started_unix_ms");
  in.list("stages", kStagesMax, [&](ObjectReader& stage) { out.stages.push_back(read_stage(stage)); });
  in.list("waits", kWaitsMax, [&](ObjectReader& wait) {
    out.waits.push_back({wait.text("who", kTextBytesMax), wait.text("what_for", kTextBytesMax),
                         wait.number("waiting_s", 0, kHuge), wait.text("reason", kTextBytesMax)});
  });
  out.events = in.texts("events", kEventsMax, kTextBytesMax);
  in.optional_object("checkpoint", [&](ObjectReader& checkpoint) {
    out.checkpoint = CheckpointStatus{checkpoint.unsigned_integer("step"), checkpoint.text("path", kTextBytesMax)};
  });
  return out;
}

}  // namespace

std::string_view to_string(Phase phase) { return kPhaseNames[static_cast<std::size_t>(phase)]; }
std::string_view to_string(MemberState state) { return kMemberStateNames[static_cast<std::size_t>(state)]; }

void add_point(std::vector<LossPoint>& history, LossPoint point) {
  history.push_back(point);
  if (history.size() <= kHistoryMax) return;
  std::vector<LossPoint> kept;
  for (std::size_t i = 0; i < history.size(); ++i)
    if (i % 2 == 0 || i + 1 == history.size()) kept.push_back(history[i]);
  history = std::move(kept);
}

void add_event(RunStatus& status, std::string line) {
  status.events.push_back(std::move(line));
  if (status.events.size() > kEventsMax) status.events.erase(status.events.begin());
}

std::string to_json(const RunStatus& status) {
  json stages = json::array();
  for (std::size_t i = 0; i < status.stages.size() && i < kStagesMax; ++i) stages.push_back(json_of(status.stages[i]));
  const bool validated = status.validation_loss && std::isfinite(status.validation_loss->nats_per_token);
  json document = {
      {"format", kFormat},
      {"run_id", bounded(status.run_id)},
      {"config_id", bounded(status.config_id)},
      {"name", bounded(status.name)},
      {"phase", to_string(status.phase)},
      {"reason", bounded(status.reason)},
      {"term", status.term},
      {"attempt", status.attempt},
      {"step", status.step},
      {"steps", status.steps},
      {"train_loss", finite(status.train_loss)},
      {"train_loss_smoothed", finite(status.train_loss_smoothed)},
      {"validation_loss", validated ? json_of(*status.validation_loss) : json(nullptr)},
      {"train_history", curve(status.train_history)},
      {"validation_history", curve(status.validation_history)},
      {"tokens", status.tokens},
      {"tokens_per_s", amount(status.tokens_per_s)},
      {"eta_s", status.eta_s ? finite(amount(*status.eta_s)) : json(nullptr)},
      {"elapsed_s", amount(status.elapsed_s)},
      {"started_unix_ms", status.started_unix_ms},
      {"stages", stages},
      {"waits", newest(status.waits, kWaitsMax, [](const Wait& wait) { return json_of(wait); })},
      {"events", newest(status.events, kEventsMax, [](const std::string& line) { return json(bounded(line)); })},
      {"checkpoint", nullptr},
  };
  if (status.checkpoint)
    document["checkpoint"] = {{"step", status.checkpoint->step}, {"path", bounded(status.checkpoint->path)}};
  return document.dump(-1, ' ', false, json::error_handler_t::replace);
}

base::Result<RunStatus> status_from_json(std::string_view text) {
  auto document = parse_object(text, kStatusTextBytesMax, "status");
  if (!document) return document.error();
  ObjectReader::Problem problem;
  ObjectReader in(*document, "", problem);
  const std::uint64_t format = in.unsigned_integer("format");
  if (!problem.error && format != kFormat)
    in.fail(base::ErrorCode::corrupt, "format",
            "is " + std::to_string(format) + ", this program reads " + std::to_string(kFormat));
  RunStatus status = read_status(in);
  if (problem.error) return problem.error->within("status");
  return status;
}

}  // namespace stagecoach::observe
