#include "world/real/run_store.h"

#include <algorithm>
#include <cstring>
#include <ctime>
#include <random>
#include <set>
#include <sstream>

#include "data/batches.h"
#include "data/shards.h"
#include "model/parameters.h"
#include "store/safetensors.h"
#include "world/paced/provenance.h"

namespace stagecoach::world::real {

using base::Error;
using base::ErrorCode;
using base::Result;

namespace {
base::RunId new_run_id() {
  std::random_device source;
  return base::RunId((static_cast<std::uint64_t>(source()) << 32 | source()) | 1);
}

std::map<std::string, std::string> values_by_key(const std::string& canonical) {
  std::map<std::string, std::string> values;
  std::istringstream lines(canonical);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t equals = line.find('=');
    values[line.substr(0, equals)] = equals == std::string::npos ? "" : line.substr(equals + 1);
  }
  return values;
}

/// What differs between two canonical configs: "optimizer.kind (muon, now adamw), numbers.state (bfloat16, now float32)".
std::string differences(const std::string& begun_with, const std::string& now) {
  const auto before = values_by_key(begun_with), after = values_by_key(now);
  std::string text;
  const auto add = [&text](const std::string& key, const std::string& what) { text += (text.empty() ? "" : ", ") + key + " (" + what + ")"; };
  for (const auto& [key, value] : before) {
    const auto other = after.find(key);
    if (other == after.end()) add(key, value + ", now unknown");
    else if (other->second != value) add(key, value + ", now " + other->second);
  }
  for (const auto& [key, value] : after) {
    if (!before.contains(key)) add(key, "unknown then, now " + value);
  }
  return text;
}
}  // namespace

Result<base::FileLock> lock_run(const std::filesystem::path& run_dir) {
  auto lock = base::FileLock::take(run_dir / ".lock", {});
  if (!lock && lock.error().code == ErrorCode::unavailable)
    return Error{ErrorCode::unavailable, "the run in " + run_dir.string() + " is being run by another process: see it with " +
                                             "./stagecoach status, stop it with Ctrl-C where it was started"};
  return lock;
}

Result<std::unique_ptr<RunStore>> RunStore::open(Options options, fleet::Options& fleet) {
  auto store = std::unique_ptr<RunStore>(new RunStore(std::move(options)));
  // Before the books: a folder whose data cannot be trained on must not look like one that holds a run.
  if (!fleet.paced)
    if (auto offered = store->offer_shards(fleet); !offered) return offered.error();
  if (auto opened = store->open_books(fleet); !opened) return opened.error();
  return store;
}

Result<void> RunStore::open_books(fleet::Options& fleet) {
  const auto path = options_.run_dir / "books.db";
  const std::string layout_text = model::canonical_text(fleet.split);
  store::RunRecord record{new_run_id(), fleet.config_id, fleet.config_text, layout_text, std::time(nullptr)};
  auto books = options_.resume ? store::Books::open(path) : store::Books::create(path, record);
  if (!books) return books.error();
  auto state = books->load();
  if (!state) return state.error();
  if (state->run.config != fleet.config_id)
    return Error{ErrorCode::mismatch, "this run was begun with other mathematics: " +
                                          differences(state->run.config_text, fleet.config_text) +
                                          ": resume with the config in its folder, or begin a new run"};
  auto term = books->begin_term();
  if (!term) return term.error();
  state = books->load();  // again: only from now on can nobody else write
  if (!state) return state.error();
  books_.emplace(std::move(*books));
  term_ = *term;
  fleet.run = state->run.run;
  fleet.term = *term;
  fleet.last_attempt = state->attempt;
  fleet.last_views.assign(fleet.split.size(), base::ViewNumber());
  for (const auto& view : state->views)
    if (view.stage.value() < fleet.last_views.size()) fleet.last_views[view.stage.value()] = view.number;
  for (const auto& row : state->incarnations) {
    fleet.ever_admitted.insert({row.peer, row.incarnation});
    standings_[{row.peer, row.incarnation}] = row.standing;
  }
  meta_ = {fleet.run, fleet.config_text, base::Step(), fleet.split, "", meta_.shards_manifest};
  fleet.committed = state->newest_step();
  return options_.resume ? go_back_to_checkpoint(fleet) : Result<void>();
}

Result<void> RunStore::offer_shards(fleet::Options& fleet) {
  auto shards = data::TokenShards::open(options_.shards, {fleet.config.model.vocab, false});
  if (!shards) return shards.error();
  auto cutter = data::BatchCutter::make(std::move(*shards), fleet.config.batch, fleet.config.model.vocab);
  if (!cutter) return cutter.error();  // too small a corpus is found here, not by the first head
  const auto& opened = cutter->shards();
  meta_.shards_manifest = opened.manifest_hash();
  for (const auto& shard : opened.manifest().shards) {
    auto ref = objects_.offer(options_.shards / shard.file, shard.file);
    if (!ref) return ref.error();
    if (ref->sha256 != shard.sha256)
      return Error{ErrorCode::corrupt, "the token shard " + (options_.shards / shard.file).string() +
                                           " was changed after it was built (SHA-256 " + ref->sha256.short_hex() + ", its manifest says " +
                                           shard.sha256.short_hex() + "): remove its folder and let it be built again"};
    fleet.shards.push_back(*ref);
  }
  auto manifest = objects_.offer(options_.shards / "manifest.json", "manifest.json");
  if (!manifest) return manifest.error();
  fleet.shards.push_back(*manifest);
  return {};
}

Result<void> RunStore::go_back_to_checkpoint(fleet::Options& fleet) {
  const base::Step committed = fleet.committed;
  RETURN_IF_ERROR(set_aside_beyond(committed, "the books end at step " + std::to_string(committed.value())));
  auto newest = store::newest_complete(checkpoints());
  if (!newest && newest.error().code != ErrorCode::not_found) return newest.error();
  fleet.committed = newest ? newest->manifest.meta.step : base::Step();
  if (newest) {
    if (!newest->report.empty()) findings_.push_back(newest->report);
    if (newest->manifest.meta.run != fleet.run)
      return Error{ErrorCode::mismatch, newest->path.string() + " belongs to another run: it was put here by hand; take it away"};
    if (newest->manifest.meta.shards_manifest != meta_.shards_manifest)
      return Error{ErrorCode::mismatch, "the run was trained on other token shards (manifest " +
                                            newest->manifest.meta.shards_manifest.short_hex() + ") than those in " + options_.shards.string() +
                                            " (" + meta_.shards_manifest.short_hex() + "): give it the same text or shards"};
    if (newest->manifest.meta.config_text != fleet.config_text)
      return Error{ErrorCode::mismatch, newest->path.string() + " was made with other mathematics: " +
                                            differences(newest->manifest.meta.config_text, fleet.config_text) +
                                            ": it was put here by hand; take it away"};
    // One that cannot be read today may be readable tomorrow, when the run has gone on from the older one.
    RETURN_IF_ERROR(set_aside_beyond(fleet.committed, "the run goes on from step " + std::to_string(fleet.committed.value())));
    if (!newest->manifest.meta.numerics_class.empty())
      findings_.push_back("trained so far with " + newest->manifest.meta.numerics_class + "; other kernels would give other bits");
    if (auto offered = offer_state(*newest, fleet); !offered) return offered.error();
    resumed_from_ = store::CheckpointRow{fleet.committed, newest->path.string()};
  }
  if (fleet.committed < committed) {
    findings_.push_back("steps " + std::to_string(fleet.committed.value() + 1) + " to " + std::to_string(committed.value()) +
                        " were committed after the newest checkpoint: they are computed again and come out the same");
    return books_->truncate_after(term_, fleet.committed);
  }
  return {};
}

Result<void> RunStore::set_aside_beyond(base::Step step, const std::string& why) {
  auto found = store::list_checkpoints(checkpoints());
  if (!found) return found.error();
  const std::string last = store::checkpoint_name(step);
  for (const auto& path : *found) {
    const std::string name = path.filename().string();
    if (name.size() < last.size() || (name.size() == last.size() && name <= last)) continue;
    const std::filesystem::path aside = path.string() + ".superseded";
    RETURN_IF_ERROR(base::remove_tree(aside));
    std::error_code error;
    std::filesystem::rename(path, aside, error);
    if (error) return base::file_error("rename", path, error.value());
    findings_.push_back(name + " is set aside as " + aside.filename().string() + ": " + why);
  }
  return found->empty() ? Result<void>() : base::sync_directory(checkpoints());
}

Result<void> RunStore::offer_state(const store::NewestCheckpoint& newest, fleet::Options& fleet) {
  // Which file holds which tensor: a resume into another split gives each stage the files that hold its own.
  std::vector<std::pair<wire::ObjectRef, std::set<std::string>>> files;
  for (const auto& file : newest.manifest.files) {
    auto opened = store::SafetensorsFile::open(newest.path / file.file);
    if (!opened) return opened.error();
    std::set<std::string> names;
    for (const auto& entry : opened->entries()) names.insert(entry.name);
    auto ref = objects_.offer(newest.path / file.file, file.file);
    if (!ref) return ref.error();
    files.emplace_back(*ref, std::move(names));
  }
  for (std::uint64_t stage = 0; fleet.paced && stage < fleet.split.size(); ++stage) {
    auto& wanted = fleet.state.emplace_back();  // words of the stages as they were cut: another split has other ones
    for (const auto& [ref, names] : files)
      if (names.contains(paced::exported_name(stage, 0))) wanted.push_back(ref);
  }
  if (fleet.paced) return {};
  for (const auto& range : fleet.split) {
    auto& wanted = fleet.state.emplace_back();
    for (const auto& [ref, names] : files) {
      const auto own = model::parameters(fleet.config.model, range);
      if (std::any_of(own.begin(), own.end(), [&](const auto& p) { return names.contains(p.name); })) wanted.push_back(ref);
    }
  }
  return {};
}

Result<void> RunStore::write(const fleet::ViewRecord& record) {
  for (const auto& eviction : record.evictions) {
    store::IncarnationRow row{eviction.peer, eviction.incarnation, eviction.stage, store::Standing::evicted, eviction.reason};
    standings_[{row.peer, row.incarnation}] = row.standing;
    RETURN_IF_ERROR(books_->write_incarnation(term_, row));
  }
  store::ViewRow row{record.attempt, {}};
  for (const auto& view : record.stages) {
    store::StageView stage{view.stage, view.number, {}};
    for (const auto& member : view.members) {
      stage.members.push_back({member.peer, member.incarnation});
      if (!standings_.try_emplace({member.peer, member.incarnation}, store::Standing::admitted).second) continue;
      RETURN_IF_ERROR(books_->write_incarnation(term_, {member.peer, member.incarnation, view.stage, store::Standing::admitted, ""}));
    }
    row.views.push_back(std::move(stage));
  }
  return books_->write_view(term_, row);
}

Result<void> RunStore::write(const fleet::CommitRecord& record) {
  store::CommitRow row{record.step, record.attempt, {}, record.global_norm, record.train_losses, record.eval_losses};
  for (const auto& stage : record.stages) row.stages.push_back({stage.view, stage.hash});
  return books_->write_commit(term_, row);
}

void RunStore::begin_checkpoint(base::WeightVersion version) {
  gathered_.clear();
  meta_.step = base::Step(version.value());
}

void RunStore::abandon_checkpoint() { gathered_.clear(); }

void RunStore::add_chunk(base::StageIndex stage, const wire::StateChunk& chunk) {
  Gathered& tensor = gathered_[stage][chunk.name];
  if (tensor.bytes.empty()) {
    tensor.dtype = static_cast<base::DType>(chunk.dtype);
    std::size_t bytes = base::bytes_per_element(tensor.dtype);
    for (std::uint64_t extent : chunk.shape) {
      tensor.shape.push_back(static_cast<std::int64_t>(extent));
      bytes *= extent;  // the brain has bounded the product
    }
    tensor.bytes.resize(bytes);
  }
  // A name that comes twice with another shape cannot write beyond the first one's bytes; the checkpoint then fails its own checks.
  if (chunk.offset + chunk.bytes->size() <= tensor.bytes.size())
    std::memcpy(tensor.bytes.data() + chunk.offset, chunk.bytes->data(), chunk.bytes->size());
}

Result<std::string> RunStore::finish_checkpoint(const std::string& numerics_class) {
  auto stages = std::exchange(gathered_, {});
  meta_.numerics_class = numerics_class;
  auto writer = store::CheckpointWriter::begin(checkpoints(), meta_, {options_.keep_checkpoints});
  if (!writer) return writer.error();
  for (auto& [stage, tensors] : stages) {
    std::vector<base::NamedTensor> named;
    for (auto& [name, tensor] : tensors)
      named.push_back({name, {tensor.dtype, tensor.shape, base::make_payload(std::move(tensor.bytes))}});
    RETURN_IF_ERROR(writer->add_stage_file(stage, named));
  }
  auto path = writer->commit();
  if (!path) return path.error();
  RETURN_IF_ERROR(books_->write_checkpoint(term_, {meta_.step, path->string()}));
  return path->string();
}

}  // namespace stagecoach::world::real
