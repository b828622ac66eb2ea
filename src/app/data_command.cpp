#include "app/data_command.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <ostream>

#include "app/data_progress.h"
#include "app/interpreter.h"
#include "app/view.h"
#include "app/view_text.h"
#include "base/files.h"
#include "data/shard_build.h"
#include "data/shard_check.h"
#include "world/real/loop.h"

namespace stagecoach::app {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::int64_t kSkippedShownMax = 100;  // more lines than this nobody reads

Result<std::optional<std::int32_t>> end_of_document(const std::string& wanted, data::Tokenizer& tokenizer) {
  if (wanted == "none") return std::optional<std::int32_t>();
  const auto id = wanted == "auto" ? tokenizer.end_of_document() : tokenizer.id_of(wanted);
  if (id) return id;
  const std::string which =
      wanted == "auto" ? "no usual token for the end of a document" : "no token \"" + wanted + "\"";
  return Error{ErrorCode::invalid_argument, "the tokenizer (" + tokenizer.id().name + ") has " + which +
                                                ": name one of its tokens with --end-of-document, or none"};
}

/// Everything that can be said about a build before it begins.
struct PreparedBuild {
  data::BuildPlan plan;
  std::unique_ptr<data::Tokenizer> tokenizer;
};

Result<PreparedBuild> prepare(const DataBuildOptions& options) {
  PreparedBuild out;
  data::BuildPlan& plan = out.plan;
  for (const std::string& path : options.inputs) {
    auto input = data::input_of(path, {options.format});
    if (!input) return input.error();
    plan.inputs.push_back(std::move(*input));
  }
  plan.python = python_interpreter(options.python);
  auto tokenizer = data::open_tokenizer(options.tokenizer, {plan.python});
  if (!tokenizer) return tokenizer.error();
  out.tokenizer = std::move(*tokenizer);
  if (!data::tokenizer_file_name(out.tokenizer->id().name).empty()) plan.tokenizer_file = options.tokenizer;
  auto end = end_of_document(options.end_of_document, *out.tokenizer);
  if (!end) return end.error();
  plan.end_of_document = *end;
  plan.text_field = options.text_field;
  plan.holdout_fraction = options.holdout;
  plan.tokens_per_shard = options.shard_tokens;
  plan.skip_broken = options.skip_broken;
  plan.threads = options.threads;
  if (std::string problem = problem_of(plan, *out.tokenizer); !problem.empty())
    return Error{ErrorCode::invalid_argument, problem};
  return out;
}

/// What became of the inputs, for people.
void summarize(const data::BuildResult& built, const DataBuildOptions& options, std::ostream& out) {
  const data::ShardManifest& manifest = built.manifest;
  out << (built.reused ? "nothing to do: " : "") << options.out << " holds " << exact_text(manifest.tokens())
      << " tokens of " << exact_text(manifest.documents) << " documents in "
      << exact_text(static_cast<std::int64_t>(manifest.shards.size())) << " shards ("
      << exact_text(manifest.validation_tokens) << " tokens are held out)\n";
  if (manifest.empty_documents > 0) out << exact_text(manifest.empty_documents) << " empty documents were left out\n";
  if (manifest.broken_records > 0) out << exact_text(manifest.broken_records) << " broken records were left out\n";
  out << "train on them: stagecoach train --set data.shards=" << options.out << " --set model.vocab=" << manifest.vocab
      << "\n";
}

Result<data::BuildResult> build(const DataBuildOptions& options, std::ostream& err) {
  auto prepared = prepare(options);
  if (!prepared) return prepared.error();
  RETURN_IF_ERROR(base::make_directories(options.out));
  auto lock = base::FileLock::take(std::filesystem::path(options.out) / ".lock", {});
  if (!lock) return lock.error();

  const ViewOptions terminal = terminal_options(2);
  DataProgress bar({::isatty(2) == 1, static_cast<int>(terminal.columns)}, world::real::monotonic_now());
  std::int64_t skipped = 0;
  data::BuildHooks hooks;
  hooks.progress = [&](const data::BuildProgress& progress) {
    err << bar.show(progress, world::real::monotonic_now()) << std::flush;
  };
  hooks.say = [&](const std::string& sentence) { err << bar.clear() << sentence << std::endl; };
  hooks.skipped = [&](const data::Broken& broken) {
    if (++skipped > kSkippedShownMax) return;
    err << bar.clear() << "left out: " << broken.where << " " << broken.why << std::endl;
    if (skipped == kSkippedShownMax) err << "(what else is left out is only counted)" << std::endl;
  };
  auto built = data::build_in(options.out, prepared->plan, *prepared->tokenizer, hooks);
  err << bar.clear() << std::flush;
  return built;
}

}  // namespace

CLI::App* add_data_command(CLI::App& app, DataOptions& options) {
  CLI::App* data = app.add_subcommand("data", "turn text into token shards, look into them, check them");
  data->require_subcommand(1);
  DataBuildOptions& b = options.build;
  CLI::App* build = data->add_subcommand("build", "text, JSON lines or Parquet, plain, .gz or .zst, into token shards");
  build->add_option("inputs", b.inputs, "files, in the order in which they are trained on")->required();
  build->add_option("--tokenizer", b.tokenizer, "byte, a SentencePiece model (FILE.model) or a tokenizer.json")
      ->required();
  build->add_option("--out", b.out, "the folder of the shards; an unfinished one is gone on with")->required();
  build
      ->add_option("--format", b.format,
                   "of all inputs: text, lines (each line a document), jsonl, parquet; auto = by ending")
      ->capture_default_str();
  build->add_option("--text-field", b.text_field, "the field (JSON lines) or column (Parquet) that holds the text")
      ->capture_default_str();
  build
      ->add_option("--end-of-document", b.end_of_document, "the token after each document: auto, none, or its spelling")
      ->capture_default_str();
  build->add_option("--holdout", b.holdout, "the part of the tokens, the last ones, to validate on")
      ->capture_default_str();
  build->add_option("--shard-tokens", b.shard_tokens, "tokens in a shard")->capture_default_str();
  build->add_option("--threads", b.threads, "that tokenise; 0 = one a core")->capture_default_str();
  auto* skip = build->add_flag("--skip-broken", b.skip_broken,
                               "leave broken lines, rows and files out, and name and count them");
  bool refuse = false;
  build->add_flag("--refuse-broken", refuse, "end at the first broken line, row or file (the default)")->excludes(skip);
  build->add_option("--python", b.python,
                    "the interpreter that has `tokenizers` and `pyarrow` [the one of the set-up]");

  CLI::App* inspect = data->add_subcommand("inspect", "what is in a folder of shards: documents, lengths, text");
  inspect->add_option("folder", options.inspect.directory, "a folder of token shards")->required();
  inspect->add_option("--document", options.inspect.document, "show this document, counted from 0");
  inspect->add_option("--python", options.inspect.python,
                      "the interpreter that has `tokenizers` [the one of the set-up]");

  CLI::App* verify = data->add_subcommand("verify", "read all shards and compare them with their manifest");
  verify->add_option("folder", options.verify, "a folder of token shards")->required();
  return data;
}

int run_data(const CLI::App& command, const DataOptions& options, std::ostream& out, std::ostream& err) {
  if (command.got_subcommand("build")) return run_data_build(options.build, out, err);
  if (command.got_subcommand("inspect")) return run_data_inspect(options.inspect, out, err);
  return run_data_verify(options.verify, out, err);
}

int run_data_build(const DataBuildOptions& options, std::ostream& out, std::ostream& err) {
  auto built = build(options, err);
  if (!built) {
    err << "stagecoach data build: " << built.error().message << "\n";
    return 1;
  }
  summarize(*built, options, out);
  return 0;
}

int run_data_verify(const std::string& directory, std::ostream& out, std::ostream& err) {
  auto checked = data::check_shards(directory);
  if (!checked) {
    err << "stagecoach data verify: " << checked.error().message << "\n";
    return 1;
  }
  for (const std::string& problem : checked->problems) err << "stagecoach data verify: " << problem << "\n";
  if (!checked->problems.empty()) return 1;
  out << directory << " is whole: " << exact_text(static_cast<std::int64_t>(checked->manifest.shards.size()))
      << " shards, " << exact_text(checked->manifest.tokens()) << " tokens, "
      << bytes_text(static_cast<double>(checked->bytes)) << " read and compared\n";
  return 0;
}

}  // namespace stagecoach::app
