// Writing a checkpoint: everything into a hidden folder, durable, then one rename.
#include <fcntl.h>
#include <stdio.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "digest/digest.h"
#include "store/checkpoint.h"
#include "store/checkpoint_hash.h"
#include "store/safetensors.h"

namespace stagecoach::store {
namespace {

using base::Error;
using base::ErrorCode;
using base::NamedTensor;
using base::Result;
namespace fs = std::filesystem;

constexpr char kManifestFile[] = "manifest.json";

std::string partial_name(const std::string& checkpoint) { return "." + checkpoint + ".partial"; }

/// Removes what writers that died left behind. Only under the folder's lock.
Result<void> remove_leftovers(const fs::path& directory) {
  std::error_code failed;
  fs::directory_iterator entry(directory, failed);
  std::vector<fs::path> leftovers;
  for (; !failed && entry != fs::directory_iterator(); entry.increment(failed)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(".step-") && name.ends_with(".partial")) leftovers.push_back(entry->path());
  }
  if (failed) return base::file_error("list", directory, failed.value());
  for (const fs::path& path : leftovers) RETURN_IF_ERROR(base::remove_tree(path));
  return {};
}

}  // namespace

Result<CheckpointWriter> CheckpointWriter::begin(const fs::path& directory, const CheckpointMeta& meta,
                                                 const CheckpointOptions& options) {
  CHECK(options.keep >= 1, "the checkpoint that is written is kept");
  CHECK(!meta.split.empty(), "a model has at least one stage");
  RETURN_IF_ERROR(base::make_directories(directory));
  auto lock = base::FileLock::take(directory / ".lock", {});
  if (!lock.ok()) return lock.error();
  RETURN_IF_ERROR(remove_leftovers(directory));
  CheckpointWriter writer(directory, meta, options, std::move(lock).value());
  if (auto made = base::make_directories(writer.partial_.path); !made.ok()) return writer.explained(made.error());
  return writer;
}

CheckpointWriter::CheckpointWriter(fs::path directory, CheckpointMeta meta, CheckpointOptions options,
                                   base::FileLock lock)
    : directory_(std::move(directory)),
      options_(options),
      lock_(std::move(lock)),
      partial_(directory_ / partial_name(checkpoint_name(meta.step))) {
  manifest_.meta = std::move(meta);
}

CheckpointWriter::~CheckpointWriter() {
  // What cannot be removed here is removed by the next begin.
  if (!partial_.path.empty()) static_cast<void>(base::remove_tree(partial_.path));
}

Result<void> CheckpointWriter::add_stage_file(base::StageIndex stage, std::span<const NamedTensor> tensors) {
  auto& files = manifest_.files;
  const std::string name = stage_file_name(stage);
  const bool known =
      std::any_of(files.begin(), files.end(), [&](const CheckpointFile& file) { return file.stage == stage; });
  if (known || stage.value() >= manifest_.meta.split.size()) {
    return Error{ErrorCode::invalid_argument, name + " comes twice, or is not one of the " +
                                                  std::to_string(manifest_.meta.split.size()) + " stages of the split"};
  }
  auto written = write_safetensors(partial_.path / name, tensors, {{"format", "stagecoach"}});
  if (!written.ok()) return explained(written.error());
  for (const NamedTensor& tensor : tensors) {
    if (!tensor_hashes_.emplace(tensor.name, tensor_sha256(tensor)).second) {
      return Error{ErrorCode::invalid_argument, "tensor \"" + tensor.name + "\" comes from two stages"};
    }
  }
  files.push_back({stage, name, written->bytes, written->sha256});
  return {};
}

Result<fs::path> CheckpointWriter::commit() {
  auto& files = manifest_.files;
  if (files.size() != manifest_.meta.split.size()) {
    return Error{ErrorCode::invalid_argument, "the checkpoint has the files of " + std::to_string(files.size()) +
                                                  " stages, and the split has " +
                                                  std::to_string(manifest_.meta.split.size())};
  }
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.stage < b.stage; });
  manifest_.weights_sha256 = combined_sha256(tensor_hashes_, HashedPart::weights);
  manifest_.state_sha256 = combined_sha256(tensor_hashes_, HashedPart::weights_and_optimizer_state);

  auto write_manifest = [&]() -> Result<void> {
    auto file = base::FileWriter::create(partial_.path / kManifestFile);
    if (!file.ok()) return file.error();
    RETURN_IF_ERROR(file->write(base::as_bytes(canonical_text(manifest_))));
    RETURN_IF_ERROR(file->finish());
    return base::sync_directory(partial_.path);
  };
  if (auto written = write_manifest(); !written.ok()) return explained(written.error());
  const fs::path final_path = directory_ / checkpoint_name(manifest_.meta.step);
  if (auto placed = put_in_place(final_path); !placed.ok()) return explained(placed.error());
  partial_.path.clear();
  // The checkpoint stands; what could not be removed is tried again after the next one.
  static_cast<void>(prune());
  return final_path;
}

Result<void> CheckpointWriter::put_in_place(const fs::path& final_path) {
  std::error_code failed;
  if (fs::exists(final_path, failed)) {
    // One move, so that a kill leaves either the old or the new one under the name.
    if (::renameat2(AT_FDCWD, partial_.path.c_str(), AT_FDCWD, final_path.c_str(), RENAME_EXCHANGE) == 0) {
      // The new one is in place; what cannot be removed of the old one is removed by the next begin.
      static_cast<void>(base::remove_tree(partial_.path));
      return base::sync_directory(directory_);
    }
    if (errno != EINVAL && errno != ENOSYS) return base::file_error("replace", final_path, errno);
    // This file system cannot exchange two folders.
    RETURN_IF_ERROR(base::remove_tree(final_path));
  }
  fs::rename(partial_.path, final_path, failed);
  if (failed) return base::file_error("rename to", final_path, failed.value());
  return base::sync_directory(directory_);
}

Result<void> CheckpointWriter::prune() const {
  auto checkpoints = list_checkpoints(directory_);
  if (!checkpoints.ok()) return checkpoints.error();
  // Newer ones than this are of a future that was rolled back: they do not count, or they would push out the one just
  // written.
  const std::string own = checkpoint_name(manifest_.meta.step);
  auto oldest_kept =
      std::find_if(checkpoints->begin(), checkpoints->end(), [&](const fs::path& p) { return p.filename() == own; });
  for (std::size_t i = 0; i < options_.keep && oldest_kept != checkpoints->end(); ++i) ++oldest_kept;
  for (; oldest_kept != checkpoints->end(); ++oldest_kept) {
    // First out of sight: half a removed folder must not look like a damaged checkpoint.
    const fs::path hidden = directory_ / partial_name(oldest_kept->filename().string());
    std::error_code failed;
    fs::rename(*oldest_kept, hidden, failed);
    if (failed) return base::file_error("remove", *oldest_kept, failed.value());
    RETURN_IF_ERROR(base::remove_tree(hidden));
  }
  return {};
}

Error CheckpointWriter::explained(const Error& error) const {
  if (error.code != ErrorCode::out_of_space)
    return error.within("checkpoint of step " + std::to_string(manifest_.meta.step.value()));
  auto older = list_checkpoints(directory_);
  const bool any = older.ok() && !older->empty();
  return Error{error.code, "no space for the checkpoint of step " + std::to_string(manifest_.meta.step.value()) + " (" +
                               error.message + "): free some space in " + directory_.string() +
                               " or keep fewer checkpoints; " +
                               (any ? "the older checkpoint " + older->front().string() + " is untouched"
                                    : std::string("there is no older checkpoint"))};
}

}  // namespace stagecoach::store
