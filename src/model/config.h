// What is trained, as plain data: dimensions, cuts, split, optimizer, schedule, batch.
//
// In:      numbers from a config file (app/) or a run's record.
// Out:     structs that every other folder reads, and `problems()` that says all that is wrong with them at once.
// Thread:  any; plain values.
// Why:     the same model must be described alike to torch, to the planner, to the wire and to the checkpoint.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"

namespace stagecoach::model {

/// How the boundary tensor of a cut is made. Cuts belong to the model, not to the layout (DESIGN §5).
enum class CutKind : std::uint8_t {
  none,          // the residual stream itself crosses: K = D
  resbm,         // the residual bottleneck of arXiv 2604.11947 in the form of the reference §2.2: K = cut_width
  resbm_tokens,  // the same, and the receiver adds its own narrow view of the last tokens, which travel anyway
};

/// What numbers are stored and multiplied in.
enum class FloatKind : std::uint8_t { float32, bfloat16 };
constexpr std::int64_t bytes_of(FloatKind kind) { return kind == FloatKind::float32 ? 4 : 2; }

/// What a step's gradients are summed in. Only fixed64 sums do not depend on order or owner (DESIGN §5); the others are for
/// models too large for 8 bytes a parameter, and promise equality of replicas but not of runs.
enum class SumKind : std::uint8_t { fixed64, float32, bfloat16 };
constexpr std::int64_t bytes_of(SumKind kind) { return kind == SumKind::fixed64 ? 8 : kind == SumKind::float32 ? 4 : 2; }

/// A Llama-3.2-type decoder: pre-norm RMSNorm, grouped-query attention, RoPE (rotate-half), SwiGLU, no biases, untied head.
struct ModelConfig {
  std::int64_t vocab = 256;
  std::int64_t dim = 128;          // D
  std::int64_t layers = 4;         // L
  std::int64_t heads = 4;          // query heads; head width = dim / heads
  std::int64_t kv_heads = 2;
  std::int64_t ffn = 448;          // SwiGLU width
  double norm_eps = 1e-5;
  double rope_base = 500'000.0;
  double rope_scaling = 1.0;       // Llama 3's slowing of low frequencies for long contexts, by this factor; 1 = none
  CutKind cut_kind = CutKind::resbm;
  std::int64_t cut_width = 32;                // K of every bottleneck; K = D is a plain block
  std::int64_t token_rank = 32;               // r, resbm+tokens: width of the receiver's own token embedding
  std::int64_t token_window = 4;              // w, resbm+tokens: how many of the last tokens, its own included, it sees
  std::vector<std::int64_t> cut_after = {0, 1, 2};  // the cut lies between layer i and layer i + 1; ascending
  std::uint64_t seed = 42;

  bool operator==(const ModelConfig&) const = default;
  std::int64_t head_width() const { return dim / heads; }
  /// True where a cut lies between layer `layer` and layer `layer + 1`.
  bool cut_follows(std::int64_t layer) const;
  /// Width of the tensor that crosses after `layer`: cut_width at a bottleneck, dim elsewhere.
  std::int64_t boundary_width(std::int64_t layer) const;
  bool bottleneck_follows(std::int64_t layer) const { return cut_follows(layer) && cut_kind != CutKind::none && cut_width < dim; }
  /// True where the first thing that `layer` does is to widen a bottleneck's tensor with a view of the tokens beside it.
  bool sees_tokens(std::int64_t layer) const { return layer > 0 && cut_kind == CutKind::resbm_tokens && bottleneck_follows(layer - 1); }
};

enum class OptimizerKind : std::uint8_t { adamw, nadam, muon };

/// Decoupled weight decay in all; NAdam as in torch.optim.NAdam (momentum_decay) with decoupled decay; Muon as in
/// torch.optim.Muon for the tensors that model::update_rule names, AdamW for the others.
struct OptimizerConfig {
  OptimizerKind kind = OptimizerKind::adamw;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;    // matrices only: norms are not decayed
  double momentum_decay = 0.004;  // NAdam
  double muon_momentum = 0.95;    // Nesterov momentum
  double muon_rate = 7.0;         // a Muon tensor's learning rate, as a multiple of the schedule's
  std::int64_t muon_steps = 5;    // Newton–Schulz iterations
  FloatKind muon_float = FloatKind::bfloat16;  // what they are computed in
  double clip_norm = 1.0;       // global L2 norm over all stages; 0 = no clipping

  bool operator==(const OptimizerConfig&) const = default;
};

enum class ScheduleKind : std::uint8_t { cosine, wsd, constant };

/// Learning rate over steps: linear warm-up, then the kind. wsd = stable until `steps − decay_steps`, then linear to the floor.
struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::cosine;
  double peak_lr = 3e-3;
  double floor_fraction = 0.1;  // the final rate as a fraction of the peak
  std::int64_t warmup_steps = 50;
  std::int64_t decay_steps = 100;  // wsd only
  std::int64_t steps = 1000;       // T, the last step of the run

  bool operator==(const ScheduleConfig&) const = default;
  /// The rate of step `step` (1-based). Pure fp64 arithmetic: the same on every machine of one libm.
  double rate(base::Step step) const;
};

/// The unit of work. M microbatches make a step.
struct BatchConfig {
  std::int64_t sequences = 2;       // B, per microbatch
  std::int64_t tokens = 128;        // S, per sequence
  std::int64_t microbatches = 8;    // M, per step
  std::int64_t eval_microbatches = 32;  // V, forward-only on held-out text, in each step that evaluates
  std::int64_t eval_every = 100;    // steps; 0 = only after the last step
  std::uint64_t data_seed = 1;      // of the permutation of windows

  bool operator==(const BatchConfig&) const = default;
  std::int64_t tokens_per_microbatch() const { return sequences * tokens; }
  std::int64_t tokens_per_step() const { return tokens_per_microbatch() * microbatches; }
};

/// What the arithmetic of a stage is done and kept in.
struct NumberConfig {
  FloatKind compute = FloatKind::float32;  // activations, their gradients, boundary tensors, and the weights multiplied with
  FloatKind state = FloatKind::float32;    // weights between steps and the optimizer's moments; bfloat16 needs compute bfloat16
  SumKind sums = SumKind::fixed64;

  bool operator==(const NumberConfig&) const = default;
};

/// Everything that changes the mathematics: its canonical text is what ConfigId hashes. Replicas, paths, addresses are not here.
struct TrainConfig {
  ModelConfig model;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  BatchConfig batch;
  NumberConfig numbers;
  int threads = 1;  // of the compute thread's kernels: part of the numerics class

  bool operator==(const TrainConfig&) const = default;
  /// Bytes of the boundary tensor of one microbatch after `layer`, and of its gradient.
  std::int64_t boundary_bytes(std::int64_t layer) const {
    return batch.tokens_per_microbatch() * model.boundary_width(layer) * bytes_of(numbers.compute);
  }
};

/// Layers [first, last) in one stage. The first stage also embeds, the last also has the final norm, the head and the loss.
struct StageRange {
  std::int64_t first = 0;
  std::int64_t last = 0;
  bool operator==(const StageRange&) const = default;
};

/// The layout: stage ranges in order, covering all layers without a gap.
using Split = std::vector<StageRange>;

/// What step `step` consists of. A pure function of the config: every worker computes the same plan.
struct StepPlan {
  std::int64_t train = 0;  // microbatches 0 … train−1 are trained on
  std::int64_t eval = 0;   // microbatches train … train+eval−1 are forward-only, on the weights before the step
  std::int64_t total() const { return train + eval; }
};

/// The plan of `step`: M trained, and V evaluated where (step − 1) is a multiple of eval_every. The step after the last
/// (T + 1) trains nothing and evaluates V: the final validation loss. Beyond that: empty.
StepPlan plan_of(const TrainConfig& config, base::Step step);

/// T + 1: the step after which the run is finished.
base::Step final_step(const TrainConfig& config);

/// All that is wrong with the config, each one sentence that names the key, what was expected and what came. Empty = fine.
std::vector<std::string> problems(const TrainConfig& config);

/// Splits the model's layers over `stages`, ends lighter (reference §1.2's rule), edges on cuts where the kind is not none.
/// Returns an empty split and fills `why` where it cannot be done.
Split balanced_split(const ModelConfig& model, std::int64_t stages, std::string& why);

/// One line "key=value" per field in a fixed order; doubles as hexadecimal floats. Hashing this gives the ConfigId.
std::string canonical_text(const TrainConfig& config);

/// The same for a split: hashing it gives the LayoutId.
std::string canonical_text(const Split& split);

/// The inverse of canonical_text(TrainConfig); `why` says what was wrong with the text.
bool parse_canonical_text(const std::string& text, TrainConfig& config, std::string& why);

}  // namespace stagecoach::model
