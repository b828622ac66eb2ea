// RunFolder: where a run lives and what it is made of, before its coordinator starts.
//
// In:      settings (new run) or a folder (resume). Out: the folder with its files, the shards, the split, the coordinator's options.
// Thread:  the caller's; waits for the disk.
// Why:     `train`, `coordinate` and the unsplit reference begin in the same way; here is that way, once.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "app/settings.h"
#include "base/files.h"
#include "base/result.h"
#include "data/entropy.h"
#include "link/identity.h"
#include "world/real/coordinator_node.h"

namespace stagecoach::app {

/// What the user asked for on the command line.
struct RunRequest {
  std::optional<std::string> config;       // a TOML file
  std::vector<std::string> overrides;      // key=value
  std::optional<std::string> resume;       // a run's folder
};

struct RunFolder {
  std::filesystem::path path;
  RunSettings settings;
  model::Split split;
  std::filesystem::path shards;      // empty where the run is paced: nothing reads a token
  bool shards_reused = false;
  bool resumed = false;
  std::optional<base::FileLock> lock;  // of the folder, for as long as the run lives

  std::filesystem::path file(const char* name) const { return path / name; }
};

/// Settings from the request: all problems at once, or the settings.
LoadedSettings settings_of(const RunRequest& request);

/// Cuts or opens the shards, makes the folder and takes it for this process, writes config.toml.
///
/// errors: already_exists  the folder holds a run and resume was not asked for
///         unavailable  another process runs this run: nothing of it was changed · those of shards, corpus and files
base::Result<RunFolder> open_run_folder(const RunRequest& request, const RunSettings& settings);

/// The coordinator's options for the folder; `listen` where the settings leave it open.
base::Result<world::real::CoordinatorNode::Options> coordinator_options(const RunFolder& folder, std::string_view listen);

/// Config, layout and ids of the settings, as the coordinator and the unsplit reference need them.
fleet::Options fleet_options(const RunFolder& folder);

/// n-gram entropies of the folder's shards; none where the vocabulary is too large for the counts.
std::optional<data::NgramEntropies> entropies_of(const RunFolder& folder);

}  // namespace stagecoach::app
