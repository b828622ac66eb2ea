// Builds token shards from inputs: reading, tokenising on many threads and writing, from wherever it was stopped.
//
// In:      a plan and a tokenizer. Out: a folder of shards, complete once its manifest.json is there.
// Thread:  the caller's writes; one more reads; plan.threads tokenise. Memory: some megabytes a thread.
// Why:     `train` and `data build` make their shards by the same steps, and only the plans differ.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/input.h"
#include "data/shard_manifest.h"
#include "data/tokenizer.h"

namespace stagecoach::data {

struct BuildPlan {
  std::vector<Input> inputs;                    // at least one; in this order
  std::string text_field = "text";              // of JSONL and Parquet
  std::optional<std::int32_t> end_of_document;  // put after each document
  double holdout_fraction = 0.05;               // of the tokens, the last ones, for validation; in (0, 1)
  std::int64_t tokens_per_shard = std::int64_t{1} << 26;
  bool skip_broken = false;              // else the first broken line, row or file ends the build
  int threads = 0;                       // that tokenise; 0 = one a core
  std::string python;                    // for Parquet
  std::filesystem::path tokenizer_file;  // kept beside the shards; empty for byte-256
};

struct BuildProgress {
  std::uint64_t read_bytes = 0;   // of the inputs' files
  std::uint64_t total_bytes = 0;  // of the same
  std::int64_t text_bytes = 0;
  std::int64_t tokens = 0;
  std::int64_t documents = 0;
  std::int64_t broken = 0;
};

/// Called on the caller's thread.
struct BuildHooks {
  std::function<void(const BuildProgress&)> progress;  // after each block
  std::function<void(const Broken&)> skipped;
  std::function<void(const std::string& sentence)> say;
};

struct BuildResult {
  ShardManifest manifest;
  bool reused = false;  // they were there already
};

/// What is wrong with the plan's numbers; empty = fine.
std::string problem_of(const BuildPlan& plan, const Tokenizer& tokenizer);

/// Builds in `directory`, or goes on with a build that was stopped there. Where the shards of this very plan are there
/// already, nothing is changed; the inputs are read once to be sure of it. The caller keeps others out of the folder.
///
/// errors: invalid_argument  a number of the plan is out of range, or there is no token in the inputs
///         corrupt         a line, row or file is broken: names it, its place and why
///         already_exists · mismatch  the folder holds something else: says what
///         unavailable     Python or a package of it is missing: says what to install
///         out_of_space · io_error  what is finished stays and is gone on from
base::Result<BuildResult> build_in(const std::filesystem::path& directory, const BuildPlan& plan,
                                   const Tokenizer& tokenizer, const BuildHooks& hooks = {});

/// The size and hash of an input's file.
///
/// errors: not_found · io_error
base::Result<SourceInfo> source_of(const Input& input);

}  // namespace stagecoach::data
