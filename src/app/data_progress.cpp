#include "app/data_progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "app/view_text.h"

namespace stagecoach::app {
namespace {

using base::Duration;

constexpr Duration kOnTerminal = Duration::milliseconds(200);
constexpr Duration kInLog = Duration::seconds(10);
constexpr int kBarColumns = 24;

double seconds_between(base::Instant from, base::Instant to) { return (to - from).seconds_f64(); }

}  // namespace

std::string DataProgress::show(const data::BuildProgress& progress, base::Instant now) {
  if (!first_) first_ = progress;
  const base::Instant last = shown_.value_or(begun_);
  if (now - last < (options_.terminal ? kOnTerminal : kInLog)) return {};
  shown_ = now;
  const double seconds = seconds_between(begun_, now);
  const double read = static_cast<double>(progress.read_bytes - first_->read_bytes);
  const double left = static_cast<double>(progress.total_bytes - std::min(progress.read_bytes, progress.total_bytes));
  const double part = progress.total_bytes == 0 ? 1.0 : 1.0 - left / static_cast<double>(progress.total_bytes);
  const double text_rate = static_cast<double>(progress.text_bytes - first_->text_bytes) / std::max(seconds, 1e-9);
  std::string line =
      fmt::format("{:3.0f} %  {} of {}  {:.0f} MB/s of text  {} tokens", std::floor(part * 100),
                  bytes_text(static_cast<double>(progress.read_bytes)),
                  bytes_text(static_cast<double>(progress.total_bytes)), text_rate / 1e6, exact_text(progress.tokens));
  if (progress.broken > 0) line += fmt::format("  {} left out", exact_text(progress.broken));
  if (read > 0) line += "  " + duration_text(left * seconds / read) + " left";
  if (!options_.terminal) return line + "\n";
  bar_ = true;
  const int filled = static_cast<int>(part * kBarColumns);
  std::string bar = "[" + std::string(static_cast<std::size_t>(filled), '#') +
                    std::string(static_cast<std::size_t>(kBarColumns - filled), ' ') + "] ";
  if (static_cast<int>(bar.size() + line.size()) >= options_.columns) bar.clear();
  return "\r\033[K" + (bar + line).substr(0, static_cast<std::size_t>(std::max(options_.columns - 1, 1)));
}

std::string DataProgress::clear() {
  if (!bar_) return {};
  bar_ = false;
  return "\r\033[K";
}

std::string exact_text(std::int64_t count) {
  std::string text = std::to_string(count);
  for (std::size_t at = text.size(); at > 3 && text[at - 4] != '-';) text.insert(at -= 3, ",");
  return text;
}

}  // namespace stagecoach::app
