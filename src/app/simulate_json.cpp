// The report of `stagecoach simulate` as JSON.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "app/account_text.h"
#include "app/simulate.h"

namespace stagecoach::app {
namespace {

using nlohmann::ordered_json;
using world::sim::kTrafficKinds;
using world::sim::kTrafficNames;

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
  add_account(account, base::Instant() + forecast.began, out);
  const auto mfu = report.mfu();
  out["mfu"] = mfu ? ordered_json(*mfu) : ordered_json(nullptr);
  out["flush_arithmetic"] = report.flush_arithmetic();
  out["boundaries"] = ordered_json::array();
  for (std::size_t s = 0; s + 1 < report.plan.stages.size(); ++s)
    out["boundaries"].push_back({{"tensor_bytes", report.plan.stages[s].boundary_bytes},
                                 {"forward_bytes", forecast.forward_bytes[s]},
                                 {"backward_bytes", forecast.backward_bytes[s]}});
  out["worker_up_bytes_per_hour"] = report.per_worker_hour(forecast.up);
  out["worker_down_bytes_per_hour"] = report.per_worker_hour(forecast.down);
  out["reduce_bytes_each_way"] = report.reduce_bytes();
  out["traffic"] = traffic_json(report);
  out["checkpoints"] = forecast.checkpoints;
  out["workers_lost"] = forecast.workers_lost;
  out["resumes"] = forecast.resumes;
  out["events"] = forecast.events;
  out["log_hash"] = fmt::format("{:016x}", forecast.log_hash);
  return out.dump(2) + "\n";
}

}  // namespace stagecoach::app
