// `stagecoach generate`: text from a checkpoint's model.
//
// In:      a checkpoint or a run's folder, a prompt, how to sample.
// Out:     the prompt and its continuation on `out`, as it comes; messages on `err`; an exit status.
// Thread:  the caller's, which computes.
// Why:     the loop that turns tokens into text knows no torch and no files, so that it is tested with a model of three
// lines.
#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/tensor_bytes.h"
#include "compute/stage.h"
#include "data/tokenizer.h"
#include "model/config.h"

namespace CLI {
class App;
}

namespace stagecoach::app {

struct GenerateOptions {
  std::string checkpoint;  // a checkpoint's folder, or a run's (its newest complete checkpoint)
  std::string prompt;
  std::int64_t tokens = 300;
  double temperature = 0.8;  // 0 = always the likeliest
  double top_p = 1.0;
  std::uint64_t seed = 0;
  int threads = 0;        // 0 = as in training
  std::string library;    // the compute library; empty = beside the program
  std::string tokenizer;  // a tokenizer's file; empty = the one that lies beside the checkpoint
  std::string python;     // for a tokenizer.json; empty = the one the program was configured with
};

inline constexpr std::int64_t kGenerateTokensMax = 1'000'000;

/// Adds the subcommand `generate` with its options to `app`; parsing fills `options`.
CLI::App* add_generate_command(CLI::App& app, GenerateOptions& options);

/// Loads the model and streams text until `tokens` are made or Ctrl-C is pressed; both are success (0). Problems go to
/// `err` and give 1.
int run_generate(const GenerateOptions& options, std::ostream& out, std::ostream& err);

/// What is wrong with the options, each a sentence. Empty = fine.
std::vector<std::string> problems(const GenerateOptions& options);

/// A checkpoint's model, ready for compute::Library::make_generator.
struct LoadedModel {
  model::TrainConfig config;
  std::vector<base::NamedTensor> weights;
  std::string path;    // of the checkpoint
  std::string notice;  // damaged newer checkpoints that were passed over; empty = none
};

/// Finds and reads the weights at `path`: a checkpoint's folder, a folder of checkpoints, or a run's folder.
///
/// errors: not_found  there is no checkpoint · corrupt  it is damaged: names the complete one beside it, where there is
/// one
///         io_error
base::Result<LoadedModel> load_model(const std::string& path);

/// The tokenizer of a model: `named` where the user named one, else the file that the run keeps beside its checkpoints,
/// else byte-256.
///
/// errors: mismatch  its vocabulary is not the model's: says what to pass · those of data::open_tokenizer
base::Result<std::unique_ptr<data::Tokenizer>> tokenizer_of(const LoadedModel& model, const std::string& named,
                                                            const std::string& python);

/// How the loop samples and when it ends.
struct StreamOptions {
  std::string prompt;
  std::int64_t tokens = 0;
  std::int64_t window = 0;  // the sequence length the model was trained on
  compute::Generator::Sampling sampling;
  std::function<bool()> stopped;  // asked before each token
};

/// Writes prompt and continuation to `out`, flushed after each character; a token that ends a document ends the text.
/// Beyond `window` tokens the model would read positions it has never seen: then its past is cut to the newest half and
/// read again, under a seed that follows from the first one.
///
/// errors: those of Generator and Tokenizer
base::Result<void> stream_text(compute::Generator& generator, data::Tokenizer& tokenizer, const StreamOptions& options,
                               std::ostream& out);

/// libstagecoach_compute.so in the folder of the running program.
std::string library_beside_program();

}  // namespace stagecoach::app
