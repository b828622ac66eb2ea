// See quantity.h.
#include "app/quantity.h"

#include <charconv>
#include <cmath>
#include <span>
#include <string>
#include <utility>

namespace stagecoach::app {
namespace {

using Unit = std::pair<std::string_view, double>;

constexpr double kKilo = 1e3, kMega = 1e6, kGiga = 1e9, kTera = 1e12, kPeta = 1e15;
constexpr double kKibi = 0x1p10, kMebi = 0x1p20, kGibi = 0x1p30, kTebi = 0x1p40;

constexpr Unit kByteUnits[] = {{"", 1},         {"B", 1},       {"kB", kKilo},  {"KB", kKilo},  {"MB", kMega},  {"GB", kGiga},
                               {"TB", kTera},   {"KiB", kKibi}, {"MiB", kMebi}, {"GiB", kGibi}, {"TiB", kTebi}};
constexpr Unit kRateUnits[] = {{"bps", 1.0 / 8},   {"kbps", kKilo / 8}, {"Mbps", kMega / 8}, {"Gbps", kGiga / 8},
                               {"bit/s", 1.0 / 8}, {"kbit/s", kKilo / 8}, {"Mbit/s", kMega / 8}, {"Gbit/s", kGiga / 8},
                               {"B/s", 1},         {"kB/s", kKilo},     {"MB/s", kMega},     {"GB/s", kGiga}};
constexpr Unit kTimeUnits[] = {{"s", 1}, {"ms", 1e-3}, {"us", 1e-6}};
constexpr Unit kFlopUnits[] = {{"", 1}, {"G", kGiga}, {"T", kTera}, {"P", kPeta}};

/// The number and its unit; nothing where either is not to be understood.
base::Result<double> parse(std::string_view text, std::span<const Unit> units, std::string_view expected) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  if (error == std::errc() && std::isfinite(number) && number >= 0)
    for (const auto& [name, factor] : units)
      if (unit == name) return number * factor;
  return base::Error{base::ErrorCode::invalid_argument,
                     "expected " + std::string(expected) + ", not \"" + std::string(text.substr(0, 80)) + "\""};
}

base::Result<double> parse_positive(std::string_view text, std::span<const Unit> units, std::string_view expected) {
  auto value = parse(text, units, expected);
  if (value && !(*value > 0))
    return base::Error{base::ErrorCode::invalid_argument, "expected " + std::string(expected) + " above zero, not \"" + std::string(text) + "\""};
  return value;
}

}  // namespace

base::Result<std::int64_t> parse_bytes(std::string_view text) {
  constexpr std::string_view kExpected = "a size such as 80GB, 24GiB or a number of bytes";
  auto value = parse_positive(text, kByteUnits, kExpected);
  if (!value) return value.error();
  if (*value >= 0x1p62) return base::Error{base::ErrorCode::invalid_argument, "expected " + std::string(kExpected) + " below 4 EiB"};
  return static_cast<std::int64_t>(*value);
}

base::Result<double> parse_rate(std::string_view text) { return parse_positive(text, kRateUnits, "a rate such as 856Mbps or 107MB/s"); }

base::Result<double> parse_seconds(std::string_view text) { return parse(text, kTimeUnits, "a time such as 60ms or 0.2s"); }

base::Result<double> parse_flops(std::string_view text) {
  return parse_positive(text, kFlopUnits, "operations a second such as 312T or 2.8T");
}

}  // namespace stagecoach::app
