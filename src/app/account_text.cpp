// The accounts as text and as JSON.
#include "app/account_text.h"

#include <fmt/format.h>

#include <algorithm>

namespace stagecoach::app {

using base::Duration;
using nlohmann::ordered_json;
using observe::Parts;

namespace {

constexpr std::size_t kIncidentsShown = 200;

std::string parts_row(const std::string& name, const Parts& parts) {
  std::string row = fmt::format("{:>7}", name);
  for (const int each : hundredths(parts)) row += fmt::format("{:>10.2f}", each / 100.0);
  return row + "\n";
}

ordered_json parts_json(const Parts& parts) {
  ordered_json out;
  for (std::size_t i = 0; i < Parts::kCount; ++i) out[Parts::kNames[i]] = parts.time[i].ns();
  return out;
}

ordered_json incidents_json(const observe::AccountTable& account, base::Instant began) {
  ordered_json out = ordered_json::array();
  const auto optional = [](const std::optional<Duration>& d) { return d ? ordered_json(d->ns()) : ordered_json(nullptr); };
  for (const auto& each : account.incidents)
    out.push_back({{"at_ns", (each.at - began).ns()},
                   {"event", each.what},
                   {"attempts", each.attempts},
                   {"to_work_ns", optional(each.to_work)},
                   {"to_commit_ns", optional(each.to_commit)},
                   {"to_new_ns", optional(each.to_new)},
                   {"repeated_ns", each.repeated.ns()},
                   {"repeated_works", each.repeated_works}});
  return out;
}

/// Of the events after which a new step was committed: how long that took.
std::string recovery_text(const observe::AccountTable& account) {
  std::vector<Duration> times;
  for (const auto& each : account.incidents)
    if (each.to_new) times.push_back(*each.to_new);
  if (times.empty()) return fmt::format("{} events, and no new step after any\n", account.incidents.size());
  std::sort(times.begin(), times.end());
  return fmt::format("{} events; until a new step was committed: median {}, longest {}\n", account.incidents.size(), time_text(times[times.size() / 2]),
                     time_text(times.back()));
}

}  // namespace

std::string time_text(Duration d) {
  const double s = d.seconds_f64();
  if (s < 1) return fmt::format("{:.1f} ms", s * 1e3);
  if (s < 120) return fmt::format("{:.1f} s", s);
  if (s < 7200) return fmt::format("{:.1f} min", s / 60);
  return fmt::format("{:.2f} h", s / 3600);
}

std::string amount_text(double bytes) {
  constexpr std::pair<double, const char*> kUnits[] = {{1e12, "TB"}, {1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}};
  for (const auto& [unit, name] : kUnits)
    if (bytes >= unit) return fmt::format("{:.2f} {}", bytes / unit, name);
  return fmt::format("{:.0f} B", bytes);
}

std::string parts_table(const observe::AccountTable& account) {
  std::string out = "device time, %\n" + fmt::format("{:>7}", "stage");
  for (const char* name : Parts::kNames) out += fmt::format("{:>10}", name);
  out += "\n";
  for (std::size_t s = 0; s < account.stages.size(); ++s) out += parts_row(std::to_string(s), account.stages[s]);
  return out + parts_row("all", account.all);
}

std::string incidents_text(const observe::AccountTable& account, base::Instant began) {
  const auto& incidents = account.incidents;
  if (incidents.empty()) return "";
  std::string out = fmt::format("{:>10}{:>10}{:>12}{:>12}{:>12}{:>12}{:>9}  event\n", "at", "attempts", "to work", "to commit", "to new", "repeated", "share, %");
  const auto optional = [](const std::optional<Duration>& d) { return d ? time_text(*d) : std::string("-"); };
  for (std::size_t i = 0; i < std::min(incidents.size(), kIncidentsShown); ++i) {
    const auto& each = incidents[i];
    out += fmt::format("{:>10}{:>10}{:>12}{:>12}{:>12}{:>12}{:>9.2f}  {}\n", time_text(each.at - began), each.attempts, optional(each.to_work),
                       optional(each.to_commit), optional(each.to_new), time_text(each.repeated), 100 * share_of_work(account, each.repeated), each.what);
  }
  if (incidents.size() > kIncidentsShown) out += fmt::format("{:>10} more: --json has them all\n", incidents.size() - kIncidentsShown);
  return out + recovery_text(account) +
         fmt::format("{} of devices' work was done again, {:.2f} % of all that they did\n", time_text(account.repeated), 100 * share_of_work(account, account.repeated));
}

double share_of_work(const observe::AccountTable& account, Duration repeated) {
  const double all = account.all[Parts::busy].seconds_f64() + account.repeated.seconds_f64();
  return all > 0 ? repeated.seconds_f64() / all : 0;
}

double flush_arithmetic(std::size_t stages, std::int64_t microbatches, std::uint64_t replicas) {
  const double others = static_cast<double>(stages) - 1;
  return others / (static_cast<double>(microbatches) / static_cast<double>(replicas) + others);
}

std::string flush_text(const Parts& all, double arithmetic) {
  return fmt::format("flush {:.2f} %, by arithmetic (P − 1) / (M / R + P − 1) = {:.2f} %\n", all.share(Parts::flush) * 100, arithmetic * 100);
}

double tokens_per_s(const observe::AccountTable& account) {
  const double span = account.span.seconds_f64();
  return span > 0 ? static_cast<double>(account.tokens) / span : 0;
}

void add_account(const observe::AccountTable& account, base::Instant began, ordered_json& out) {
  out["steps"] = account.steps;
  out["span_ns"] = account.span.ns();
  out["tokens"] = account.tokens;
  out["tokens_per_s"] = tokens_per_s(account);
  out["busy"] = account.all.share(Parts::busy);
  out["device_ns"] = parts_json(account.all);
  out["stage_device_ns"] = ordered_json::array();
  for (const Parts& stage : account.stages) out["stage_device_ns"].push_back(parts_json(stage));
  out["attempts"] = account.attempts;
  out["repeated_ns"] = account.repeated.ns();
  out["repeated_share"] = share_of_work(account, account.repeated);
  out["incidents"] = incidents_json(account, began);
}

std::vector<int> hundredths(const Parts& parts) {
  const std::int64_t total = parts.total().ns();
  std::vector<int> out(Parts::kCount, 0);
  if (total <= 0) return out;
  std::vector<std::pair<__int128, std::size_t>> rests;  // of the division, largest first
  int sum = 0;
  for (std::size_t i = 0; i < Parts::kCount; ++i) {
    const __int128 scaled = static_cast<__int128>(parts.time[i].ns()) * 10'000;
    out[i] = static_cast<int>(scaled / total);
    sum += out[i];
    rests.emplace_back(-(scaled % total), i);
  }
  std::sort(rests.begin(), rests.end());
  for (std::size_t i = 0; sum < 10'000; ++i, ++sum) ++out[rests[i].second];
  return out;
}

}  // namespace stagecoach::app
