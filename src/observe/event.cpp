#include "observe/event.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "observe/json_reader.h"

namespace stagecoach::observe {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kFieldTextBytesMax = 4096;
constexpr std::array<std::string_view, 9> kKindNames = {"run_started", "worker_joined",      "worker_lost",
                                                        "view",        "attempt_opened",     "step_committed",
                                                        "evaluated",   "checkpoint_written", "run_finished"};

Json json_of(const FieldValue& value, std::size_t text_bytes_max) {
  if (const auto* number = std::get_if<double>(&value)) return std::isfinite(*number) ? Json(*number) : Json(nullptr);
  if (const auto* text = std::get_if<std::string>(&value)) return text->substr(0, text_bytes_max);
  return std::visit([](const auto& other) { return Json(other); }, value);
}

/// Nothing for null, lists and objects.
std::optional<FieldValue> value_of(const Json& node) {
  if (node.is_boolean()) return *node.get_ptr<const bool*>();
  if (node.is_number_unsigned()) return *node.get_ptr<const Json::number_unsigned_t*>();
  if (node.is_number_integer()) return *node.get_ptr<const Json::number_integer_t*>();
  if (node.is_number_float()) return *node.get_ptr<const double*>();
  if (node.is_string()) return *node.get_ptr<const std::string*>();
  return std::nullopt;
}

std::string text_of(const FieldValue& value) {
  const Json node = json_of(value, kFieldTextBytesMax);
  if (const auto* text = node.get_ptr<const std::string*>()) return *text;
  if (const auto* number = std::get_if<double>(&value)) {
    char out[32];
    std::snprintf(out, sizeof out, "%.4f", *number);
    return out;
  }
  return node.dump();
}

}  // namespace

std::string_view to_string(EventKind kind) { return kKindNames[static_cast<std::size_t>(kind)]; }

const FieldValue* Event::find(std::string_view name) const {
  for (const Field& field : fields)
    if (field.name == name) return &field.value;
  return nullptr;
}

std::string bits_of(double value) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(bits));
  return text;
}

Event step_committed(std::int64_t unix_ms, std::uint64_t step, std::uint64_t attempt, double loss, double global_norm) {
  return {unix_ms,
          EventKind::step_committed,
          {{"step", step},
           {"attempt", attempt},
           {"loss", loss},
           {"loss_bits", bits_of(loss)},
           {"global_norm", global_norm}}};
}

Event evaluated(std::int64_t unix_ms, std::uint64_t step, double loss) {
  return {unix_ms, EventKind::evaluated, {{"step", step}, {"loss", loss}, {"loss_bits", bits_of(loss)}}};
}

std::string to_line(const Event& event) {
  std::string line;
  // The second bound keeps 64 fields within a line even where each byte is written as six ("\u0001").
  for (const std::size_t text_bytes_max : {kFieldTextBytesMax, std::size_t{64}}) {
    Json out;
    out["time_ms"] = event.unix_ms;
    out["kind"] = to_string(event.kind);
    const std::size_t count = std::min(event.fields.size(), kEventFieldsMax);
    for (std::size_t i = 0; i < count; ++i)
      out[event.fields[i].name.substr(0, text_bytes_max)] = json_of(event.fields[i].value, text_bytes_max);
    line = out.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (line.size() <= kEventLineBytesMax) break;
  }
  return line;
}

base::Result<Event> parse_event(std::string_view line) {
  using base::Error;
  using base::ErrorCode;
  if (line.size() > kEventLineBytesMax) return Error{ErrorCode::too_large, "event: the line is too long"};
  const Json node = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!node.is_object() || node.size() > kEventFieldsMax + 2)
    return Error{ErrorCode::corrupt, "event: not an object of few fields"};
  const auto time = node.find("time_ms");
  const auto kind = node.find("kind");
  if (time == node.end() || !time->is_number_integer() || kind == node.end() || !kind->is_string())
    return Error{ErrorCode::corrupt, "event: time_ms or kind is missing"};
  const auto name = std::find(kKindNames.begin(), kKindNames.end(), *kind->get_ptr<const std::string*>());
  if (name == kKindNames.end()) return Error{ErrorCode::corrupt, "event: the kind is unknown"};
  Event event;
  event.unix_ms = time->get<std::int64_t>();
  event.kind = static_cast<EventKind>(name - kKindNames.begin());
  for (const auto& [field, value] : node.items()) {
    if (field == "time_ms" || field == "kind") continue;
    if (auto read = value_of(value)) event.fields.push_back({field, std::move(*read)});
  }
  return event;
}

std::string describe(const Event& event) {
  const auto field = [&](const char* name) {
    const FieldValue* value = event.find(name);
    return value == nullptr ? std::string("?") : text_of(*value);
  };
  // The first digits of a key, as the status and the logs name a worker: the whole key is in the event.
  const std::string peer = field("peer").substr(0, 8);
  switch (event.kind) {
    case EventKind::run_started:
      return "run " + field("name") + " started at step " + field("step") + " of " + field("steps");
    case EventKind::worker_joined:
      return "worker " + peer + " joined stage " + field("stage") + " from " + field("address");
    case EventKind::worker_lost:
      return "worker " + peer + " of stage " + field("stage") + " was lost: " + field("reason");
    case EventKind::view:
      return "stage " + field("stage") + " has view " + field("number") + " with " + field("members") + " members";
    case EventKind::attempt_opened:
      return "attempt " + field("attempt") + " of step " + field("step") + ": " + field("reason");
    case EventKind::step_committed:
      return "step " + field("step") + " committed: loss " + field("loss");
    case EventKind::evaluated:
      return "validation loss after step " + field("step") + ": " + field("loss");
    case EventKind::checkpoint_written:
      return "checkpoint of step " + field("step") + " written: " + field("path");
    case EventKind::run_finished:
      return "run ended after step " + field("step") + ": " + field("reason");
  }
  return "";
}

}  // namespace stagecoach::observe
