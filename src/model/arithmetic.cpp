// See arithmetic.h.
#include "model/arithmetic.h"

#include <algorithm>
#include <cmath>

#include "model/parameters.h"

namespace stagecoach::model {
namespace {

bool looked_up(const ParameterInfo& info) { return info.name == "embed.weight" || info.name.ends_with(".cut.token_embed"); }

}  // namespace

std::vector<Product> products(const ModelConfig& model, const StageRange& range) {
  std::vector<Product> out;
  for (const ParameterInfo& info : parameters(model, range))
    if (info.shape.size() == 2 && !looked_up(info)) out.push_back({info.name, info.shape[1], info.shape[0]});
  return out;
}

TokenFlops token_flops(const ModelConfig& model, const StageRange& range, std::int64_t tokens) {
  TokenFlops flops;
  for (const Product& product : products(model, range)) flops.products += product.flops();
  // Scores and their product with V: 2 FLOPs for each channel of each query head and each of (S + 1) / 2 tokens, twice.
  flops.attention = (range.last - range.first) * 2 * model.heads * model.head_width() * (tokens + 1);
  return flops;
}

std::int64_t executed_flops(const ModelConfig& model, const StageRange& range, std::int64_t tokens, bool recompute) {
  const TokenFlops flops = token_flops(model, range, tokens);
  return flops.train() + (recompute && range.last < model.layers ? flops.forward() : 0);
}

Pace pace(const TrainConfig& config, const Split& split, std::int64_t replicas, const Assumptions& assumptions) {
  Pace out;
  const auto tokens = static_cast<double>(config.batch.tokens_per_microbatch());
  const double executed_per_s = assumptions.device_flops_per_s * assumptions.mfu * 4 / 3;
  for (const StageRange& range : split) {
    StagePace stage;
    const auto flops = executed_flops(config.model, range, config.batch.tokens, assumptions.recompute);
    stage.compute_s = static_cast<double>(flops) * tokens / executed_per_s;
    if (range.last < config.model.layers)
      stage.transfer_s = static_cast<double>(config.boundary_bytes(range.last - 1)) / assumptions.uplink_bytes_per_s;
    out.slowest_s = std::max(out.slowest_s, stage.compute_s);
    out.stages.push_back(stage);
  }
  for (std::size_t i = split.size(); i-- > 0;) {
    StagePace& stage = out.stages[i];
    out.latency_s += stage.compute_s;
    if (i + 1 < split.size()) out.latency_s += 2 * stage.transfer_s + assumptions.round_trip_s;
    // A hair less, so that a quotient which is whole but for rounding stays whole.
    stage.in_flight = static_cast<std::int64_t>(std::ceil(out.latency_s / out.slowest_s - 1e-9));
  }
  const double others = static_cast<double>(split.size()) - 1;
  out.flush = others / (static_cast<double>(config.batch.microbatches) / static_cast<double>(replicas) + others);
  return out;
}

}  // namespace stagecoach::model
