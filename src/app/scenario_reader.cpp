// See scenario_reader.h.
#include "app/scenario_reader.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "app/quantity.h"

namespace stagecoach::app {
namespace {

constexpr std::size_t kListMax = 4096;

std::string describe(const toml::node& node) {
  if (const auto* text = node.as_string()) return "\"" + text->get().substr(0, 60) + "\"";
  if (const auto* number = node.as_integer()) return std::to_string(number->get());
  if (const auto* number = node.as_floating_point()) return fmt::format("{}", number->get());
  if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
  return node.is_array() ? "a list" : node.is_table() ? "a table" : "a date or time";
}

}  // namespace

base::Result<base::Duration> parse_time(std::string_view text) {
  constexpr std::pair<std::string_view, double> kUnits[] = {{"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"min", 60e9}, {"h", 3600e9}};
  constexpr double kLongest = 1e18;  // some thirty years in nanoseconds: sums of a few still fit
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  if (error == std::errc() && std::isfinite(number) && number >= 0) {
    if (number == 0 && unit.empty()) return base::Duration();
    for (const auto& [name, factor] : kUnits)
      if (unit == name && number * factor <= kLongest) return base::Duration::nanoseconds(std::llround(number * factor));
  }
  return base::Error{base::ErrorCode::invalid_argument,
                     "expected a time such as \"35ms\", \"1.5s\", \"10min\" or \"24h\", not \"" + std::string(text.substr(0, 60)) + "\""};
}

void ScenarioProblems::add(const toml::node* node, const std::string& sentence) {
  const auto line = node != nullptr ? node->source().begin.line : 0;
  sentences.push_back(file + (line > 0 ? ":" + std::to_string(line) : "") + ": " + sentence);
}

const toml::node* Section::node(const std::string& key) {
  known_.insert(key);
  return table_ == nullptr ? nullptr : table_->get(key);
}

void Section::wrong(const std::string& key, const std::string& sentence) {
  const toml::node* at = table_ == nullptr ? nullptr : table_->get(key);
  problems_.add(at != nullptr ? at : table_ != nullptr ? table_ : place_, label_ + " " + key + " " + sentence);
}

std::optional<std::string> Section::text(const std::string& key) {
  const toml::node* found = node(key);
  if (found == nullptr) return std::nullopt;
  if (const auto* value = found->as_string()) return value->get();
  wrong(key, "must be a text, not " + describe(*found));
  return std::nullopt;
}

std::optional<std::string> Section::word(const std::string& key, std::initializer_list<std::string_view> choices) {
  const auto value = text(key);
  if (!value) return std::nullopt;
  std::string list;
  for (const std::string_view choice : choices) {
    if (*value == choice) return value;
    list += (list.empty() ? "" : ", ") + std::string(choice);
  }
  wrong(key, "must be one of " + list + ", not \"" + value->substr(0, 60) + "\"");
  return std::nullopt;
}

template <class Value, class Parse>
std::optional<Value> Section::quantity(const std::string& key, Parse parse) {
  const auto value = text(key);
  if (!value) return std::nullopt;
  const auto parsed = parse(*value);
  if (parsed) return static_cast<Value>(*parsed);
  wrong(key, "is wrong: " + parsed.error().message);
  return std::nullopt;
}

std::optional<base::Duration> Section::time(const std::string& key) { return quantity<base::Duration>(key, parse_time); }
std::optional<double> Section::rate(const std::string& key) { return quantity<double>(key, parse_rate); }
std::optional<double> Section::bytes(const std::string& key) { return quantity<double>(key, parse_bytes); }
std::optional<double> Section::flops(const std::string& key) { return quantity<double>(key, parse_flops); }

std::optional<double> Section::number(const std::string& key, double least, double most) {
  const toml::node* found = node(key);
  if (found == nullptr) return std::nullopt;
  const auto value = found->value<double>();
  if (found->is_number() && value && *value >= least && *value <= most) return value;
  wrong(key, fmt::format("must be a number from {} to {}, not {}", least, most, describe(*found)));
  return std::nullopt;
}

std::optional<std::int64_t> Section::integer(const std::string& key, std::int64_t least, std::int64_t most) {
  const toml::node* found = node(key);
  if (found == nullptr) return std::nullopt;
  if (const auto* value = found->as_integer(); value && value->get() >= least && value->get() <= most) return value->get();
  wrong(key, fmt::format("must be an integer from {} to {}, not {}", least, most, describe(*found)));
  return std::nullopt;
}

std::optional<bool> Section::flag(const std::string& key) {
  const toml::node* found = node(key);
  if (found == nullptr) return std::nullopt;
  if (const auto* value = found->as_boolean()) return value->get();
  wrong(key, "must be true or false, not " + describe(*found));
  return std::nullopt;
}

std::vector<std::string> Section::texts(const std::string& key) {
  const toml::node* found = node(key);
  if (found == nullptr) return {};
  std::vector<std::string> out;
  if (const auto* one = found->as_string()) return {one->get()};
  if (const auto* list = found->as_array(); list && list->size() <= kListMax) {
    for (const toml::node& each : *list)
      if (const auto* value = each.as_string()) out.push_back(value->get());
    if (out.size() == list->size()) return out;
  }
  wrong(key, "must be a list of texts, not " + describe(*found));
  return {};
}

std::vector<base::Duration> Section::times(const std::string& key) {
  std::vector<base::Duration> out;
  for (const std::string& each : texts(key)) {
    const auto parsed = parse_time(each);
    if (parsed) out.push_back(*parsed);
    else wrong(key, "is wrong: " + parsed.error().message);
  }
  return out;
}

void Section::finish() {
  if (table_ == nullptr) return;
  for (const auto& [key, value] : *table_) {
    if (known_.contains(std::string(key.str()))) continue;
    std::string list;
    for (const std::string& each : known_) list += (list.empty() ? "" : ", ") + each;
    problems_.add(&value, label_ + " has no key " + std::string(key.str()).substr(0, 60) + "; there are: " + list);
  }
}

}  // namespace stagecoach::app
