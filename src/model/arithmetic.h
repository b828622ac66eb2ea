// Operations and waiting: FLOPs of a token from the shapes of its products, and how many microbatches a link asks for.
//
// In:      a config, a split, what a device and a link are said to do.
// Out:     FLOPs, seconds and counts. The formulas are in docs/MODEL.md.
// Thread:  any; pure.
// Why:     the planner, the benches and the operator divide by the same number of operations.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"

namespace stagecoach::model {

/// One matrix product on a token's way forward: its row of `inner` numbers times a parameter's [outer, inner].
struct Product {
  std::string parameter;
  std::int64_t inner = 0;
  std::int64_t outer = 0;
  std::int64_t flops() const { return 2 * inner * outer; }
};

/// All products with parameters of a stage: every matrix of model::parameters but the tables that are only looked up.
std::vector<Product> products(const ModelConfig& model, const StageRange& range);

/// FLOPs of one token through a stage, forward. Adds and multiplies count one each; norms, RoPE, gates and softmax count nothing.
struct TokenFlops {
  std::int64_t products = 0;
  std::int64_t attention = 0;  // QKᵀ and its product with V over the tokens a causal mask leaves: (S + 1) / 2 on average

  std::int64_t forward() const { return products + attention; }
  /// Each product has two in the backward: one for the input's gradient, one for the weight's.
  std::int64_t train() const { return 3 * forward(); }
};

TokenFlops token_flops(const ModelConfig& model, const StageRange& range, std::int64_t tokens);

/// What a stage executes for a token that is trained on. The tail's forward and backward are one piece of work: it never
/// computes anything twice.
std::int64_t executed_flops(const ModelConfig& model, const StageRange& range, std::int64_t tokens, bool recompute);

/// What a device and its links are said to do.
struct Assumptions {
  double device_flops_per_s = 312e12;  // dense peak: an A100 in bfloat16
  double mfu = 0.4;                    // FLOPs of train() over the device's peak, where every forward is computed twice
  double uplink_bytes_per_s = 107e6;   // Orion's median: 856 Mbps
  double round_trip_s = 0.06;
  bool recompute = true;
};

/// The time of one microbatch at one stage and on the road behind it.
struct StagePace {
  double compute_s = 0;       // forward, and backward with what it recomputes
  double transfer_s = 0;      // of one boundary tensor to the next stage: bytes over the uplink; 0 behind the tail
  std::int64_t in_flight = 0; // microbatches that one worker must have begun and not finished so that nobody waits
};

struct Pace {
  std::vector<StagePace> stages;
  double slowest_s = 0;       // compute of the slowest stage: one microbatch comes out of a chain in so long
  double latency_s = 0;       // from a microbatch's first operation at the head to its last there
  double flush = 0;           // share of an exact step in which a chain fills and drains: (P − 1) / (M / R + P − 1)
};

/// in_flight at stage i = ⌈(Σ_{j ≥ i} compute_j + Σ_{j ≥ i, j < P−1} (2 · transfer_j + round trip)) / slowest⌉: what passes
/// between a microbatch's arrival at the stage and the end of its backward there, in units of the slowest stage's work.
Pace pace(const TrainConfig& config, const Split& split, std::int64_t replicas, const Assumptions& assumptions);

}  // namespace stagecoach::model
