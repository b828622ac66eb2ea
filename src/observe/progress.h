// Progress: how far a run is, how fast, and its losses, from the steps that end.
//
// In:      each step's number, loss and time. Out: the fields of a RunStatus that follow from them.
// Thread:  one.
// Why:     the coordinator of a split run and the unsplit reference show the same numbers, made in one place.
#pragma once

#include <cstdint>
#include <deque>
#include <utility>

#include "base/time.h"
#include "observe/run_status.h"

namespace stagecoach::observe {

class Progress {
 public:
  /// `done` steps of `steps` were there before the process started.
  Progress(std::uint64_t steps, std::uint64_t done, std::int64_t tokens_per_step);

  /// units: nats per token
  void trained(std::uint64_t step, double loss, base::Instant now);
  /// The validation loss of the weights after `step`.
  void evaluated(std::uint64_t step, double loss);

  /// Writes step, steps, losses, curves, tokens, rate and time left.
  void fill(RunStatus& status) const;

 private:
  std::uint64_t steps_ = 0;
  std::uint64_t step_ = 0;
  std::int64_t tokens_per_step_ = 0;
  std::optional<double> loss_;
  double weighted_loss_ = 0;  // Σ weight · loss, the weights falling by kSmoothing a step into the past
  double weight_ = 0;         // Σ weight: a mean over few steps is not drawn to any starting value
  std::optional<LossPoint> validation_;
  std::vector<LossPoint> train_history_, validation_history_;
  std::deque<std::pair<base::Instant, std::uint64_t>> recent_;  // (time, step) of the last steps, for the rate
};

}  // namespace stagecoach::observe
