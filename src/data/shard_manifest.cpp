#include "data/shard_manifest.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "data/json_fields.h"

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
using Json = nlohmann::json;

constexpr char kFormat[] = "stagecoach-shards";

void read_shards(JsonFields& root, ShardManifest& manifest, std::string& wrong) {
  const Json* list = root.list("shards");
  if (list == nullptr) return;
  std::int64_t tokens = 0;
  for (const Json& entry : *list) {
    JsonFields fields(entry, wrong);
    ShardInfo shard;
    shard.file = fields.text("file");
    shard.tokens = fields.integer("tokens", 1, kTokensMax);
    shard.sha256 = fields.sha256("sha256");
    // Only this name is a name: a manifest from elsewhere must not point outside its folder.
    if (shard.file != shard_file_name(manifest.shards.size())) fields.complain("file", "is not the name of that shard");
    tokens += shard.tokens;
    if (tokens > kTokensMax) fields.complain("tokens", "add up to too many");
    if (!wrong.empty()) return;
    manifest.shards.push_back(std::move(shard));
  }
  if (tokens != manifest.tokens()) root.complain("shards", "do not add up to the training and validation tokens");
}

}  // namespace

std::string shard_file_name(std::size_t position) {
  char name[40];
  std::snprintf(name, sizeof name, "shard-%05zu.tokens", position);
  return name;
}

std::int64_t token_bytes_for(std::int64_t vocab) { return vocab <= 256 ? 1 : vocab <= 65'536 ? 2 : 4; }

std::string canonical_text(const ShardManifest& manifest) {
  Json shards = Json::array();
  for (const ShardInfo& shard : manifest.shards) {
    shards.push_back({{"file", shard.file}, {"tokens", shard.tokens}, {"sha256", shard.sha256.hex()}});
  }
  const Json root = {
      {"format", kFormat},
      {"version", kShardFormatVersion},
      {"tokenizer", {{"name", manifest.tokenizer.name}, {"sha256", manifest.tokenizer.hash.hex()}}},
      {"vocab", manifest.vocab},
      {"token_bytes", manifest.token_bytes},
      {"source_sha256", manifest.source_sha256.hex()},
      {"holdout_fraction", manifest.holdout_fraction},
      {"tokens", manifest.tokens()},
      {"train_tokens", manifest.train_tokens},
      {"validation_tokens", manifest.validation_tokens},
      {"shards", shards},
  };
  return root.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<ShardManifest> parse_shard_manifest(const std::string& text) {
  const Json root = Json::parse(text, nullptr, false);
  if (root.is_discarded() || !root.is_object()) return Error{ErrorCode::corrupt, "is not JSON"};
  std::string wrong;
  JsonFields fields(root, wrong);
  if (fields.text("format") != kFormat) return Error{ErrorCode::corrupt, "is not a manifest of token shards"};
  const std::int64_t version = fields.integer("version", 0, INT64_MAX);
  if (version != kShardFormatVersion) {
    return Error{ErrorCode::mismatch, "is of format version " + std::to_string(version) +
                                          ", and this program reads version " + std::to_string(kShardFormatVersion) +
                                          ": build the shards anew"};
  }
  ShardManifest manifest;
  if (const Json* tokenizer = fields.member("tokenizer"); tokenizer != nullptr) {
    JsonFields inner(*tokenizer, wrong);
    manifest.tokenizer = {inner.text("name"), inner.sha256("sha256")};
  } else {
    fields.complain("tokenizer", "is missing");
  }
  manifest.vocab = fields.integer("vocab", 1, kVocabMax);
  manifest.token_bytes = fields.integer("token_bytes", 1, 4);
  manifest.source_sha256 = fields.sha256("source_sha256");
  manifest.holdout_fraction = fields.number("holdout_fraction");
  manifest.train_tokens = fields.integer("train_tokens", 0, kTokensMax);
  manifest.validation_tokens = fields.integer("validation_tokens", 0, kTokensMax);
  if (manifest.token_bytes != token_bytes_for(manifest.vocab))
    fields.complain("token_bytes", "does not fit the vocabulary");
  if (fields.integer("tokens", 1, kTokensMax) != manifest.tokens())
    fields.complain("tokens", "is not training + validation");
  if (wrong.empty()) read_shards(fields, manifest, wrong);
  if (!wrong.empty()) return Error{ErrorCode::corrupt, wrong};
  return manifest;
}

}  // namespace stagecoach::data
