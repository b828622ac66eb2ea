#include "lab/emulator/plan.h"

#include <arpa/inet.h>

#include <charconv>
#include <cmath>
#include <span>

namespace stagecoach::lab {

using base::Duration;
using base::Error;
using base::ErrorCode;
using base::Result;

namespace {

Error wrong(const std::string& what) { return Error{ErrorCode::invalid_argument, what}; }

struct Unit {
  std::string_view name;
  double factor;
};

/// What a value is, how it is written, and what it may be.
struct Quantity {
  const char* expected;
  std::span<const Unit> units;
  double most;
};

constexpr Unit kTimes[] = {{"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
constexpr Unit kRates[] = {{"", 1}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}};
constexpr Unit kSizes[] = {{"", 1}, {"k", 1e3}, {"M", 1e6}};
constexpr Unit kShares[] = {{"", 1}, {"%", 1e-2}};
constexpr Unit kCounts[] = {{"", 1}};
constexpr Quantity kTime{"a time such as 250us, 25ms or 1s, at most 60s", kTimes, 60e9};
constexpr Quantity kRate{"bits a second such as 20M or 1G, at most 100G (0 = no limit)", kRates, 100e9};
constexpr Quantity kSize{"bytes such as 250k or 2M, at most 4000M (0 = 100 ms of the rate)", kSizes, 4e9};
constexpr Quantity kShare{"a share such as 0.1% or 0.001, at most 99%", kShares, 0.99};
constexpr Quantity kLength{"packets, from 1 to 1000", kCounts, 1000};

Result<double> number(const Quantity& quantity, const std::string& key, const std::string& text) {
  const Error error = wrong(key + "=" + text + ": expected " + quantity.expected);
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc() || !std::isfinite(value) || value < 0) return error;
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  for (const Unit& known : quantity.units) {
    if (known.name != unit) continue;
    value *= known.factor;
    if (value > quantity.most) return error;
    return value;
  }
  return error;
}

Result<bool> yes_or_no(const std::string& key, const std::string& text) {
  if (text == "yes") return true;
  if (text == "no") return false;
  return wrong(key + "=" + text + ": expected yes or no");
}

std::vector<std::string> words_of(std::string_view line) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : line.substr(0, line.find('#'))) {
    if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
      if (!word.empty()) words.push_back(std::exchange(word, {}));
    } else {
      word += c;
    }
  }
  if (!word.empty()) words.push_back(word);
  return words;
}

using KeyValue = std::pair<std::string, std::string>;

Result<std::vector<KeyValue>> key_values(std::span<const std::string> words) {
  std::vector<KeyValue> pairs;
  for (const std::string& word : words) {
    const auto sign = word.find('=');
    if (sign == std::string::npos || sign == 0) return wrong("\"" + word + "\": expected key=value, such as delay=25ms");
    pairs.emplace_back(word.substr(0, sign), word.substr(sign + 1));
  }
  return pairs;
}

Result<void> change_host(HostCommand& host, const std::string& key, const std::string& value) {
  if (key == "netns") {
    host.netns = value;
    return {};
  }
  if (key == "address") {
    const auto address = parse_address(value);
    if (!address.ok()) return address.error();
    host.address = address.value();
    return {};
  }
  const bool rate = key == "up" || key == "down";
  if (!rate && key != "up_queue" && key != "down_queue") {
    return wrong("host has no \"" + key + "\": it has netns, address, up, down, up_queue, down_queue");
  }
  const auto bits_or_bytes = number(rate ? kRate : kSize, key, value);
  if (!bits_or_bytes.ok()) return bits_or_bytes.error();
  const auto whole = static_cast<std::uint64_t>(bits_or_bytes.value());
  (key == "up" ? host.up_bits_per_s : key == "down" ? host.down_bits_per_s : key == "up_queue" ? host.up_queue_bytes : host.down_queue_bytes) = whole;
  return {};
}

Result<std::optional<Command>> parse_host(std::span<const std::string> words) {
  if (words.size() < 2) return wrong("expected: host NAME key=value …");
  HostCommand host;
  host.name = words[1];
  const auto pairs = key_values(words.subspan(2));
  if (!pairs.ok()) return pairs.error();
  for (const auto& [key, value] : pairs.value()) RETURN_IF_ERROR(change_host(host, key, value));
  return std::optional<Command>(std::move(host));
}

Result<std::optional<Command>> parse_pair(std::span<const std::string> words) {
  if (words.size() < 3) return wrong("expected: " + words[0] + " FROM TO key=value …");
  PairCommand command{words[1], words[2], words[0] == "both", {}};
  auto pairs = key_values(words.subspan(3));
  if (!pairs.ok()) return pairs.error();
  Road::Settings tried;
  for (const auto& [key, value] : pairs.value()) RETURN_IF_ERROR(change(tried, key, value));
  command.changes = std::move(pairs).value();
  return std::optional<Command>(std::move(command));
}

Result<std::optional<Command>> parse_address_change(std::span<const std::string> words) {
  if (words.size() != 3) return wrong("expected: address NAME A.B.C.D");
  const auto address = parse_address(words[2]);
  if (!address.ok()) return address.error();
  return std::optional<Command>(AddressCommand{words[1], address.value()});
}

}  // namespace

Result<std::optional<Command>> parse_command(std::string_view line) {
  const std::vector<std::string> words = words_of(line);
  if (words.empty()) return std::optional<Command>();
  if (words[0] == "host") return parse_host(words);
  if (words[0] == "pair" || words[0] == "both") return parse_pair(words);
  if (words[0] == "address") return parse_address_change(words);
  if (words[0] == "stats" && words.size() == 1) return std::optional<Command>(StatsCommand{});
  return wrong("\"" + words[0] + "\" is no command: there are host, pair, both, address and stats");
}

Result<void> change(Road::Settings& settings, const std::string& key, const std::string& value) {
  if (key == "cut" || key == "keep_order") {
    const auto yes = yes_or_no(key, value);
    if (!yes.ok()) return yes.error();
    (key == "cut" ? settings.cut : settings.keep_order) = yes.value();
    return {};
  }
  const bool time = key == "delay" || key == "jitter" || key == "reorder_by";
  const bool share = key == "loss" || key == "burst_loss" || key == "reorder" || key == "duplicate";
  if (!time && !share && key != "rate" && key != "queue" && key != "burst_length") {
    return wrong("a pair has no \"" + key + "\": it has rate, queue, delay, jitter, keep_order, loss, burst_loss, burst_length, reorder, "
                 "reorder_by, duplicate, cut");
  }
  const auto got = number(time ? kTime : share ? kShare : key == "rate" ? kRate : key == "queue" ? kSize : kLength, key, value);
  if (!got.ok()) return got.error();
  const double x = got.value();
  const auto duration = Duration::nanoseconds(static_cast<std::int64_t>(std::min(x, kTime.most)));
  if (key == "rate") settings.rate.bits_per_s = static_cast<std::uint64_t>(x);
  if (key == "queue") settings.rate.queue_bytes = static_cast<std::uint64_t>(x);
  if (key == "delay") settings.delay = duration;
  if (key == "jitter") settings.jitter = duration;
  if (key == "reorder_by") settings.reorder_by = duration;
  if (key == "loss") settings.loss = x;
  if (key == "burst_loss") settings.burst_loss = x;
  if (key == "reorder") settings.reorder = x;
  if (key == "duplicate") settings.duplicate = x;
  if (key == "burst_length") {
    if (x < 1) return wrong(key + "=" + value + ": expected " + kLength.expected);
    settings.burst_length = x;
  }
  // A burst must be left faster than it is entered, or the share asked for cannot be reached.
  if (settings.burst_loss > settings.burst_length / (settings.burst_length + 1)) {
    return wrong("burst_loss=" + std::to_string(settings.burst_loss) + " cannot be had in bursts of " + std::to_string(settings.burst_length) +
                 " packets: make the bursts longer or the loss smaller");
  }
  return {};
}

Result<std::uint32_t> parse_address(const std::string& text) {
  in_addr address{};
  if (::inet_pton(AF_INET, text.c_str(), &address) != 1) return wrong("\"" + text + "\": expected an IPv4 address such as 10.77.0.1");
  return ntohl(address.s_addr);
}

std::string address_text(std::uint32_t address) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) text += (text.empty() ? "" : ".") + std::to_string(address >> shift & 0xff);
  return text;
}

}  // namespace stagecoach::lab
