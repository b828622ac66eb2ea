// One stage of the model on one device, behind an interface without torch.
//
// In:      token ids or boundary tensors as bytes; weight versions, steps and attempts that name what they belong to.
// Out:     boundary tensors, gradients and losses as bytes; order-free gradient sums (fixed64); new weight versions.
// Thread:  compute. One Stage belongs to one thread; nothing in it is shared.
// Why:     this header is all that the rest of the program sees of torch; the library behind it is opened when a device is used.
//
// Legend:  B sequences · S tokens · D model width · K boundary width · N elements of the stage's parameters, flat, in the order
//          of model::parameters(model, range).
#pragma once

#include <compare>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/tensor_bytes.h"
#include "model/config.h"
#include "model/parameters.h"

namespace stagecoach::compute {

/// Whether a backward runs the forward again or uses what the forward left behind. The results are the same to the bit.
enum class Recompute : std::uint8_t {
  automatic,  // keeps what forwards leave while it fits into StageOptions::kept_bytes_max, recomputes the rest
  always,
  never,      // keeps it whatever it takes
};

struct StageOptions {
  model::TrainConfig config;
  model::StageRange range;
  std::string device = "cpu";    // "cpu", "cuda", "mps", or "auto"
  int versions_kept = 1;         // weight versions held at once: 1 in exact, 2 in headstart
  Recompute recompute = Recompute::automatic;
  std::int64_t kept_bytes_max = 0;  // of all kept forwards together; 0 = a share of the memory that is free when the stage is made
};

/// Names one microbatch's work of one attempt: what a forward kept belongs to the backward of the same name.
struct MicrobatchName {
  base::Step step;
  base::Attempt attempt;
  base::MicrobatchIndex index;
  auto operator<=>(const MicrobatchName&) const = default;
};

/// What goes into a stage for one microbatch.
struct StageInput {
  base::Payload tokens;    // int32 [B, S + 1]: inputs are columns 0 … S−1, labels are columns 1 … S. Head, tail and later cuts read them.
  base::Payload boundary;  // [B, S, K] in numbers.compute; null at the head
};

struct BackwardOutput {
  base::Payload input_gradient;  // [B, S, K] in numbers.compute, of the boundary before this stage; null at the head
  double loss_sum = 0;           // tail only: summed −log p over the microbatch's B·S labels, nats
};

/// Sum of squares of one parameter tensor's mean gradient, fp64, for the global norm.
struct TensorNorm {
  base::TensorIndex tensor;
  double sum_of_squares = 0;
};

/// A slice [first, last) of the stage's N flat elements.
struct ElementRange {
  std::int64_t first = 0;
  std::int64_t last = 0;
};

/// One stage's model, optimizer and accumulators.
///
/// errors of every function: not_finite    NaN or inf in an input, a loss or a gradient: the microbatch failed, nothing was accumulated
///                           out_of_range  a gradient does not fit fixed64 (|x| ≥ 128): lower the learning rate or raise the batch
///                           invalid_argument  a payload has the wrong number of bytes, or a version that is not held
///                           internal      torch threw: its sentence
/// thread: compute
class Stage {
 public:
  virtual ~Stage() = default;

  /// N.
  virtual std::int64_t elements() const = 0;
  /// Newest weight version held; 0 after construction (seeded init, equal on every replica of this range).
  virtual base::WeightVersion version() const = 0;

  /// Runs the stage's layers. Not for the tail (which has backward and evaluate). Where a backward of the same name will follow,
  /// `name` lets the stage keep what that needs (StageOptions::recompute); it is dropped by that backward, by apply, and with
  /// its attempt.
  ///
  /// shapes: tokens [B, S+1] / boundary [B, S, K_in] -> boundary tensor [B, S, K_out] in numbers.compute
  virtual base::Result<base::Payload> forward(base::WeightVersion version, const StageInput& input,
                                              const std::optional<MicrobatchName>& name = std::nullopt) = 0;

  /// The tail's forward-only work: the summed loss of one microbatch in nats.
  virtual base::Result<double> evaluate(base::WeightVersion version, const StageInput& input) = 0;

  /// Takes what the forward of this name kept, or runs it again; then the backward, and adds the microbatch's summed-loss
  /// gradient to the accumulator of (step, attempt). With fixed64: each element × 2^−⌈log2(B·S)⌉, rounded once to 2^−44, added
  /// as int64 (DESIGN §5). All or nothing: on an error no element was added. Float sums cannot take back what a failed microbatch
  /// added before it failed: from then on every call that needs the sums of that (step, attempt) answers not_finite.
  ///
  /// shapes: output_gradient [B, S, K_out] in numbers.compute (null at the tail, whose gradient is its own loss's)
  virtual base::Result<BackwardOutput> backward(base::WeightVersion version, const MicrobatchName& name, const StageInput& input,
                                                const base::Payload& output_gradient) = 0;

  /// A slice of the accumulator of (step, attempt) in numbers.sums (int64 for fixed64), unchanged by reading. Zeros where nothing
  /// was accumulated.
  virtual base::Result<base::Payload> read_sum(base::Step step, base::Attempt attempt, ElementRange range) = 0;

  /// Adds contributions to one slice in the order given: the group's sum is made once, by the slice's owner, and sent to all.
  ///
  /// errors: invalid_argument  none, or of different lengths
  virtual base::Result<base::Payload> add_parts(const std::vector<base::Payload>& parts) = 0;

  /// Gives the group's sum for a slice. The slices of one (step, attempt) together must cover [0, N) before norms() and apply().
  /// The worker's own accumulator stays as it was (PROTOCOL B4).
  virtual base::Result<void> write_reduced(base::Step step, base::Attempt attempt, ElementRange range,
                                           const base::Payload& sums) = 0;

  /// The group is this worker alone: its accumulator of (step, attempt), as it stands, is the group's sum. No byte of it is moved.
  ///
  /// errors: not_finite  the accumulator is spoiled (backward)
  virtual base::Result<void> reduce_alone(base::Step step, base::Attempt attempt) = 0;

  /// Per tensor, Σ g² in fp64 of the mean gradient g = sum / (tokens of the step), in tensor order.
  virtual base::Result<std::vector<TensorNorm>> norms(base::Step step, base::Attempt attempt) = 0;

  /// Makes version step from version step − 1: clips by `global_norm`, steps the optimizer at the schedule's rate, then drops all
  /// accumulators of steps ≤ step. Versions beyond versions_kept are dropped, oldest first.
  virtual base::Result<void> apply(base::Step step, base::Attempt attempt, double global_norm) = 0;

  /// Makes version step equal to version step − 1: a step that trains nothing.
  virtual base::Result<void> apply_nothing(base::Step step) = 0;

  /// Drops all accumulators and reduced sums of attempts before `attempt`.
  virtual void void_attempts_before(base::Attempt attempt) = 0;

  /// Weights and optimizer state of the newest version: "<name>", then model::moment_prefixes(…) + "<name>", in numbers.state, in
  /// tensor order, weights first. What follows from the step alone (bias corrections, NAdam's product of momenta) is not stored.
  virtual base::Result<std::vector<base::NamedTensor>> export_state() = 0;

  /// Replaces weights and optimizer state; the newest version becomes `version`. Tensors that belong to other layers are ignored.
  ///
  /// errors: not_found  a tensor of this stage is missing · mismatch  a shape differs: nothing was changed
  virtual base::Result<void> import_state(base::WeightVersion version, const std::vector<base::NamedTensor>& tensors) = 0;

  /// "cpu x86-64 AVX512+AMX torch 2.13.0 threads 1 bfloat16": what must be equal for bit-equal results.
  virtual std::string numerics_class() const = 0;
};

/// Samples text from the assembled model with a KV cache.
///
/// thread: the caller's, one at a time.
class Generator {
 public:
  virtual ~Generator() = default;
  struct Sampling {
    double temperature = 0.8;  // 0 = greedy
    double top_p = 1.0;
    std::uint64_t seed = 0;
  };
  /// Forgets the past and reads a prompt (at least one token).
  virtual base::Result<void> start(const std::vector<std::int32_t>& prompt, const Sampling& sampling) = 0;
  /// The next token, which also becomes part of the past.
  virtual base::Result<std::int32_t> next() = 0;
  /// −log p in nats of each of tokens[1…] given those before it, without a cache: the reference for tests and for `generate --score`.
  virtual base::Result<std::vector<double>> score(const std::vector<std::int32_t>& tokens) = 0;
};

/// The functions of the compute library, found by name when it is opened (kOpenSymbol).
class Library {
 public:
  virtual ~Library() = default;
  virtual base::Result<std::unique_ptr<Stage>> make_stage(const StageOptions& options) = 0;
  virtual base::Result<std::unique_ptr<Generator>> make_generator(const model::ModelConfig& model,
                                                                  const std::vector<base::NamedTensor>& weights,
                                                                  int threads) = 0;
  virtual std::string describe() const = 0;  // torch version and devices
};

/// extern "C" stagecoach::compute::Library* stagecoach_compute_open(): a static object, never deleted.
inline constexpr char kOpenSymbol[] = "stagecoach_compute_open";

}  // namespace stagecoach::compute
