// Finding, checking and reading checkpoints.
#include <algorithm>
#include <system_error>

#include "digest/digest.h"
#include "store/checkpoint.h"
#include "store/safetensors.h"

namespace stagecoach::store {
namespace {

using base::Error;
using base::ErrorCode;
using base::NamedTensor;
using base::Result;
namespace fs = std::filesystem;

constexpr char kManifestFile[] = "manifest.json";
constexpr std::size_t kManifestBytesMax = 64u << 20;

/// The step of a checkpoint's folder name.
std::optional<base::Step> step_of(const fs::path& path) {
  const std::string name = path.filename().string();
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix) || name.size() > kPrefix.size() + 18) return std::nullopt;
  std::uint64_t step = 0;
  for (const char c : name.substr(kPrefix.size())) {
    if (c < '0' || c > '9') return std::nullopt;
    step = step * 10 + static_cast<std::uint64_t>(c - '0');
  }
  if (name != checkpoint_name(base::Step(step))) return std::nullopt;
  return base::Step(step);
}

Result<void> verify_file(const fs::path& path, const CheckpointFile& file) {
  digest::Sha256Stream hash;
  std::uint64_t bytes = 0;
  auto read = base::read_in_pieces(path / file.file, [&](std::span<const std::byte> piece) {
    hash.update(piece);
    bytes += piece.size();
  });
  if (!read.ok()) {
    return Error{ErrorCode::corrupt,
                 file.file + (read.error().code == ErrorCode::not_found ? " is missing"
                                                                        : " cannot be read: " + read.error().message)};
  }
  if (bytes != file.bytes) {
    return Error{ErrorCode::corrupt, file.file + " has " + std::to_string(bytes) + " bytes, and the manifest says " +
                                         std::to_string(file.bytes)};
  }
  if (hash.finish() != file.sha256)
    return Error{ErrorCode::corrupt, file.file + " does not have the SHA-256 that the manifest gives"};
  return {};
}

/// Reads the manifest and compares every file with it.
Result<CheckpointManifest> read_verified(const fs::path& path) {
  auto manifest = read_checkpoint(path);
  if (!manifest.ok()) return manifest.error();
  if (path.filename() != checkpoint_name(manifest->meta.step)) {
    return Error{ErrorCode::corrupt, "its manifest is that of step " + std::to_string(manifest->meta.step.value())};
  }
  RETURN_IF_ERROR(verify_checkpoint(path, *manifest));
  return manifest;
}

std::string sentence_about(const std::vector<DamagedCheckpoint>& damaged) {
  std::string text;
  for (const DamagedCheckpoint& one : damaged) {
    text += (text.empty() ? "" : "; ") + one.path.filename().string() + " is damaged, because " + one.reason;
  }
  return text;
}

}  // namespace

Result<std::vector<fs::path>> list_checkpoints(const fs::path& directory) {
  std::vector<std::pair<base::Step, fs::path>> found;
  std::error_code failed;
  fs::directory_iterator entry(directory, failed);
  if (failed == std::errc::no_such_file_or_directory) return std::vector<fs::path>{};
  for (; !failed && entry != fs::directory_iterator(); entry.increment(failed)) {
    if (const auto step = step_of(entry->path())) found.emplace_back(*step, entry->path());
  }
  if (failed) return base::file_error("list", directory, failed.value());
  std::sort(found.begin(), found.end(), std::greater<>());
  std::vector<fs::path> paths;
  for (auto& [step, path] : found) paths.push_back(std::move(path));
  return paths;
}

Result<NewestCheckpoint> newest_complete(const fs::path& directory) {
  auto checkpoints = list_checkpoints(directory);
  if (!checkpoints.ok()) return checkpoints.error();
  if (checkpoints->empty()) return Error{ErrorCode::not_found, "there is no checkpoint in " + directory.string()};
  NewestCheckpoint newest;
  for (const fs::path& path : *checkpoints) {
    auto manifest = read_verified(path);
    if (!manifest.ok()) {
      newest.damaged.push_back({path, manifest.error().message});
      continue;
    }
    newest.path = path;
    newest.manifest = std::move(*manifest);
    if (!newest.damaged.empty()) {
      newest.report = sentence_about(newest.damaged) + "; the older complete one is " + path.filename().string();
    }
    return newest;
  }
  return Error{ErrorCode::corrupt,
               "there is no complete checkpoint in " + directory.string() + ": " + sentence_about(newest.damaged)};
}

Result<CheckpointManifest> read_checkpoint(const fs::path& path) {
  auto text = base::read_text_file(path / kManifestFile, kManifestBytesMax);
  if (!text.ok() && text.error().code == ErrorCode::not_found) {
    std::error_code ignored;
    if (!fs::exists(path, ignored)) return Error{ErrorCode::not_found, "there is no checkpoint at " + path.string()};
    return Error{ErrorCode::corrupt, std::string(kManifestFile) + " is missing"};
  }
  if (!text.ok()) return text.error();
  auto manifest = parse_checkpoint_manifest(*text);
  if (!manifest.ok()) return Error{manifest.error().code, std::string(kManifestFile) + " " + manifest.error().message};
  return manifest;
}

Result<void> verify_checkpoint(const fs::path& path, const CheckpointManifest& manifest) {
  for (const CheckpointFile& file : manifest.files) RETURN_IF_ERROR(verify_file(path, file));
  return {};
}

Result<std::vector<NamedTensor>> read_tensors(const fs::path& path,
                                              const std::optional<std::vector<std::string>>& names) {
  auto manifest = read_checkpoint(path);
  if (!manifest.ok()) return manifest.error().within(path.string());
  struct Place {
    std::size_t file = 0;
    const TensorEntry* entry = nullptr;
  };
  std::vector<SafetensorsFile> files;
  for (const CheckpointFile& file : manifest->files) {
    auto opened = SafetensorsFile::open(path / file.file);
    if (!opened.ok()) return opened.error();
    files.push_back(std::move(opened).value());
  }
  std::map<std::string, Place> places;
  for (std::size_t i = 0; i < files.size(); ++i) {
    for (const TensorEntry& entry : files[i].entries()) {
      if (!places.emplace(entry.name, Place{i, &entry}).second) {
        return Error{ErrorCode::corrupt, path.string() + ": tensor \"" + entry.name + "\" lies in two files"};
      }
    }
  }
  std::vector<std::string> wanted = names.value_or(std::vector<std::string>{});
  if (!names) {
    for (const auto& [name, place] : places) wanted.push_back(name);
  }
  std::vector<bool> verified(files.size());
  std::vector<NamedTensor> tensors;
  for (const std::string& name : wanted) {
    const auto place = places.find(name);
    if (place == places.end()) {
      return Error{ErrorCode::not_found,
                   path.string() + " has no tensor \"" + name + "\": is it the checkpoint of another model?"};
    }
    const std::size_t i = place->second.file;
    if (!verified[i]) {
      if (auto result = verify_file(path, manifest->files[i]); !result.ok())
        return result.error().within(path.string());
    }
    verified[i] = true;
    tensors.push_back(files[i].read(*place->second.entry));
  }
  return tensors;
}

}  // namespace stagecoach::store
