// The report as values and as JSON; the text is in model_report_text.cpp.
#include "app/model_report.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "app/numbers.h"
#include "base/check.h"
#include "model/parameters.h"

namespace stagecoach::app {
namespace {

using nlohmann::ordered_json;

std::int64_t cut_elements(const std::vector<model::ParameterInfo>& list) {
  std::int64_t count = 0;
  for (const model::ParameterInfo& info : list)
    if (info.name.find(".cut.") != std::string::npos) count += info.elements();
  return count;
}

std::string name_of(model::FloatKind kind) { return kind == model::FloatKind::bfloat16 ? "bfloat16" : "float32"; }

std::string name_of(model::SumKind kind) {
  return kind == model::SumKind::fixed64 ? "fixed64" : kind == model::SumKind::float32 ? "float32" : "bfloat16";
}

std::string name_of(model::MemoryPhase phase) {
  return phase == model::MemoryPhase::always ? "always" : phase == model::MemoryPhase::microbatch ? "microbatch" : "closing";
}

model::MemoryOptions memory_options(const ModelReport& report, const model::StagePace& pace) {
  model::MemoryOptions options;
  options.replicas = report.settings.replicas;
  options.separate_device = report.separate_device;
  options.recompute = report.options.assumptions.recompute;
  options.in_flight = std::min(pace.in_flight, report.settings.train.batch.microbatches);
  return options;
}

ordered_json to_json(const StageReport& stage) {
  ordered_json memory;
  for (const model::MemoryPart& part : stage.memory.parts)
    memory[std::string(part.name)] = {{"bytes", part.bytes},
                                      {"on_device", part.place == model::MemoryPlace::device},
                                      {"phase", name_of(part.phase)},
                                      {"arithmetic", part.arithmetic}};
  return {{"first_layer", stage.range.first},
          {"layers", stage.range.last - stage.range.first},
          {"parameters", stage.parameters},
          {"flops_per_token", {{"forward", stage.flops.forward()}, {"train", stage.flops.train()}, {"executed", stage.executed_flops}}},
          {"memory", memory},
          {"memory_peak", stage.memory.peak()},
          {"device_bytes_needed", stage.needed_bytes},
          {"compute_s", stage.pace.compute_s},
          {"transfer_s", stage.pace.transfer_s},
          {"in_flight", stage.pace.in_flight}};
}

}  // namespace

ModelReport model_report(const RunSettings& settings, const ReportOptions& options) {
  ModelReport report;
  report.options = options;
  report.settings = settings;
  settle_numbers(report.settings);
  report.separate_device = report.settings.device != "cpu";
  const model::TrainConfig& config = report.settings.train;
  std::string why;
  report.split = model::balanced_split(config.model, settings.stages, why);
  CHECK(!report.split.empty(), "settings without problems have a split");
  report.pace = model::pace(config, report.split, settings.replicas, options.assumptions);
  for (std::size_t i = 0; i < report.split.size(); ++i) {
    StageReport stage;
    stage.range = report.split[i];
    const auto list = model::parameters(config.model, stage.range);
    stage.parameters = model::total_elements(list);
    stage.flops = model::token_flops(config.model, stage.range, config.batch.tokens);
    stage.executed_flops = model::executed_flops(config.model, stage.range, config.batch.tokens, options.assumptions.recompute);
    stage.pace = report.pace.stages[i];
    stage.memory = model::stage_memory(config, stage.range, memory_options(report, stage.pace));
    stage.needed_bytes = report.separate_device ? stage.memory.peak(model::MemoryPlace::device) : stage.memory.peak();
    report.parameters += stage.parameters;
    report.cut_parameters += cut_elements(list);
    report.flops.products += stage.flops.products;
    report.flops.attention += stage.flops.attention;
    report.stages.push_back(std::move(stage));
  }
  return report;
}

const StageReport& ModelReport::largest() const {
  return *std::max_element(stages.begin(), stages.end(), [](const StageReport& a, const StageReport& b) { return a.needed_bytes < b.needed_bytes; });
}

std::string report_json(const ModelReport& report) {
  const model::TrainConfig& config = report.settings.train;
  const model::Assumptions& assumed = report.options.assumptions;
  ordered_json out;
  out["model"] = report.options.title;
  out["parameters"] = report.parameters;
  out["parameters_without_cuts"] = report.plain_parameters();
  if (report.options.preset != nullptr && report.options.preset->published > 0) out["published_parameters"] = report.options.preset->published;
  if (report.options.preset != nullptr && !report.options.preset->remark.empty()) out["remark"] = std::string(report.options.preset->remark);
  const model::ModelConfig& m = config.model;
  out["dimensions"] = {{"dim", m.dim}, {"layers", m.layers}, {"heads", m.heads}, {"kv_heads", m.kv_heads}, {"ffn", m.ffn}, {"vocab", m.vocab}, {"cut_width", m.cut_width}};
  out["numbers"] = {{"compute", name_of(config.numbers.compute)}, {"state", name_of(config.numbers.state)}, {"sums", name_of(config.numbers.sums)}};
  out["tokens_per_microbatch"] = config.batch.tokens_per_microbatch();
  out["flops_per_token"] = {{"forward", report.flops.forward()}, {"attention", report.flops.attention}, {"train", report.flops.train()}};
  ordered_json boundaries = ordered_json::array();
  for (std::size_t i = 0; i + 1 < report.split.size(); ++i) {
    const std::int64_t layer = report.split[i].last - 1;
    boundaries.push_back({{"after_layer", layer},
                          {"bytes", config.boundary_bytes(layer)},
                          {"bytes_without_cut", config.batch.tokens_per_microbatch() * config.model.dim * model::bytes_of(config.numbers.compute)}});
  }
  out["boundaries"] = boundaries;
  out["assumed"] = {{"device_flops_per_s", assumed.device_flops_per_s},
                    {"mfu", assumed.mfu},
                    {"uplink_bytes_per_s", assumed.uplink_bytes_per_s},
                    {"round_trip_s", assumed.round_trip_s},
                    {"recompute", assumed.recompute},
                    {"separate_device", report.separate_device}};
  out["slowest_stage_s"] = report.pace.slowest_s;
  out["latency_s"] = report.pace.latency_s;
  out["flush"] = report.pace.flush;
  out["stages"] = ordered_json::array();
  for (const StageReport& stage : report.stages) out["stages"].push_back(to_json(stage));
  if (report.options.device_bytes) {
    out["device_bytes"] = *report.options.device_bytes;
    out["fits"] = report.fits();
  }
  return out.dump(2) + "\n";
}

}  // namespace stagecoach::app
