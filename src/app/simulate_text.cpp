// The report of `stagecoach simulate` as text.
#include <fmt/format.h>

#include <algorithm>

#include "app/account_text.h"
#include "app/simulate.h"

namespace stagecoach::app {
namespace {

using observe::Parts;
using world::sim::kTrafficKinds;
using world::sim::kTrafficNames;

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
  out += fmt::format("\n{}", flush_text(account.all, report.flush_arithmetic()));
  if (report.plan.replicas > 1)
    out += fmt::format("the reduce of a step: up to {} a worker each way; reduce and commit take {:.1f} s of a step's {:.1f} s\n", amount_text(report.reduce_bytes()),
                       account.all.share(Parts::reduce) * step_s(report), step_s(report));
  return out;
}

std::string traffic_text(const SimulateReport& report) {
  const auto& plan = report.plan;
  std::uint64_t most = 0;
  for (const auto& stage : plan.stages) most = std::max(most, stage.boundary_bytes);
  std::string out = fmt::format("a boundary tensor: {} ({} bytes; the largest), each way for each microbatch; a worker: {} up, {} down an hour\n",
                                amount_text(static_cast<double>(most)), most, amount_text(report.per_worker_hour(report.forecast.up)),
                                amount_text(report.per_worker_hour(report.forecast.down)));
  out += fmt::format("{:>12}{:>14}{:>14}{:>14}{:>14}\n", "traffic", "bytes", "messages", "p50", "p99");
  for (std::size_t k = 0; k < kTrafficKinds; ++k) {
    const auto& traffic = report.forecast.traffic[k];
    if (traffic.latency.count() == 0) continue;
    out += fmt::format("{:>12}{:>14}{:>14}{:>14}{:>14}\n", kTrafficNames[k], amount_text(static_cast<double>(traffic.bytes)), traffic.latency.count(),
                       time_text(traffic.latency.quantile(0.5)), time_text(traffic.latency.quantile(0.99)));
  }
  return out;
}

}  // namespace

std::string report_text(const SimulateReport& report) {
  const auto& forecast = report.forecast;
  return head_text(report) + "\n" + parts_table(report.forecast.account) + "\n" + figures_text(report) + "\n" + traffic_text(report) + "\n" + incidents_text(report.forecast.account, base::Instant() + report.forecast.began) +
         fmt::format("every loss and every weight was checked against one machine doing all of it: nothing lost, nothing counted twice\n"
                     "{} events, log hash {:016x}\n",
                     forecast.events, forecast.log_hash);
}

}  // namespace stagecoach::app
