#include "app/summary.h"

#include <fmt/format.h>

#include "app/view_text.h"

namespace stagecoach::app {
namespace {

/// A label in a column of its own, so that all lines align.
std::string row(const std::string& label, const std::string& text) { return fmt::format("  {:<18}{}\n", label, text); }

std::string loss_row(const std::string& label, const std::optional<double>& nats, const std::string& remark = "") {
  return nats ? row(label, fmt::format("{:.4f} nats/token{}", *nats, remark)) : "";
}

/// Which of the corpus' entropies the validation loss has got below.
std::string verdict(const RunSummary& summary) {
  if (!summary.validation_loss) return "";
  const double loss = *summary.validation_loss;
  if (summary.trigram_entropy && loss < *summary.trigram_entropy) return "  (below the trigram entropy)";
  if (summary.bigram_entropy && loss < *summary.bigram_entropy) return "  (below the bigram entropy)";
  if (summary.unigram_entropy && loss < *summary.unigram_entropy) return "  (below the unigram entropy)";
  return "";
}

std::string boundary_rows(const RunSummary& summary) {
  std::string out;
  for (const BoundaryBytes& boundary : summary.boundaries) {
    const double ratio =
        boundary.bytes == 0 ? 0 : static_cast<double>(boundary.bytes_without_cut) / static_cast<double>(boundary.bytes);
    const auto per_step = static_cast<double>(boundary.bytes) * static_cast<double>(summary.microbatches_per_step);
    out +=
        row(fmt::format("after layer {}", boundary.after_layer),
            fmt::format("{} a microbatch and direction, {} without the cut ({:.3g} to 1); {} a step",
                        bytes_text(static_cast<double>(boundary.bytes)),
                        bytes_text(static_cast<double>(boundary.bytes_without_cut)), ratio, bytes_text(2 * per_step)));
  }
  return out;
}

}  // namespace

std::vector<BoundaryBytes> boundary_bytes(const model::TrainConfig& config, const model::Split& split) {
  std::vector<BoundaryBytes> out;
  for (std::size_t stage = 0; stage + 1 < split.size(); ++stage) {
    const std::int64_t layer = split[stage].last - 1;
    const std::int64_t uncut = config.batch.tokens_per_microbatch() * config.model.dim * model::bytes_of(config.numbers.compute);
    out.push_back({layer, static_cast<std::uint64_t>(config.boundary_bytes(layer)), static_cast<std::uint64_t>(uncut)});
  }
  return out;
}

std::string summary_text(const RunSummary& summary) {
  std::string out = summary.finished
                        ? fmt::format("\nThe run is finished: {} steps.\n", summary.steps)
                        : fmt::format("\nThe run is stopped after step {} of {}.\n", summary.step, summary.steps);
  out += loss_row("training loss", summary.train_loss);
  out += loss_row("validation loss", summary.validation_loss, verdict(summary));
  out += loss_row("corpus: unigram", summary.unigram_entropy);
  out += loss_row("corpus: bigram", summary.bigram_entropy);
  out += loss_row("corpus: trigram", summary.trigram_entropy);
  const double rate = summary.seconds > 0 ? static_cast<double>(summary.tokens) / summary.seconds : 0;
  out += row("tokens",
             fmt::format("{} in {}: {} tokens/s", summary.tokens, duration_text(summary.seconds), count_text(rate)));
  if (summary.workers_lost > 0 || summary.attempts_voided > 0)
    out += row("disturbances",
               fmt::format("workers lost: {}, attempts begun again: {}; the losses are those of an undisturbed run",
                           summary.workers_lost, summary.attempts_voided));
  if (!summary.boundaries.empty()) {
    out += "What crosses between stages:\n";
    out += boundary_rows(summary);
  }
  out += row("run folder", printable(summary.run_dir));
  out += row("checkpoint", summary.checkpoint.empty() ? "none" : printable(summary.checkpoint));
  if (!summary.continue_command.empty())
    out += fmt::format("To continue it:\n  {}\n", printable(summary.continue_command));
  if (!summary.generate_command.empty())
    out += fmt::format("To let it write:\n  {}\n", printable(summary.generate_command));
  return out;
}

std::string shell_word(const std::string& word) {
  const std::string plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,@%+";
  if (!word.empty() && word.find_first_not_of(plain) == std::string::npos) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

}  // namespace stagecoach::app
