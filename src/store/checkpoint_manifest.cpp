// The checkpoint's manifest as text, its names, and its hashes over tensors.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "data/json_fields.h"
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
using base::Sha256;
using data::JsonFields;
using Json = nlohmann::json;

constexpr char kFormat[] = "stagecoach-checkpoint";
constexpr std::int64_t kVersion = 1;
constexpr std::int64_t kStagesMax = 65'536;
constexpr std::int64_t kLayersMax = 1 << 20;

std::string run_text(base::RunId run) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(run.value()));
  return text;
}

bool parse_run(const std::string& text, base::RunId& run) {
  if (text.size() != 16) return false;
  std::uint64_t value = 0;
  for (const char c : text) {
    const auto digit = std::string_view("0123456789abcdef").find(c);
    if (digit == std::string_view::npos) return false;
    value = value << 4 | digit;
  }
  run = base::RunId(value);
  return true;
}

void read_split(JsonFields& root, model::Split& split) {
  const Json* list = root.list("split");
  if (list == nullptr) return;
  if (list->size() > static_cast<std::size_t>(kStagesMax)) return root.complain("split", "has too many stages");
  std::int64_t at = 0;
  for (const Json& range : *list) {
    const bool two =
        range.is_array() && range.size() == 2 && range[0].is_number_unsigned() && range[1].is_number_unsigned();
    const std::uint64_t first = two ? range[0].get<std::uint64_t>() : 1;
    const std::uint64_t last = two ? range[1].get<std::uint64_t>() : 0;
    if (first != static_cast<std::uint64_t>(at) || last <= first || last > static_cast<std::uint64_t>(kLayersMax)) {
      return root.complain("split", "is not a row of layer ranges");
    }
    at = static_cast<std::int64_t>(last);
    split.push_back({static_cast<std::int64_t>(first), at});
  }
}

void read_files(JsonFields& root, CheckpointManifest& manifest, std::string& wrong) {
  const Json* list = root.list("files");
  if (list == nullptr) return;
  for (const Json& entry : *list) {
    JsonFields fields(entry, wrong);
    CheckpointFile file;
    file.stage = base::StageIndex(manifest.files.size());
    file.file = fields.text("file");
    file.bytes = static_cast<std::uint64_t>(fields.integer("bytes", 0, INT64_MAX));
    file.sha256 = fields.sha256("sha256");
    // Only this name is a name: a manifest from elsewhere must not point outside its folder.
    if (file.file != stage_file_name(file.stage)) fields.complain("file", "is not the name of that stage's file");
    manifest.files.push_back(std::move(file));
  }
  if (manifest.files.size() != manifest.meta.split.size())
    root.complain("files", "are not one for each stage of the split");
}

Sha256 hash_of(std::span<const NamedTensor> tensors, HashedPart part) {
  std::map<std::string, Sha256> hashes;
  for (const NamedTensor& tensor : tensors) {
    CHECK(hashes.emplace(tensor.name, tensor_sha256(tensor)).second, "tensor names are unique in a model");
  }
  return combined_sha256(hashes, part);
}

}  // namespace

std::string checkpoint_name(base::Step step) {
  char name[40];
  std::snprintf(name, sizeof name, "step-%08llu", static_cast<unsigned long long>(step.value()));
  return name;
}

std::string stage_file_name(base::StageIndex stage) {
  char name[48];
  std::snprintf(name, sizeof name, "stage-%02llu.safetensors", static_cast<unsigned long long>(stage.value()));
  return name;
}

std::string canonical_text(const CheckpointManifest& manifest) {
  Json split = Json::array(), files = Json::array();
  for (const model::StageRange& range : manifest.meta.split)
    split.push_back(std::vector<std::int64_t>{range.first, range.last});
  for (const CheckpointFile& file : manifest.files) {
    files.push_back(Json{{"file", file.file}, {"bytes", file.bytes}, {"sha256", file.sha256.hex()}});
  }
  const Json root = {
      {"format", kFormat},
      {"version", kVersion},
      {"run", run_text(manifest.meta.run)},
      {"config", manifest.meta.config_text},
      {"step", manifest.meta.step.value()},
      {"split", split},
      {"numerics_class", manifest.meta.numerics_class},
      {"shards_manifest_sha256", manifest.meta.shards_manifest.hex()},
      {"files", files},
      {"weights_sha256", manifest.weights_sha256.hex()},
      {"state_sha256", manifest.state_sha256.hex()},
  };
  return root.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<CheckpointManifest> parse_checkpoint_manifest(const std::string& text) {
  const Json root = Json::parse(text, nullptr, false);
  if (root.is_discarded() || !root.is_object()) return Error{ErrorCode::corrupt, "is not JSON"};
  std::string wrong;
  JsonFields fields(root, wrong);
  if (fields.text("format") != kFormat) return Error{ErrorCode::corrupt, "is not a checkpoint's manifest"};
  const std::int64_t version = fields.integer("version", 0, INT64_MAX);
  if (version != kVersion) {
    return Error{ErrorCode::mismatch, "is of format version " + std::to_string(version) +
                                          ", and this program reads version " + std::to_string(kVersion) +
                                          ": use the program that wrote it"};
  }
  CheckpointManifest manifest;
  if (!parse_run(fields.text("run"), manifest.meta.run)) fields.complain("run", "is not 16 hexadecimal digits");
  manifest.meta.config_text = fields.text("config");
  manifest.meta.step = base::Step(static_cast<std::uint64_t>(fields.integer("step", 0, INT64_MAX)));
  manifest.meta.numerics_class = fields.text("numerics_class");
  manifest.meta.shards_manifest = fields.sha256("shards_manifest_sha256");
  manifest.weights_sha256 = fields.sha256("weights_sha256");
  manifest.state_sha256 = fields.sha256("state_sha256");
  read_split(fields, manifest.meta.split);
  if (wrong.empty()) read_files(fields, manifest, wrong);
  if (!wrong.empty()) return Error{ErrorCode::corrupt, wrong};
  return manifest;
}

Sha256 tensor_sha256(const NamedTensor& tensor) {
  std::string text = tensor.name + "\n" + safetensors_dtype(tensor.tensor.dtype) + "\n";
  for (std::size_t i = 0; i < tensor.tensor.shape.size(); ++i) {
    text += (i > 0 ? "," : "") + std::to_string(tensor.tensor.shape[i]);
  }
  return digest::sha256(text + "\n" + digest::sha256(*tensor.tensor.bytes).hex() + "\n");
}

bool is_optimizer_state(const std::string& name) { return name.starts_with("optimizer."); }

Sha256 combined_sha256(const std::map<std::string, Sha256>& hashes, HashedPart part) {
  std::string text;
  for (const auto& [name, hash] : hashes) {
    if (part == HashedPart::weights_and_optimizer_state || !is_optimizer_state(name)) text += hash.hex() + "\n";
  }
  return digest::sha256(text);
}

Sha256 weights_sha256(std::span<const NamedTensor> tensors) { return hash_of(tensors, HashedPart::weights); }

Sha256 state_sha256(std::span<const NamedTensor> tensors) {
  return hash_of(tensors, HashedPart::weights_and_optimizer_state);
}

}  // namespace stagecoach::store
