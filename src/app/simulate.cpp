// From a scenario to a plan, and what follows from both.
#include "app/simulate.h"

#include <algorithm>
#include <cmath>

#include "app/account_text.h"
#include "model/arithmetic.h"

namespace stagecoach::app {
namespace {

using base::Duration;
using world::sim::PathChange;
using world::sim::Plan;
using world::sim::PlannedEvent;
using world::paced::StageLoad;

constexpr Duration kForever = Duration::nanoseconds(std::int64_t{1} << 61);

StageLoad load_of(const ScenarioDevice& device, const RunSettings& settings, const model::StageRange& range, std::size_t stage) {
  return world::paced::load_of(device, settings.train, range, stage, settings.recompute != compute::Recompute::never);
}

PathChange path_of(const ScenarioPath& path) {
  PathChange out;
  out.ends = path.ends.kind == ScenarioEnds::Kind::everywhere ? PathChange::Ends::all
             : path.ends.kind == ScenarioEnds::Kind::sites    ? PathChange::Ends::sites
                                                              : PathChange::Ends::hosts;
  out.a = path.ends.a, out.b = path.ends.b;
  out.round_trip = path.round_trip, out.jitter = path.jitter, out.loss = path.loss;
  return out;
}

/// How long a stop lasts that does not say so: until its `continue`, or to the end.
Duration stop_length(const Scenario& scenario, const ScenarioEvent& stop) {
  if (stop.length) return *stop.length;
  for (const ScenarioEvent& event : scenario.events)
    if (event.kind == ScenarioEvent::Kind::resume && event.host == stop.host && event.at >= stop.at) return event.at - stop.at;
  return kForever;
}

base::Result<std::optional<PlannedEvent>> event_of(const Scenario& scenario, const ScenarioEvent& event) {
  using Kind = ScenarioEvent::Kind;
  PlannedEvent out;
  out.at = event.at;
  out.node = event.host.value_or(0);
  out.length = event.length.value_or(kForever);
  const bool between = event.path.ends.kind != ScenarioEnds::Kind::everywhere;
  switch (event.kind) {
    case Kind::kill: out.kind = PlannedEvent::Kind::kill; break;
    case Kind::restart: out.kind = PlannedEvent::Kind::restart; break;
    case Kind::stop: out.kind = PlannedEvent::Kind::stop, out.length = stop_length(scenario, event); break;
    case Kind::cut: out.kind = between ? PlannedEvent::Kind::cut_between : PlannedEvent::Kind::cut, out.path = path_of(event.path); break;
    case Kind::degrade:
      out.kind = between ? PlannedEvent::Kind::degrade_path : PlannedEvent::Kind::degrade_host;
      if (event.up_bytes_per_s) out.up = *event.up_bytes_per_s * scenario.goodput;
      if (event.down_bytes_per_s) out.down = *event.down_bytes_per_s * scenario.goodput;
      out.path = path_of(event.path);
      break;
    case Kind::resume:  // the end of its stop
    case Kind::move: return std::optional<PlannedEvent>();  // links survive a change of address: docs/SIMULATE.md
    case Kind::join:
      return base::Error{base::ErrorCode::invalid_argument, "a run takes no workers after it has begun, so that nothing can be told about join: leave the event out"};
  }
  if (out.node == 0 && !between && (out.kind == PlannedEvent::Kind::kill || out.kind == PlannedEvent::Kind::stop || out.kind == PlannedEvent::Kind::restart))
    return base::Error{base::ErrorCode::invalid_argument, "kill, stop and restart strike workers here, not the coordinator: name a worker"};
  return std::optional<PlannedEvent>(out);
}

base::Result<void> add_events(const Scenario& scenario, Plan& plan) {
  for (const ScenarioEvent& event : scenario.events) {
    auto planned = event_of(scenario, event);
    if (!planned) return planned.error();
    if (*planned) plan.events.push_back(**planned);
  }
  if (!scenario.churn) return {};
  const ScenarioChurn& churn = *scenario.churn;
  world::sim::Churn out;
  using Kind = ScenarioEvent::Kind;
  out.kind = churn.kind == Kind::stop      ? PlannedEvent::Kind::stop
             : churn.kind == Kind::cut     ? PlannedEvent::Kind::cut
             : churn.kind == Kind::restart ? PlannedEvent::Kind::restart
                                           : PlannedEvent::Kind::kill;
  out.every = churn.every;
  out.length = churn.length.value_or(kForever);
  out.from = churn.from;
  if (churn.until) out.until = *churn.until;
  plan.churn = out;
  return {};
}

base::Result<void> add_hosts(const Scenario& scenario, Plan& plan) {
  const auto lines = [&](const ScenarioHost& host) {
    return world::sim::HostLines{host.up_bytes_per_s * scenario.goodput, host.down_bytes_per_s * scenario.goodput};
  };
  plan.hosts.push_back({"coordinator", scenario.coordinator.site, lines(scenario.coordinator), 1});
  const std::size_t stages = plan.split.size();
  for (std::size_t i = 0; i < scenario.workers.size(); ++i) {
    const ScenarioHost& host = scenario.workers[i];
    const ScenarioDevice* device = scenario.device_of(host);
    if (device == nullptr)
      return base::Error{base::ErrorCode::invalid_argument, "host " + host.name + " computes on \"" + host.device + "\", whose speed nobody has told: give [devices." +
                                                                host.device + "] or device = \"paced:NAME\""};
    if (host.later) return base::Error{base::ErrorCode::invalid_argument, "host " + host.name + " joins later, which a run does not take: leave it out"};
    const std::size_t stage = i % stages;
    // The stages' loads are those of the first worker's device; another device is so much slower.
    const StageLoad mine = load_of(*device, scenario.settings, plan.split[stage], stage);
    const StageLoad& load = plan.stages[stage];
    const auto usual = static_cast<double>((load.forward + load.backward).ns());
    const double ratio = usual > 0 ? static_cast<double>((mine.forward + mine.backward).ns()) / usual : 1;
    plan.hosts.push_back({host.name, host.site, lines(host), host.slowdown * ratio});
  }
  return {};
}

}  // namespace

base::Result<Plan> plan_of(const Scenario& scenario) {
  const RunSettings& settings = scenario.settings;
  Plan plan;
  plan.seed = scenario.seed;
  plan.config = settings.train;
  std::string why;
  plan.split = model::balanced_split(plan.config.model, settings.stages, why);
  if (plan.split.empty()) return base::Error{base::ErrorCode::invalid_argument, why};
  plan.replicas = static_cast<std::uint64_t>(settings.replicas);
  plan.checkpoint_every = static_cast<std::uint64_t>(settings.checkpoint_every);
  if (scenario.duration) plan.duration = *scenario.duration;
  if (scenario.workers.empty()) return base::Error{base::ErrorCode::invalid_argument, "a scenario needs [[hosts]] to run on"};
  const ScenarioDevice* usual = scenario.device_of(scenario.workers.front());
  for (std::size_t s = 0; usual != nullptr && s < plan.split.size(); ++s) plan.stages.push_back(load_of(*usual, settings, plan.split[s], s));
  if (usual == nullptr) plan.stages.resize(plan.split.size());
  RETURN_IF_ERROR(add_hosts(scenario, plan));
  plan.round_trips = scenario.round_trips;
  plan.jitter = scenario.jitter;
  plan.loss = scenario.loss;
  plan.burst = scenario.burst;
  for (const ScenarioPath& path : scenario.paths) plan.paths.push_back(path_of(path));
  plan.initial_window = scenario.initial_window_bytes;
  plan.bulk_scale = scenario.bulk_scale;
  plan.spread = scenario.spread;
  plan.disk = scenario.disk;
  plan.prepare = scenario.prepare;
  plan.resume = scenario.resume;
  RETURN_IF_ERROR(add_events(scenario, plan));
  return plan;
}

double SimulateReport::tokens_per_s() const { return app::tokens_per_s(forecast.account); }

std::optional<double> SimulateReport::mfu() const {
  double peak = 0, per_token = 0;
  for (const ScenarioHost& host : scenario.workers) {
    const ScenarioDevice* device = scenario.device_of(host);
    if (device == nullptr || device->flops_per_s <= 0) return std::nullopt;
    peak += device->flops_per_s;
  }
  const model::TrainConfig& config = plan.config;
  for (const model::StageRange& range : plan.split) per_token += static_cast<double>(model::token_flops(config.model, range, config.batch.tokens).train());
  return per_token * tokens_per_s() / peak;
}

double SimulateReport::flush_arithmetic() const {
  return app::flush_arithmetic(plan.split.size(), plan.config.batch.microbatches, plan.replicas);
}

double SimulateReport::per_worker_hour(const std::vector<std::uint64_t>& bytes) const {
  double sum = 0;
  for (std::size_t n = 1; n < bytes.size(); ++n) sum += static_cast<double>(bytes[n]);
  const double hours = (forecast.virtual_time - forecast.began).seconds_f64() / 3600;
  return hours > 0 ? sum / static_cast<double>(bytes.size() - 1) / hours : 0;
}

double SimulateReport::reduce_bytes() const {
  std::uint64_t most = 0;
  for (const auto& stage : plan.stages) most = std::max(most, stage.sum_bytes);
  const auto members = static_cast<double>(plan.replicas);
  return static_cast<double>(most) * plan.bulk_scale * 2 * (members - 1) / members;
}

}  // namespace stagecoach::app
