// The report for a terminal. See model_report.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "app/model_report.h"
#include "app/view_text.h"
#include "model/parameters.h"

namespace stagecoach::app {
namespace {

using model::grouped;
using model::MemoryPart;
using model::MemoryPhase;
using model::MemoryPlace;

constexpr double kGiga = 1e9;

std::string row(const std::string& label, const std::string& text) { return fmt::format("{:<12}{}\n", label, text); }
std::string more(const std::string& text) { return row("", text); }

std::string gigabytes(std::int64_t bytes) {
  const double value = static_cast<double>(bytes) / kGiga;
  return fmt::format("{:.{}f}", value, value < 0.995 ? 3 : value < 99.95 ? 2 : 1);
}

std::string mebibytes(std::int64_t bytes) {
  const double value = static_cast<double>(bytes) / 0x1p20;
  return fmt::format("{:.{}f} MiB", value, value < 10 ? 3 : 1);
}

std::string seconds(double value) {
  if (value < 1e-3) return fmt::format("{:.0f} µs", value * 1e6);
  return value < 1 ? fmt::format("{:.3g} ms", value * 1e3) : fmt::format("{:.3g} s", value);
}

std::string head_text(const ModelReport& report) {
  const model::ModelConfig& m = report.settings.train.model;
  std::string out = fmt::format("{}: {} layers of width {}, {} heads ({} for keys and values), FFN {}, vocabulary {}\n\n", report.options.title,
                                m.layers, grouped(m.dim), m.heads, m.kv_heads, grouped(m.ffn), grouped(m.vocab));
  std::string sum = grouped(report.parameters);
  if (report.cut_parameters > 0)
    sum += fmt::format(" = {} + {} of {} cuts of width {}", grouped(report.plain_parameters()), grouped(report.cut_parameters), m.cut_after.size(), m.cut_width);
  out += row("parameters", sum);
  if (const model::Preset* preset = report.options.preset) {
    if (preset->published > 0 && preset->published != report.plain_parameters())
      out += more(fmt::format("published as {}: {}", grouped(preset->published), preset->remark));
    else if (!preset->remark.empty())
      out += more(std::string(preset->remark));
  }
  out += row("stages", fmt::format("{} of {} layers; {} replica{} each", report.split.size(), model::layers_text(report.split), report.settings.replicas,
                                   report.settings.replicas == 1 ? "" : "s"));
  return out;
}

std::string flops_text(const ModelReport& report) {
  const model::TokenFlops& f = report.flops;
  std::int64_t executed = 0;
  for (const StageReport& stage : report.stages) executed += stage.executed_flops;
  const auto scaled = [](std::int64_t flops) { return fmt::format("{:.4g}", static_cast<double>(flops)); };
  std::string out = row("FLOPs", fmt::format("forward, a token: products {} (2 × inner × outer each) + attention {} (2·H·h·(S + 1) a layer) = {}",
                                             scaled(f.products), scaled(f.attention), scaled(f.forward())));
  out += more(fmt::format("trained: 3 × forward = {}; with forwards computed twice {}; (6 × parameters = {})", scaled(f.train()), scaled(executed),
                          scaled(6 * report.plain_parameters())));
  return out;
}

std::string boundary_text(const ModelReport& report) {
  if (report.split.size() < 2) return row("boundary", "none: one stage");
  const model::TrainConfig& config = report.settings.train;
  const std::int64_t tokens = config.batch.tokens_per_microbatch(), bytes_each = model::bytes_of(config.numbers.compute);
  std::string out;
  // Cuts are alike but where some edges have none.
  std::vector<std::int64_t> widths;
  for (std::size_t i = 0; i + 1 < report.split.size(); ++i) widths.push_back(config.model.boundary_width(report.split[i].last - 1));
  std::sort(widths.begin(), widths.end());
  widths.erase(std::unique(widths.begin(), widths.end()), widths.end());
  for (const std::int64_t width : widths) {
    out += row(out.empty() ? "boundary" : "", fmt::format("{} a microbatch and direction: {} tokens × {} × {} bytes; without the cut {}: {:.4g} to 1",
                                                          mebibytes(tokens * width * bytes_each), grouped(tokens), width, bytes_each,
                                                          mebibytes(tokens * config.model.dim * bytes_each), static_cast<double>(config.model.dim) / static_cast<double>(width)));
  }
  return out;
}

bool alike(const StageReport& a, const StageReport& b) {
  return a.parameters == b.parameters && a.needed_bytes == b.needed_bytes && a.range.last - a.range.first == b.range.last - b.range.first;
}

std::string verdict(const ModelReport& report, const StageReport& stage) {
  if (!report.options.device_bytes) return "";
  const std::int64_t left = *report.options.device_bytes - stage.needed_bytes;
  return left >= 0 ? fmt::format("  fits, {} left", gigabytes(left)) : fmt::format("  too large by {}", gigabytes(-left));
}

/// A part's name as a column's head: marked where it lies on the host, and by the phase that it is there in.
std::string heading(const ModelReport& report, const MemoryPart& part) {
  const bool host = report.separate_device && part.place == MemoryPlace::host;
  const std::string phase = part.phase == MemoryPhase::closing ? "²" : part.phase == MemoryPhase::microbatch ? "¹" : "";
  return std::string(part.name) + phase + (host ? "*" : "");
}

std::size_t column_of(const MemoryPart& part) { return std::max<std::size_t>(part.name.size() + 3, 9); }

std::string right(const std::string& text, std::size_t columns) {
  return std::string(columns - std::min(columns, width_of(text)), ' ') + text;
}

std::string memory_table(const ModelReport& report) {
  std::string out = fmt::format("\nMemory of a worker, GB (10⁹ bytes): ¹ while microbatches are computed, ² at the end of a step, which never meet{}\n",
                                report.separate_device ? "; * in the host's memory" : "");
  out += fmt::format("{:<8}{:<8}{:>14}", "stage", "layers", "parameters");
  for (const MemoryPart& part : report.stages.front().memory.parts) out += right(heading(report, part), column_of(part));
  out += fmt::format("{:>11}", report.separate_device ? "on device" : "at once");
  if (report.options.device_bytes) out += fmt::format("  of {}", gigabytes(*report.options.device_bytes));
  out += "\n";
  for (std::size_t i = 0; i < report.stages.size();) {
    const StageReport& stage = report.stages[i];
    std::size_t same = i;
    while (same < report.stages.size() && alike(stage, report.stages[same])) ++same;
    const std::string name = same - i == 1 ? std::to_string(i) : fmt::format("{}–{}", i, same - 1);
    const std::string layers = fmt::format("{}–{}", stage.range.first, report.stages[same - 1].range.last - 1);
    // A dash is three bytes and one column.
    out += fmt::format("{}{}{}{}{:>14}", name, std::string(8 - width_of(name), ' '), layers, std::string(8 - std::min<std::size_t>(width_of(layers), 7), ' '),
                       grouped(stage.parameters));
    for (const MemoryPart& part : stage.memory.parts) out += fmt::format("{:>{}}", gigabytes(part.bytes), column_of(part));
    out += fmt::format("{:>11}{}\n", gigabytes(stage.needed_bytes), verdict(report, stage));
    i = same;
  }
  return out;
}

std::string memory_arithmetic(const ModelReport& report) {
  const StageReport& stage = report.largest();
  std::string out = fmt::format("\nThe arithmetic of the largest, stage {}\n", &stage - report.stages.data());
  for (const MemoryPart& part : stage.memory.parts) {
    const std::string name = heading(report, part);
    out += fmt::format("  {}{}{:>9} = {}\n", name, std::string(14 - std::min<std::size_t>(width_of(name), 14), ' '), gigabytes(part.bytes), part.arithmetic);
  }
  return out;
}

/// The same stage under each plan of numbers.
std::string plans_text(const ModelReport& report) {
  using model::FloatKind;
  using model::SumKind;
  const std::pair<const char*, model::NumberConfig> plans[] = {
      {"float32, exact sums", {FloatKind::float32, FloatKind::float32, SumKind::fixed64}},
      {"bfloat16 over float32, exact sums", {FloatKind::bfloat16, FloatKind::float32, SumKind::fixed64}},
      {"bfloat16 over float32, float32 sums", {FloatKind::bfloat16, FloatKind::float32, SumKind::float32}},
      {"all bfloat16", {FloatKind::bfloat16, FloatKind::bfloat16, SumKind::bfloat16}}};
  std::string out = fmt::format("\nThe same stage in other numbers (compute, state, sums), GB\n");
  const std::size_t index = static_cast<std::size_t>(&report.largest() - report.stages.data());
  for (const auto& [name, numbers] : plans) {
    RunSettings settings = report.settings;
    settings.train.numbers = numbers;
    const ModelReport other = model_report(settings, report.options);
    const StageReport& stage = other.stages[index];
    out += fmt::format("  {:<37}{:>9}", name, gigabytes(stage.needed_bytes));
    if (report.separate_device) out += fmt::format(" on the device, {} on the host", gigabytes(stage.memory.peak(MemoryPlace::host)));
    out += verdict(other, stage) + "\n";
  }
  return out;
}

std::string pace_text(const ModelReport& report) {
  const model::Assumptions& a = report.options.assumptions;
  const model::TrainConfig& config = report.settings.train;
  std::string out = fmt::format("\nWaiting, with {:.4g} TFLOP/s at MFU {:.3g}, {:.4g} Mbit/s up and {} of round trip\n", a.device_flops_per_s / 1e12, a.mfu,
                                a.uplink_bytes_per_s * 8 / 1e6, seconds(a.round_trip_s));
  out += fmt::format("  slowest stage     {} a microbatch = {} tokens × {:.4g} FLOPs / ({:.4g} × {:.3g} × 4/3)\n", seconds(report.pace.slowest_s),
                     grouped(config.batch.tokens_per_microbatch()), report.pace.slowest_s * a.device_flops_per_s * a.mfu * 4 / 3 / static_cast<double>(config.batch.tokens_per_microbatch()),
                     a.device_flops_per_s, a.mfu);
  out += fmt::format("  tokens a second   {:.4g} = {} replicas × {} / {}, where no step ends\n", static_cast<double>(report.settings.replicas * config.batch.tokens_per_microbatch()) / report.pace.slowest_s,
                     report.settings.replicas, grouped(config.batch.tokens_per_microbatch()), seconds(report.pace.slowest_s));
  if (report.split.size() < 2) return out;
  double transfer = 0;
  for (const model::StagePace& stage : report.pace.stages) transfer = std::max(transfer, stage.transfer_s);
  const auto hops = static_cast<std::int64_t>(report.split.size()) - 1;
  out += fmt::format("  a microbatch's way {} from the head to the tail and back = Σ compute {} + {} × (2 × {} + {})\n", seconds(report.pace.latency_s),
                     seconds(report.pace.latency_s - static_cast<double>(hops) * (2 * transfer + a.round_trip_s)), hops, seconds(transfer), seconds(a.round_trip_s));
  out += fmt::format("  in flight         {} a chain = ⌈{} / {}⌉; by stage:", report.pace.stages.front().in_flight, seconds(report.pace.latency_s), seconds(report.pace.slowest_s));
  for (const model::StagePace& stage : report.pace.stages) out += fmt::format(" {}", stage.in_flight);
  const double chain = static_cast<double>(config.batch.microbatches) / static_cast<double>(report.settings.replicas);
  out += fmt::format("\n  in an exact step  {:.4g} microbatches a chain: {:.1f} % of it is flush = {} / ({:.4g} + {})\n", chain, report.pace.flush * 100, hops, chain, hops);
  if (chain < static_cast<double>(report.pace.stages.front().in_flight)) out += "                    fewer than are needed in flight: raise batch.microbatches\n";
  if (report.settings.replicas > 1) {
    const double share = 2 * (static_cast<double>(report.settings.replicas) - 1) / static_cast<double>(report.settings.replicas);
    const auto bytes = static_cast<double>(report.largest().parameters * model::bytes_of(config.numbers.sums));
    out += fmt::format("  reduce, a step    {} up and as much down a worker = 2 × (R − 1)/R × {} × {} bytes: {} at that rate\n", bytes_text(share * bytes),
                       grouped(report.largest().parameters), model::bytes_of(config.numbers.sums), duration_text(share * bytes / a.uplink_bytes_per_s));
  }
  return out;
}

}  // namespace

std::string report_text(const ModelReport& report) {
  std::string out = head_text(report) + flops_text(report) + boundary_text(report);
  out += memory_table(report) + memory_arithmetic(report) + plans_text(report) + pace_text(report);
  if (report.options.device_bytes)
    out += fmt::format("\n{}\n", report.fits() ? "It fits." : "It does not fit: more stages, other numbers, shorter microbatches or a larger device.");
  return out;
}

}  // namespace stagecoach::app
