#include "app/run_report.h"

#include "app/view_text.h"
#include "model/parameters.h"

namespace stagecoach::app {

std::string model_line(const RunFolder& folder) {
  const model::TrainConfig& config = folder.settings.train;
  const double parameters = static_cast<double>(model::total_elements(model::parameters(config.model)));
  return std::to_string(config.model.layers) + " layers of width " + std::to_string(config.model.dim) + ", " + count_text(parameters) +
         " parameters, " + (config.numbers.compute == model::FloatKind::bfloat16 ? "bfloat16" : "float32");
}

RunSummary summarize(const RunFolder& folder, const observe::RunStatus& status, double seconds, std::uint64_t tokens) {
  RunSummary summary;
  summary.finished = status.step >= status.steps;
  summary.run_dir = folder.path.string();
  summary.step = static_cast<std::int64_t>(status.step);
  summary.steps = static_cast<std::int64_t>(status.steps);
  summary.train_loss = status.train_loss_smoothed ? status.train_loss_smoothed : status.train_loss;
  if (status.validation_loss) summary.validation_loss = status.validation_loss->nats_per_token;
  if (const auto entropies = entropies_of(folder)) {
    summary.unigram_entropy = entropies->unigram;
    summary.bigram_entropy = entropies->bigram;
    summary.trigram_entropy = entropies->trigram;
  }
  summary.tokens = tokens;
  summary.seconds = seconds;
  summary.boundaries = boundary_bytes(folder.settings.train, folder.split);
  summary.microbatches_per_step = folder.settings.train.batch.microbatches;
  if (status.checkpoint) {
    summary.checkpoint = status.checkpoint->path;
    // A paced run has no weights to generate from.
    if (!folder.shards.empty())
      summary.generate_command = "./stagecoach generate " + shell_word(folder.path.string()) + " --prompt " + shell_word("In the beginning");
  }
  return summary;
}

}  // namespace stagecoach::app
