// What a run says when it ends.
//
// In:      numbers of the run, gathered by the command that ran it.
// Out:     text.
// Thread:  any; pure.
// Why:     the last lines are what a user keeps; they are tested as a string.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"

namespace stagecoach::app {

/// What one microbatch's tensor at one boundary weighs on the wire, per direction.
struct BoundaryBytes {
  std::int64_t after_layer = 0;         // the boundary lies between this layer and the next
  std::uint64_t bytes = 0;              // as it is sent
  std::uint64_t bytes_without_cut = 0;  // as it would be at the model's full width
};

/// The boundaries between the stages of `split`, B·S·K numbers of numbers.compute against B·S·D.
std::vector<BoundaryBytes> boundary_bytes(const model::TrainConfig& config, const model::Split& split);

struct RunSummary {
  bool finished = false;  // false: stopped on request before the last step
  std::string run_dir;
  std::int64_t step = 0;
  std::int64_t steps = 0;
  std::optional<double> train_loss;       // nats per token
  std::optional<double> validation_loss;  // nats per token
  std::optional<double> unigram_entropy;  // of the corpus, nats per token
  std::optional<double> bigram_entropy;
  std::optional<double> trigram_entropy;
  std::uint64_t tokens = 0;  // trained on in this start
  double seconds = 0;        // of training in this start
  std::int64_t workers_lost = 0;
  std::int64_t attempts_voided = 0;
  std::vector<BoundaryBytes> boundaries;
  std::int64_t microbatches_per_step = 0;
  std::string checkpoint;        // newest complete; empty = none
  std::string continue_command;  // empty = nothing to continue
  std::string generate_command;  // empty = nothing to generate from
};

/// The closing text, a newline after each line.
std::string summary_text(const RunSummary& summary);

/// `word` as a POSIX shell takes it for one argument: quoted where it must be.
std::string shell_word(const std::string& word);

}  // namespace stagecoach::app
