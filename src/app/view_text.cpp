#include "app/view_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

namespace stagecoach::app {
namespace {

struct CodePoint {
  std::uint32_t value = 0;
  std::size_t bytes = 0;  // 0 = the bytes are no UTF-8
};

CodePoint code_point_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(at);
  if (first < 0x80) return {first, 1};
  const std::size_t size = first >= 0xf0 && first < 0xf5 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 0;
  if (size == 0 || first >= 0xf5 || at + size > text.size()) return {};
  std::uint32_t value = first & (0xffu >> (size + 1));
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(at + i) & 0xc0) != 0x80) return {};
    value = value << 6 | (byte(at + i) & 0x3f);
  }
  static constexpr std::array<std::uint32_t, 5> kLeast = {0, 0, 0x80, 0x800, 0x10000};
  if (value < kLeast[size] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return {};
  return {value, size};
}

bool moves_or_hides(std::uint32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
         (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || c == 0xad;
}

std::size_t columns_of(std::uint32_t c) {
  const bool wide = (c >= 0x1100 && c < 0x1160) || (c >= 0x2e80 && c < 0xa4d0) || (c >= 0xac00 && c < 0xd7a4) ||
                    (c >= 0xf900 && c < 0xfb00) || (c >= 0xfe30 && c < 0xfe70) || (c >= 0xff00 && c < 0xff61) ||
                    c >= 0x1f000;
  return wide ? 2 : 1;
}

/// Length of the colour sequence at `at` ("ESC [ digits m"), 0 where there is none.
std::size_t colour_at(std::string_view text, std::size_t at) {
  if (text[at] != '\x1b' || at + 1 >= text.size() || text[at + 1] != '[') return 0;
  std::size_t end = at + 2;
  while (end < text.size() && (std::isdigit(static_cast<unsigned char>(text[end])) || text[end] == ';')) ++end;
  return end < text.size() && text[end] == 'm' ? end + 1 - at : 0;
}

/// A number with three digits that count and a decimal prefix.
std::string scaled(double value, std::string_view space, std::string_view unit, bool bytes) {
  static constexpr std::array<std::string_view, 6> kPrefixes = {"", "k", "M", "G", "T", "P"};
  if (!std::isfinite(value) || value < 0) value = 0;
  std::size_t prefix = 0;
  // 999.5 rounds to four digits, which the next prefix shows in three.
  while (value >= 999.5 && prefix + 1 < kPrefixes.size()) {
    value /= 1000;
    ++prefix;
  }
  const int decimals = prefix == 0 ? 0 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f}{}{}{}", value, decimals, space, kPrefixes[prefix], bytes ? unit : "");
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (c.bytes == 0 || moves_or_hides(c.value))
      out += '?';
    else
      out += text.substr(at, c.bytes);
    at += std::max<std::size_t>(c.bytes, 1);
  }
  return out;
}

std::size_t width_of(std::string_view text) {
  std::size_t columns = 0;
  for (std::size_t at = 0; at < text.size();) {
    if (const std::size_t skip = colour_at(text, at)) {
      at += skip;
      continue;
    }
    const CodePoint c = code_point_at(text, at);
    columns += columns_of(c.value);
    at += std::max<std::size_t>(c.bytes, 1);
  }
  return columns;
}

std::string clipped(std::string_view text, std::size_t columns, const ViewOptions& options) {
  if (width_of(text) <= columns) return std::string(text);
  if (columns == 0) return "";
  std::string out;
  std::size_t used = 0;
  bool coloured = false;
  for (std::size_t at = 0; at < text.size();) {
    if (const std::size_t skip = colour_at(text, at)) {
      out += text.substr(at, skip);
      coloured = true;
      at += skip;
      continue;
    }
    const CodePoint c = code_point_at(text, at);
    const std::size_t bytes = std::max<std::size_t>(c.bytes, 1);
    if (used + columns_of(c.value) > columns - 1) break;
    used += columns_of(c.value);
    out += text.substr(at, bytes);
    at += bytes;
  }
  out += options.unicode ? "…" : "~";
  if (coloured) out += "\x1b[0m";
  return out;
}

std::string padded(std::string_view text, std::size_t columns, const ViewOptions& options) {
  std::string out = clipped(text, columns, options);
  const std::size_t width = width_of(out);
  if (width < columns) out.append(columns - width, ' ');
  return out;
}

std::string bar(double fraction, std::size_t columns, const ViewOptions& options) {
  const double filled = std::isfinite(fraction) ? std::clamp(fraction, 0.0, 1.0) * static_cast<double>(columns) : 0;
  std::string out;
  if (!options.unicode) {
    for (std::size_t i = 0; i < columns; ++i) out += static_cast<double>(i) + 0.5 <= filled ? '#' : '.';
    return out;
  }
  static constexpr std::array<std::string_view, 8> kPartial = {"░", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  for (std::size_t i = 0; i < columns; ++i) {
    const double rest = filled - static_cast<double>(i);
    if (rest >= 1)
      out += "█";
    else
      out += kPartial[rest > 0 ? static_cast<std::size_t>(rest * 8) : 0];
  }
  return out;
}

std::string sparkline(const std::vector<observe::LossPoint>& points, std::size_t columns, const ViewOptions& options) {
  if (points.empty() || columns == 0) return "";
  const std::size_t count = std::min(points.size(), columns);
  // Every character stands for an equal run of points and shows their mean, so that the whole run stays in sight.
  std::vector<double> values;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t first = i * points.size() / count;
    const std::size_t last = (i + 1) * points.size() / count;
    double sum = 0;
    for (std::size_t j = first; j < last; ++j) sum += points[j].nats_per_token;
    values.push_back(sum / static_cast<double>(last - first));
  }
  double low = HUGE_VAL;
  double high = -HUGE_VAL;
  for (const double value : values)
    if (std::isfinite(value)) low = std::min(low, value), high = std::max(high, value);
  static constexpr std::array<std::string_view, 8> kBlocks = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  static constexpr std::array<std::string_view, 8> kAscii = {"_", ".", "-", "~", "=", "+", "*", "#"};
  std::string out;
  for (const double value : values) {
    const double height = std::isfinite(value) && high > low ? (value - low) / (high - low) : 0;
    const std::size_t level = static_cast<std::size_t>(std::lround(height * 7));
    out += options.unicode ? kBlocks[level] : kAscii[level];
  }
  return out;
}

std::string bytes_per_s_text(double bytes_per_s) { return scaled(bytes_per_s, " ", "B/s", true); }
std::string bytes_text(double bytes) { return scaled(bytes, " ", "B", true); }
std::string count_text(double count) { return scaled(count, "", "", false); }

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) seconds = 0;
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  // A bound that keeps the integer below in range: three thousand years.
  const auto whole = static_cast<std::int64_t>(std::min(seconds, 1e11) + 0.5);
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
  return fmt::format("{} d {:02} h", whole / 86400, whole / 3600 % 24);
}

std::string loss_text(const std::optional<double>& loss, const ViewOptions& options) {
  if (!loss) return options.unicode ? "–" : "-";
  return fmt::format("{:.4f}", *loss);
}

}  // namespace stagecoach::app
