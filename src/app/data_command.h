// `stagecoach data build | inspect | verify`: a corpus as token shards.
//
// In:      files of text, or a folder of shards. Out: a folder of shards; what is in one; whether it is whole.
// Thread:  the caller's; the build starts its own.
// Why:     shards are made once and trained on for weeks: whoever makes them must see what became of the text.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace stagecoach::app {

struct DataBuildOptions {
  std::vector<std::string> inputs;
  std::string tokenizer;
  std::string out;
  std::string format = "auto";
  std::string text_field = "text";
  std::string end_of_document = "auto";  // or none, or a token as the tokenizer spells it
  double holdout = 0.05;
  std::int64_t shard_tokens = std::int64_t{1} << 26;
  bool skip_broken = false;
  int threads = 0;     // 0 = one a core
  std::string python;  // empty = the one the program was configured with
};

struct DataInspectOptions {
  std::string directory;
  std::optional<std::int64_t> document;
  std::string python;
};

struct DataOptions {
  DataBuildOptions build;
  DataInspectOptions inspect;
  std::string verify;  // a folder
};

/// Adds the subcommand `data` with its own subcommands to `app`; parsing fills `options`.
CLI::App* add_data_command(CLI::App& app, DataOptions& options);

/// Runs the one that was parsed. Exit status: 0 done, 1 refused or something is wrong with the data.
int run_data(const CLI::App& command, const DataOptions& options, std::ostream& out, std::ostream& err);

/// Progress and messages go to `err`, the summary to `out`.
int run_data_build(const DataBuildOptions& options, std::ostream& out, std::ostream& err);
int run_data_inspect(const DataInspectOptions& options, std::ostream& out, std::ostream& err);
int run_data_verify(const std::string& directory, std::ostream& out, std::ostream& err);

}  // namespace stagecoach::app
