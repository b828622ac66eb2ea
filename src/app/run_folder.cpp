#include "app/run_folder.h"

#include <ctime>

#include "app/device_choice.h"
#include "app/explain.h"
#include "app/numbers.h"
#include "base/files.h"
#include "data/build_journal.h"
#include "data/corpus.h"
#include "data/shard_check.h"
#include "data/shards.h"
#include "data/tokenizer.h"
#include "digest/digest.h"
#include "model/parameters.h"

namespace stagecoach::app {

using base::Error;
using base::ErrorCode;
using base::Result;
namespace fs = std::filesystem;

LoadedSettings settings_of(const RunRequest& request) {
  if (!request.resume) return load_settings(request.config, request.overrides);
  const fs::path config = fs::path(*request.resume) / "config.toml";
  std::error_code error;
  if (!fs::exists(config, error)) {
    LoadedSettings none;
    none.problems.push_back(*request.resume + " is not a run's folder: it has no config.toml. Runs lie in runs/, one folder each");
    return none;
  }
  if (request.config) {
    LoadedSettings none;
    none.problems.push_back("a resumed run keeps the config in its folder: give --set key=value for what may change, and no file");
    return none;
  }
  auto loaded = load_settings(config.string(), request.overrides);
  loaded.settings.run_dir = *request.resume;
  return loaded;
}

namespace {

/// errors: mismatch  names the key and the value to set
Result<void> check_vocab(std::int64_t vocab, const std::string& tokenizer, const RunSettings& settings, const char* instead) {
  if (vocab == settings.train.model.vocab) return {};
  return Error{ErrorCode::mismatch, "the tokens are those of \"" + tokenizer + "\", whose vocabulary is " + std::to_string(vocab) +
                                        ", but model.vocab is " + std::to_string(settings.train.model.vocab) + ": set model.vocab=" +
                                        std::to_string(vocab) + instead};
}

Result<fs::path> shards_of(const RunSettings& settings, bool& reused) {
  if (!settings.shards.empty()) {
    reused = true;
    auto manifest = data::read_shard_manifest(settings.shards);
    if (!manifest) return manifest.error();
    RETURN_IF_ERROR(check_vocab(manifest->vocab, manifest->tokenizer.name, settings, " or give other shards as data.shards"));
    return fs::path(settings.shards);
  }
  const auto tokenizer = data::make_byte_tokenizer();
  RETURN_IF_ERROR(check_vocab(tokenizer->vocab(), tokenizer->id().name, settings, " or give data.shards"));
  Result<data::BuiltShards> built = Error{};
  if (settings.text_files.empty()) {
    auto text = data::builtin_corpus_text();
    if (!text) return text.error();
    built = data::build_shards(settings.shard_cache, *text, *tokenizer, {settings.holdout_fraction});
  } else {
    const std::vector<fs::path> files(settings.text_files.begin(), settings.text_files.end());
    built = data::build_shards_of_files(settings.shard_cache, files, *tokenizer, {settings.holdout_fraction});
  }
  if (!built) return built.error();
  reused = built->reused;
  return built->directory;
}

/// Keeps the tokenizer's file in the run's folder: `generate` must not depend on a folder of shards that may be gone.
///
/// errors: corrupt  the file beside the shards is missing or another than the manifest names
Result<void> keep_tokenizer(const RunFolder& folder) {
  if (folder.shards.empty()) return {};
  auto manifest = data::read_shard_manifest(folder.shards);
  if (!manifest) return manifest.error();
  const std::string name = data::tokenizer_file_name(manifest->tokenizer.name);
  if (name.empty()) return {};
  auto bytes = base::read_text_file(folder.shards / name, data::kTokenizerBytesMax);
  if (!bytes) return bytes.error();
  if (digest::sha256(*bytes) != manifest->tokenizer.hash)
    return Error{ErrorCode::corrupt, (folder.shards / name).string() + " is not the tokenizer that these shards were made with: see " +
                                         "stagecoach data verify " + folder.shards.string()};
  return data::write_whole_file(folder.path / name, *bytes);
}

/// errors: already_exists  the folder holds a run and resume was not asked for
Result<void> check_free(const RunFolder& folder) {
  std::error_code error;
  if (!folder.resumed && (fs::exists(folder.file("books.db"), error) || fs::exists(folder.file("events.jsonl"), error)))
    return Error{ErrorCode::already_exists, folder.path.string() + " holds a run already: continue it with --resume " +
                                                folder.path.string() + ", or choose another run.dir"};
  return {};
}

}  // namespace

Result<RunFolder> open_run_folder(const RunRequest& request, const RunSettings& settings) {
  RunFolder folder;
  folder.settings = settings;
  settle_numbers(folder.settings);
  folder.resumed = request.resume.has_value();
  folder.path = settings.run_dir.empty() ? fs::path(default_run_dir(std::time(nullptr))) : fs::path(settings.run_dir);
  folder.settings.run_dir = folder.path.string();
  std::string why;
  folder.split = model::balanced_split(settings.train.model, settings.stages, why);
  if (folder.split.empty()) return Error{ErrorCode::invalid_argument, why};
  if (auto free = check_free(folder); !free.ok()) return free.error();
  if (!is_paced(settings.device)) {
    auto shards = shards_of(settings, folder.shards_reused);
    if (!shards) return shards.error();
    folder.shards = *shards;
  }
  std::error_code error;
  fs::create_directories(folder.path, error);
  if (error) return Error{ErrorCode::io_error, "the run's folder " + folder.path.string() + " cannot be made: " + error.message()};
  auto lock = world::real::lock_run(folder.path);
  if (!lock) return lock.error();
  folder.lock.emplace(std::move(*lock));
  if (auto free = check_free(folder); !free.ok()) return free.error();  // another start may have come before
  if (!folder.resumed) RETURN_IF_ERROR(base::replace_text_file(folder.file("config.toml"), to_toml(folder.settings)));
  RETURN_IF_ERROR(keep_tokenizer(folder));
  return folder;
}

fleet::Options fleet_options(const RunFolder& folder) {
  fleet::Options fleet;
  fleet.config = folder.settings.train;
  fleet.split = folder.split;
  fleet.replicas = static_cast<std::uint64_t>(folder.settings.replicas);
  fleet.config_text = model::canonical_text(fleet.config);
  static_cast<base::Bytes32&>(fleet.config_id) = digest::sha256(fleet.config_text);
  fleet.layout_id = digest::sha256(model::canonical_text(fleet.split));
  fleet.checkpoint_every = static_cast<std::uint64_t>(folder.settings.checkpoint_every);
  fleet.paced = is_paced(folder.settings.device);
  for (std::uint64_t stage = 0; fleet.paced && stage < folder.split.size(); ++stage) {
    auto& shapes = fleet.state_shapes.emplace_back();
    for (std::uint64_t i = 0; i < world::paced::kProvenanceTensors; ++i)
      shapes[world::paced::exported_name(stage, i)] = {world::paced::kProvenanceBytes / static_cast<std::uint64_t>(model::bytes_of(fleet.config.numbers.state))};
  }
  if (fleet.paced) return fleet;
  for (const auto& range : folder.split) {
    auto& shapes = fleet.state_shapes.emplace_back();
    for (const auto& tensor : model::parameters(fleet.config.model, range)) {
      const std::vector<std::uint64_t> shape(tensor.shape.begin(), tensor.shape.end());
      shapes[tensor.name] = shape;
      for (const std::string_view prefix : model::moment_prefixes(model::update_rule(fleet.config.optimizer, tensor)))
        shapes[std::string(prefix) + tensor.name] = shape;
    }
  }
  return fleet;
}

Result<world::real::CoordinatorNode::Options> coordinator_options(const RunFolder& folder, std::string_view listen) {
  auto bind = parse_address(folder.settings.listen.empty() ? listen : std::string_view(folder.settings.listen));
  if (!bind) return bind.error();
  world::real::CoordinatorNode::Options options;
  options.fleet = fleet_options(folder);
  options.store = {folder.path, folder.shards, folder.resumed, static_cast<std::size_t>(folder.settings.keep_checkpoints)};
  options.bind = *bind;
  options.limits.uplink_bytes_per_s = static_cast<std::uint64_t>(folder.settings.uplink_bytes_per_s);
  options.name = folder.path.filename().string();
  options.join_deadline = folder.settings.join_deadline;
  return options;
}

std::optional<data::NgramEntropies> entropies_of(const RunFolder& folder) {
  auto shards = data::TokenShards::open(folder.shards, {});
  if (!shards) return std::nullopt;
  auto entropies = data::ngram_entropies(*shards);
  return entropies ? std::optional(*entropies) : std::nullopt;
}

}  // namespace stagecoach::app
