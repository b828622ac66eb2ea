#include "app/device_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <sstream>

#include "app/settings.h"
#include "base/files.h"

namespace stagecoach::app {

using base::Error;
using base::ErrorCode;
using base::Result;
using world::paced::DeviceSpeed;
using world::real::PacedDevice;

namespace {

std::string known_names() {
  std::string out;
  for (const auto& [name, speed] : world::paced::named_devices()) out += (out.empty() ? "" : ", ") + name;
  return out;
}

/// "a100" or "a100@0.38".
std::optional<DeviceSpeed> named(std::string_view words) {
  const std::size_t at = words.find('@');
  const auto it = world::paced::named_devices().find(std::string(words.substr(0, at)));
  if (it == world::paced::named_devices().end()) return std::nullopt;
  DeviceSpeed speed = it->second;
  if (at == std::string_view::npos) return speed;
  const std::string_view share = words.substr(at + 1);
  const auto [end, error] = std::from_chars(share.data(), share.data() + share.size(), speed.mfu);
  const bool fine = error == std::errc() && end == share.data() + share.size() && speed.mfu > 0 && speed.mfu <= 1;
  return fine ? std::optional(speed) : std::nullopt;
}

Result<PacedDevice::Options> read_file(const std::string& path) {
  const auto text = base::read_text_file(path, kConfigBytesMax);
  if (!text) return text.error();
  ScenarioProblems problems{path, {}};
  PacedDevice::Options out;
  try {
    const toml::table document = toml::parse(*text, path);
    Section section(&document, "the device's", &document, problems);
    out.speed = read_speed(section, std::nullopt);
    out.slowdown = section.number("slowdown", 0.001, 1e6).value_or(1);
    out.bulk_scale = section.number("bulk_scale", 0, 1).value_or(1);
    section.finish();
  } catch (const toml::parse_error& error) {
    problems.sentences.push_back(path + ":" + std::to_string(error.source().begin.line) + ": not TOML: " + std::string(error.description()));
  }
  if (!problems.sentences.empty()) return Error{ErrorCode::invalid_argument, problems.sentences.front()};
  return out;
}

std::string times_text(const std::vector<base::Duration>& times) {
  std::string out;
  for (const base::Duration& each : times) out += fmt::format("{}\"{}us\"", out.empty() ? "" : ", ", static_cast<double>(each.ns()) / 1e3);
  return "[" + out + "]";
}

}  // namespace

std::string device_complaint(const std::string& device) {
  if (is_paced(device)) return device.size() > kPacedPrefix.size() ? "" : "expected paced:NAME with one of " + known_names() + ", or paced:FILE";
  constexpr std::string_view kReal[] = {"auto", "cpu", "cuda", "mps"};
  if (std::find(std::begin(kReal), std::end(kReal), device) != std::end(kReal)) return "";
  return "expected auto, cpu, cuda, mps, paced:NAME or paced:FILE, not \"" + device.substr(0, 60) + "\"";
}

Result<std::optional<PacedDevice::Options>> paced_device(const std::string& device) {
  if (const std::string complaint = device_complaint(device); !complaint.empty()) return Error{ErrorCode::invalid_argument, complaint};
  if (!is_paced(device)) return std::optional<PacedDevice::Options>();
  const std::string words = device.substr(kPacedPrefix.size());
  if (const auto speed = named(words)) return std::optional(PacedDevice::Options{*speed});
  auto read = read_file(words);
  if (read) return std::optional(std::move(*read));
  if (read.error().code != ErrorCode::not_found) return read.error();
  return Error{ErrorCode::invalid_argument, "no device is called \"" + words.substr(0, 60) + "\", and there is no such file: there are " + known_names() +
                                                ", each also with the share of its peak that training reaches (a100@0.38)"};
}

DeviceSpeed read_speed(Section& section, std::optional<std::size_t> stages) {
  DeviceSpeed device;
  device.flops_per_s = section.flops("flops").value_or(0);
  device.mfu = section.number("mfu", 1e-6, 1).value_or(0.4);
  device.forward = section.times("forward");
  device.backward = section.times("backward");
  device.memory_bytes_per_s = section.bytes("memory").value_or(0);
  const bool by_time = !device.forward.empty() || !device.backward.empty();
  const bool both = !device.forward.empty() && !device.backward.empty();
  if (by_time == (device.flops_per_s > 0) || by_time != both) section.wrong("flops", "or both forward and backward must be given, and not all of them");
  for (const char* key : {"forward", "backward"}) {
    const std::size_t count = (*key == 'f' ? device.forward : device.backward).size();
    if (by_time && stages && count != 1 && count != *stages)
      section.wrong(key, "must hold one time, or one for each of the " + std::to_string(*stages) + " stages, not " + std::to_string(count));
  }
  return device;
}

std::string device_text(const PacedDevice::Options& device) {
  const DeviceSpeed& speed = device.speed;
  std::string out = speed.forward.empty() ? fmt::format("flops = \"{}G\"\nmfu = {}\n", speed.flops_per_s / 1e9, speed.mfu)
                                          : fmt::format("forward = {}\nbackward = {}\n", times_text(speed.forward), times_text(speed.backward));
  if (speed.memory_bytes_per_s > 0) out += fmt::format("memory = \"{}kB\"\n", speed.memory_bytes_per_s / 1e3);
  return out + fmt::format("slowdown = {}\nbulk_scale = {}\n", device.slowdown, device.bulk_scale);
}

}  // namespace stagecoach::app
