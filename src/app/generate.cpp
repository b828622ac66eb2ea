#include "app/generate.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <memory>
#include <optional>
#include <ostream>
#include <system_error>

#include "app/generate_stream.h"
#include "app/interpreter.h"
#include "base/prng.h"
#include "compute/library.h"
#include "model/parameters.h"
#include "store/checkpoint.h"

namespace stagecoach::app {
namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ErrorCode;
using base::Result;

volatile std::sig_atomic_t interrupted = 0;  // a signal handler can reach nothing but a global

/// Takes SIGINT while it lives: the first one ends the text, the next one the process as usual.
class InterruptGuard {
 public:
  InterruptGuard() {
    interrupted = 0;
    struct sigaction action{};
    action.sa_handler = [](int) { interrupted = 1; };
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigaction(SIGINT, &action, &before_);
  }
  ~InterruptGuard() { sigaction(SIGINT, &before_, nullptr); }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

 private:
  struct sigaction before_{};
};

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

/// A damaged checkpoint's error, with the one to use instead.
Error with_alternative(const Error& error, const fs::path& damaged) {
  const fs::path clean = damaged.has_filename() ? damaged : damaged.parent_path();
  auto other = store::newest_complete(clean.has_parent_path() ? clean.parent_path() : fs::path("."));
  if (!other) return error;
  return {error.code, error.message + "; the newest complete one beside it is " + other->path.string()};
}

Result<LoadedModel> read_model(const fs::path& path) {
  auto manifest = store::read_checkpoint(path);
  if (!manifest) return manifest.error();
  LoadedModel out;
  std::string why;
  if (!model::parse_canonical_text(manifest->meta.config_text, out.config, why))
    return Error{ErrorCode::corrupt, path.string() + ": the config in the manifest cannot be read: " + why};
  std::vector<std::string> names;
  for (const auto& parameter : model::parameters(out.config.model)) names.push_back(parameter.name);
  auto weights = store::read_tensors(path, names);
  if (!weights) return weights.error();
  out.weights = std::move(*weights);
  out.path = path.string();
  return out;
}

Result<void> generate(const GenerateOptions& options, std::ostream& out, std::ostream& err) {
  auto loaded = load_model(options.checkpoint);
  if (!loaded) return loaded.error();
  if (!loaded->notice.empty()) err << loaded->notice << "\n";
  const model::TrainConfig& config = loaded->config;

  auto tokenizer = tokenizer_of(*loaded, options.tokenizer, python_interpreter(options.python));
  if (!tokenizer) return tokenizer.error();
  auto library = compute::open_library(options.library.empty() ? library_beside_program() : options.library);
  if (!library) return library.error();
  auto generator =
      (*library)->make_generator(config.model, loaded->weights, options.threads > 0 ? options.threads : config.threads);
  if (!generator) return generator.error();
  loaded->weights.clear();

  const InterruptGuard guard;
  StreamOptions stream;
  stream.prompt = options.prompt;
  stream.tokens = options.tokens;
  stream.window = config.batch.tokens;
  stream.sampling = {options.temperature, options.top_p, options.seed};
  stream.stopped = [] { return interrupted != 0; };
  return stream_text(**generator, **tokenizer, stream, out);
}

}  // namespace

CLI::App* add_generate_command(CLI::App& app, GenerateOptions& options) {
  CLI::App* command = app.add_subcommand("generate", "let a trained model write text");
  command
      ->add_option("checkpoint", options.checkpoint,
                   "a checkpoint's folder, or a run's: its newest complete checkpoint")
      ->required();
  command->add_option("--prompt", options.prompt, "the text to continue")->required();
  command->add_option("--tokens", options.tokens, "how many tokens to write")->capture_default_str();
  command
      ->add_option("--temperature", options.temperature, "0 = always the likeliest token, 1 = as the model has learned")
      ->capture_default_str();
  command->add_option("--top-p", options.top_p, "sample among the likeliest tokens that together have this probability")
      ->capture_default_str();
  command->add_option("--seed", options.seed, "of the sampling: the same seed writes the same text")
      ->capture_default_str();
  command->add_option("--threads", options.threads, "of the computation; 0 = as in training")->capture_default_str();
  command->add_option("--tokenizer", options.tokenizer,
                      "byte, a .model or a tokenizer.json [the one that lies beside the checkpoint]");
  command->add_option("--python", options.python, "the interpreter that has `tokenizers` [the one of the set-up]");
  return command;
}

int run_generate(const GenerateOptions& options, std::ostream& out, std::ostream& err) {
  const std::vector<std::string> wrong = problems(options);
  for (const std::string& sentence : wrong) err << "stagecoach generate: " << sentence << "\n";
  if (!wrong.empty()) return 1;
  const Result<void> done = generate(options, out, err);
  if (done) return 0;
  err << "stagecoach generate: " << done.error().message << "\n";
  return 1;
}

std::vector<std::string> problems(const GenerateOptions& options) {
  std::vector<std::string> out;
  if (options.prompt.empty()) out.push_back("--prompt: the model needs at least one character to continue");
  if (options.tokens < 1 || options.tokens > kGenerateTokensMax)
    out.push_back("--tokens: expected 1 to " + std::to_string(kGenerateTokensMax) + ", got " +
                  std::to_string(options.tokens));
  if (!(options.temperature >= 0 && options.temperature <= 100))
    out.push_back("--temperature: expected 0 to 100, got " + std::to_string(options.temperature));
  if (!(options.top_p > 0 && options.top_p <= 1))
    out.push_back("--top-p: expected more than 0 and at most 1, got " + std::to_string(options.top_p));
  if (options.threads < 0 || options.threads > 1024)
    out.push_back("--threads: expected 0 to 1024, got " + std::to_string(options.threads));
  return out;
}

Result<LoadedModel> load_model(const std::string& path) {
  const fs::path given(path);
  if (!is_folder(given))
    return Error{ErrorCode::not_found, path + ": there is no such folder; give a checkpoint or a run"};
  std::error_code ignored;
  if (fs::exists(given / "manifest.json", ignored)) {
    auto loaded = read_model(given);
    if (!loaded && loaded.error().code == ErrorCode::corrupt) return with_alternative(loaded.error(), given);
    return loaded;
  }
  auto newest = store::newest_complete(is_folder(given / "checkpoints") ? given / "checkpoints" : given);
  if (!newest) return newest.error().within(path);
  auto loaded = read_model(newest->path);
  if (loaded) loaded->notice = newest->report;
  return loaded;
}

Result<std::unique_ptr<data::Tokenizer>> tokenizer_of(const LoadedModel& model, const std::string& named,
                                                      const std::string& python) {
  std::string spec = named;
  // A checkpoint lies in <run>/checkpoints/step-…, its tokenizer in <run>; or somebody has copied both to one place.
  const fs::path checkpoint = fs::absolute(model.path).lexically_normal();
  const fs::path clean = checkpoint.has_filename() ? checkpoint : checkpoint.parent_path();
  for (const fs::path& folder : {clean, clean.parent_path(), clean.parent_path().parent_path()}) {
    if (spec.empty()) spec = data::tokenizer_file_in(folder).string();
  }
  const bool found = !spec.empty();
  auto tokenizer = data::open_tokenizer(found ? spec : std::string(data::kByteTokenizer), {python});
  if (!tokenizer || (*tokenizer)->vocab() == model.config.model.vocab) return tokenizer;
  const std::string has = model.path + ": the model has a vocabulary of " + std::to_string(model.config.model.vocab);
  if (!found) {
    return Error{ErrorCode::mismatch, has + " and no tokenizer lies beside it (byte-256 has " +
                                          std::to_string((*tokenizer)->vocab()) +
                                          "): pass the one of its token shards with --tokenizer FILE"};
  }
  return Error{ErrorCode::mismatch, has + ", the tokenizer " + spec + " one of " +
                                        std::to_string((*tokenizer)->vocab()) +
                                        ": pass the one of its token shards with --tokenizer FILE"};
}

Result<void> stream_text(compute::Generator& generator, data::Tokenizer& tokenizer, const StreamOptions& options,
                         std::ostream& out) {
  auto prompt = tokenizer.encode(options.prompt);
  if (!prompt) return prompt.error();
  std::vector<std::int32_t> past = std::move(*prompt);
  if (past.empty()) return Error{ErrorCode::invalid_argument, "the prompt has no tokens"};
  const auto window = static_cast<std::size_t>(std::max<std::int64_t>(options.window, 1));
  const auto restart = [&](std::uint64_t seed) {
    if (past.size() > window)
      past.erase(past.begin(), past.end() - static_cast<std::ptrdiff_t>(std::max<std::size_t>(window / 2, 1)));
    compute::Generator::Sampling sampling = options.sampling;
    sampling.seed = seed;
    return generator.start(past, sampling);
  };

  Utf8Stream text;
  TokenStream words(tokenizer, past);
  out << text.push(options.prompt) << std::flush;
  std::uint64_t seed = options.sampling.seed;
  RETURN_IF_ERROR(restart(seed));
  for (std::int64_t made = 0; made < options.tokens && out && !(options.stopped && options.stopped()); ++made) {
    if (past.size() > window) {
      seed = base::mix64(seed, static_cast<std::uint64_t>(made));
      RETURN_IF_ERROR(restart(seed));
    }
    auto token = generator.next();
    if (!token) return token.error();
    if (tokenizer.end_of_document() == *token) break;
    auto bytes = words.push(*token);
    if (!bytes) return bytes.error();
    past.push_back(*token);
    out << text.push(*bytes) << std::flush;
  }
  auto rest = words.finish();
  if (!rest) return rest.error();
  out << text.push(*rest) << text.finish() << "\n" << std::flush;
  return {};
}

std::string library_beside_program() {
  std::error_code failed;
  const fs::path program = fs::read_symlink("/proc/self/exe", failed);
  return (failed ? fs::path(".") : program.parent_path()) / "libstagecoach_compute.so";
}

}  // namespace stagecoach::app
