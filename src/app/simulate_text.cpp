// The report of `stagecoach simulate` as text.
#include <fmt/format.h>

#include <algorithm>

#include "app/simulate.h"

namespace stagecoach::app {
namespace {

using base::Duration;
using observe::Parts;
using world::sim::kTrafficKinds;
using world::sim::kTrafficNames;

constexpr std::size_t kIncidentsShown = 20;

std::string time_text(Duration d) {
  const double s = d.seconds_f64();
  if (s < 1) return fmt::format("{:.1f} ms", s * 1e3);
  if (s < 120) return fmt::format("{:.1f} s", s);
  if (s < 7200) return fmt::format("{:.1f} min", s / 60);
  return fmt::format("{:.2f} h", s / 3600);
}

std::string bytes_text(double bytes) {
  constexpr std::pair<double, const char*> kUnits[] = {{1e12, "TB"}, {1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}};
  for (const auto& [unit, name] : kUnits)
    if (bytes >= unit) return fmt::format("{:.2f} {}", bytes / unit, name);
  return fmt::format("{:.0f} B", bytes);
}

std::string parts_row(const std::string& name, const Parts& parts) {
  std::string row = fmt::format("{:>7}", name);
  for (const int each : hundredths(parts)) row += fmt::format("{:>10.2f}", each / 100.0);
  return row + "\n";
}

std::string parts_table(const SimulateReport& report) {
  std::string out = "device time, %\n" + fmt::format("{:>7}", "stage");
  for (const char* name : Parts::kNames) out += fmt::format("{:>10}", name);
  out += "\n";
  const auto& account = report.forecast.account;
  for (std::size_t s = 0; s < account.stages.size(); ++s) out += parts_row(std::to_string(s), account.stages[s]);
  return out + parts_row("all", account.all);
}

double step_s(const SimulateReport& report) {
  const auto& account = report.forecast.account;
  return account.steps > 0 ? account.span.seconds_f64() / static_cast<double>(account.steps) : 0;
}

std::string head_text(const SimulateReport& report) {
  const auto& account = report.forecast.account;
  const auto& config = report.plan.config;
  std::string out = fmt::format("{}: {}\n", report.scenario.name, report.scenario.what);
  out += fmt::format("{} stages × {} replicas, steps of {} microbatches of {} tokens, seed {}\n", report.plan.split.size(), report.plan.replicas,
                     config.batch.microbatches, config.batch.tokens_per_microbatch(), report.plan.seed);
  if (report.plan.bulk_scale != 1) out += fmt::format("bulk traffic (sums, checkpoints) shrunk to {} of its bytes\n", report.plan.bulk_scale);
  out += fmt::format("{} steps committed in {}, {:.1f} s each; {} attempts, {} checkpoints, {} workers lost, {} resumes\n", account.steps,
                     time_text(account.span), step_s(report), account.attempts, report.forecast.checkpoints, report.forecast.workers_lost,
                     report.forecast.resumes);
  if (!report.forecast.ended.empty()) out += "the run ended early: " + report.forecast.ended + "\n";
  return out;
}

std::string figures_text(const SimulateReport& report) {
  const auto& account = report.forecast.account;
  std::string out = fmt::format("{:.0f} tokens/s", report.tokens_per_s());
  if (const auto mfu = report.mfu()) out += fmt::format(", MFU {:.2f} %", *mfu * 100);
  out += fmt::format("\nflush {:.2f} %, by arithmetic (P − 1) / (M / R + P − 1) = {:.2f} %\n", account.all.share(Parts::flush) * 100, report.flush_arithmetic() * 100);
  if (report.plan.replicas > 1)
    out += fmt::format("the reduce of a step: up to {} a worker each way; reduce and commit take {:.1f} s of a step's {:.1f} s\n", bytes_text(report.reduce_bytes()),
                       account.all.share(Parts::reduce) * step_s(report), step_s(report));
  return out;
}

std::string traffic_text(const SimulateReport& report) {
  const auto& plan = report.plan;
  std::uint64_t most = 0;
  for (const auto& stage : plan.stages) most = std::max(most, stage.boundary_bytes);
  std::string out = fmt::format("a boundary tensor: {} ({} bytes; the largest), each way for each microbatch; a worker: {} up, {} down an hour\n",
                                bytes_text(static_cast<double>(most)), most, bytes_text(report.per_worker_hour(report.forecast.up)),
                                bytes_text(report.per_worker_hour(report.forecast.down)));
  out += fmt::format("{:>12}{:>14}{:>14}{:>14}{:>14}\n", "traffic", "bytes", "messages", "p50", "p99");
  for (std::size_t k = 0; k < kTrafficKinds; ++k) {
    const auto& traffic = report.forecast.traffic[k];
    if (traffic.latency.count() == 0) continue;
    out += fmt::format("{:>12}{:>14}{:>14}{:>14}{:>14}\n", kTrafficNames[k], bytes_text(static_cast<double>(traffic.bytes)), traffic.latency.count(),
                       time_text(traffic.latency.quantile(0.5)), time_text(traffic.latency.quantile(0.99)));
  }
  return out;
}

std::string incidents_text(const SimulateReport& report) {
  const auto& incidents = report.forecast.account.incidents;
  if (incidents.empty()) return "";
  std::string out = fmt::format("{:>10}{:>10}{:>14}{:>14}{:>14}  event\n", "at", "attempts", "to work", "to commit", "repeated");
  const auto optional = [](const std::optional<Duration>& d) { return d ? time_text(*d) : std::string("-"); };
  for (std::size_t i = 0; i < std::min(incidents.size(), kIncidentsShown); ++i) {
    const auto& each = incidents[i];
    out += fmt::format("{:>10}{:>10}{:>14}{:>14}{:>14}  {}\n", time_text(each.at - base::Instant() - report.forecast.began), each.attempts, optional(each.to_work),
                       optional(each.to_commit), time_text(each.repeated), each.what);
  }
  if (incidents.size() > kIncidentsShown) out += fmt::format("{:>10} more: --json has them all\n", incidents.size() - kIncidentsShown);
  return out + fmt::format("{} of devices' work was done again\n", time_text(report.forecast.account.repeated));
}

}  // namespace

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

std::string report_text(const SimulateReport& report) {
  const auto& forecast = report.forecast;
  return head_text(report) + "\n" + parts_table(report) + "\n" + figures_text(report) + "\n" + traffic_text(report) + "\n" + incidents_text(report) +
         fmt::format("every loss and every weight was checked against one machine doing all of it: nothing lost, nothing counted twice\n"
                     "{} events, log hash {:016x}\n",
                     forecast.events, forecast.log_hash);
}

}  // namespace stagecoach::app
