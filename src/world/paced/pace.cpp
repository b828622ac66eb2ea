#include "world/paced/pace.h"

#include <cmath>

#include "base/check.h"
#include "model/arithmetic.h"
#include "model/parameters.h"

namespace stagecoach::world::paced {

using base::Duration;

namespace {

constexpr std::int64_t kTokenIdBytes = 4;

Duration seconds(double s) { return Duration::nanoseconds(std::llround(s * 1e9)); }

Duration memory_time(const StageLoad& load, double bytes) { return load.memory_bytes_per_s > 0 ? seconds(bytes / load.memory_bytes_per_s) : Duration(); }

const Duration& pick(const std::vector<Duration>& list, std::size_t stage) {
  CHECK(list.size() == 1 || stage < list.size(), "a device has one time, or one for each stage");
  return list.size() == 1 ? list[0] : list[stage];
}

void set_times(StageLoad& load, const DeviceSpeed& device, const model::TrainConfig& config, const model::StageRange& range, std::size_t stage,
               bool recompute) {
  if (!device.forward.empty()) {
    load.forward = pick(device.forward, stage);
    load.backward = pick(device.backward, stage);
    return;
  }
  const auto tokens = static_cast<double>(config.batch.tokens_per_microbatch());
  const auto forward = static_cast<double>(model::token_flops(config.model, range, config.batch.tokens).forward()) * tokens;
  const auto all = static_cast<double>(model::executed_flops(config.model, range, config.batch.tokens, recompute)) * tokens;
  // As model::Assumptions has it: mfu counts three forwards of the four that are executed.
  const double executed_per_s = device.flops_per_s * device.mfu * 4 / 3;
  const bool tail = range.last == config.model.layers;
  load.forward = seconds(forward / executed_per_s);
  load.backward = seconds((tail ? all : all - forward) / executed_per_s);
}

}  // namespace

const std::map<std::string, DeviceSpeed>& named_devices() {
  // Dense peaks in bf16; of the RTX 4090 with fp32 sums.
  static const std::map<std::string, DeviceSpeed> kNamed = {
      {"a100", {312e12, 0.4, {}, {}, 0}}, {"h100", {989e12, 0.4, {}, {}, 0}}, {"rtx4090", {165e12, 0.4, {}, {}, 0}}};
  return kNamed;
}

StageLoad load_of(const DeviceSpeed& device, const model::TrainConfig& config, const model::StageRange& range, std::size_t stage, bool recompute) {
  StageLoad load;
  set_times(load, device, config, range, stage, recompute);
  load.memory_bytes_per_s = device.memory_bytes_per_s;
  if (range.last < config.model.layers) load.boundary_bytes = static_cast<std::uint64_t>(config.boundary_bytes(range.last - 1));
  load.token_bytes = static_cast<std::uint64_t>(config.batch.sequences * (config.batch.tokens + 1) * kTokenIdBytes);  // and the last one's successor
  for (const model::ParameterInfo& info : model::parameters(config.model, range)) {
    const auto kept = 1 + static_cast<std::int64_t>(model::moment_prefixes(model::update_rule(config.optimizer, info)).size());
    load.sum_bytes += static_cast<std::uint64_t>(info.elements() * model::bytes_of(config.numbers.sums));
    load.state_bytes += static_cast<std::uint64_t>(info.elements() * kept * model::bytes_of(config.numbers.state));
  }
  return load;
}

Duration time_of(const StageLoad& load, const worker::ComputeRequest& request, double share) {
  const auto sums = static_cast<double>(load.sum_bytes), state = static_cast<double>(load.state_bytes);
  if (std::holds_alternative<worker::Forward>(request) || std::holds_alternative<worker::Evaluate>(request)) return load.forward;
  if (std::holds_alternative<worker::Backward>(request)) return load.backward;
  if (const auto* add = std::get_if<worker::AddParts>(&request)) return memory_time(load, sums * share * static_cast<double>(add->parts.size() + 1));
  if (std::holds_alternative<worker::ReadSum>(request)) return memory_time(load, sums * share);
  // Who is its whole group has nothing to write: it reads its own sum once.
  if (const auto* write = std::get_if<worker::WriteReduced>(&request)) return memory_time(load, write->sums.empty() ? sums : 2 * sums);
  if (std::holds_alternative<worker::Apply>(request)) return memory_time(load, sums + 2 * state);
  if (std::holds_alternative<worker::ExportState>(request)) return memory_time(load, state);
  return Duration();
}

bool is_arithmetic(const worker::ComputeRequest& request) {
  return std::holds_alternative<worker::Forward>(request) || std::holds_alternative<worker::Evaluate>(request) ||
         std::holds_alternative<worker::Backward>(request);
}

}  // namespace stagecoach::world::paced
