// The report of `stagecoach simulate` as JSON.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "app/simulate.h"

namespace stagecoach::app {
namespace {

using base::Duration;
using nlohmann::ordered_json;
using observe::Parts;
using world::sim::kTrafficKinds;
using world::sim::kTrafficNames;

ordered_json parts_json(const Parts& parts) {
  ordered_json out;
  for (std::size_t i = 0; i < Parts::kCount; ++i) out[Parts::kNames[i]] = parts.time[i].ns();
  return out;
}

ordered_json traffic_json(const SimulateReport& report) {
  ordered_json out;
  for (std::size_t k = 0; k < kTrafficKinds; ++k) {
    const auto& traffic = report.forecast.traffic[k];
    out[kTrafficNames[k]] = {{"bytes", traffic.bytes},
                             {"messages", traffic.latency.count()},
                             {"p50_ns", traffic.latency.quantile(0.5).ns()},
                             {"p99_ns", traffic.latency.quantile(0.99).ns()}};
  }
  return out;
}

ordered_json incidents_json(const SimulateReport& report) {
  ordered_json out = ordered_json::array();
  const auto optional = [](const std::optional<Duration>& d) { return d ? ordered_json(d->ns()) : ordered_json(nullptr); };
  for (const auto& each : report.forecast.account.incidents)
    out.push_back({{"at_ns", (each.at - base::Instant() - report.forecast.began).ns()},
                   {"event", each.what},
                   {"attempts", each.attempts},
                   {"to_work_ns", optional(each.to_work)},
                   {"to_commit_ns", optional(each.to_commit)},
                   {"repeated_ns", each.repeated.ns()},
                   {"repeated_works", each.repeated_works}});
  return out;
}

}  // namespace

std::string report_json(const SimulateReport& report) {
  const auto& forecast = report.forecast;
  const auto& account = forecast.account;
  ordered_json out;
  out["scenario"] = report.scenario.name;
  out["what"] = report.scenario.what;
  out["seed"] = report.plan.seed;
  out["stages"] = report.plan.split.size();
  out["replicas"] = report.plan.replicas;
  out["microbatches"] = report.plan.config.batch.microbatches;
  out["tokens_per_microbatch"] = report.plan.config.batch.tokens_per_microbatch();
  out["bulk_scale"] = report.plan.bulk_scale;
  out["ended"] = forecast.ended.empty() ? ordered_json(nullptr) : ordered_json(forecast.ended);
  out["steps"] = account.steps;
  out["span_ns"] = account.span.ns();
  out["tokens"] = account.tokens;
  out["tokens_per_s"] = report.tokens_per_s();
  const auto mfu = report.mfu();
  out["mfu"] = mfu ? ordered_json(*mfu) : ordered_json(nullptr);
  out["busy"] = account.all.share(Parts::busy);
  out["flush_arithmetic"] = report.flush_arithmetic();
  out["device_ns"] = parts_json(account.all);
  out["stage_device_ns"] = ordered_json::array();
  for (const Parts& stage : account.stages) out["stage_device_ns"].push_back(parts_json(stage));
  out["boundaries"] = ordered_json::array();
  for (std::size_t s = 0; s + 1 < report.plan.stages.size(); ++s)
    out["boundaries"].push_back({{"tensor_bytes", report.plan.stages[s].boundary_bytes},
                                 {"forward_bytes", forecast.forward_bytes[s]},
                                 {"backward_bytes", forecast.backward_bytes[s]}});
  out["worker_up_bytes_per_hour"] = report.per_worker_hour(forecast.up);
  out["worker_down_bytes_per_hour"] = report.per_worker_hour(forecast.down);
  out["reduce_bytes_each_way"] = report.reduce_bytes();
  out["traffic"] = traffic_json(report);
  out["attempts"] = account.attempts;
  out["checkpoints"] = forecast.checkpoints;
  out["workers_lost"] = forecast.workers_lost;
  out["resumes"] = forecast.resumes;
  out["repeated_ns"] = account.repeated.ns();
  out["incidents"] = incidents_json(report);
  out["events"] = forecast.events;
  out["log_hash"] = fmt::format("{:016x}", forecast.log_hash);
  return out.dump(2) + "\n";
}

}  // namespace stagecoach::app
