#include "data/shard_manifest.h"

#include <cmath>
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

std::string file_name(std::size_t position, const char* ending) {
  char name[48];
  std::snprintf(name, sizeof name, "shard-%05zu.%s", position, ending);
  return name;
}

void read_sources(JsonFields& root, ShardManifest& manifest, std::string& wrong) {
  const Json* list = root.list("sources");
  if (list == nullptr) return;
  for (const Json& entry : *list) {
    JsonFields fields(entry, wrong);
    SourceInfo source;
    source.format = fields.text("format");
    source.bytes = static_cast<std::uint64_t>(fields.integer("bytes", 0, INT64_MAX));
    source.sha256 = fields.sha256("sha256");
    if (!wrong.empty()) return;
    manifest.sources.push_back(std::move(source));
  }
}

void read_documents(JsonFields& root, ShardManifest& manifest, std::string& wrong) {
  if (const Json* end = root.member("end_of_document"); end == nullptr) {
    root.complain("end_of_document", "is missing");
  } else if (!end->is_null()) {
    manifest.end_of_document = static_cast<std::int32_t>(root.integer("end_of_document", 0, manifest.vocab - 1));
  }
  manifest.text_field = root.text("text_field");
  manifest.tokens_per_shard = root.integer("tokens_per_shard", 1, kTokensMax);
  manifest.documents = root.integer("documents", 1, kTokensMax);
  manifest.empty_documents = root.integer("empty_documents", 0, INT64_MAX);
  manifest.broken_records = root.integer("broken_records", 0, INT64_MAX);
  manifest.text_bytes = root.integer("text_bytes", 0, INT64_MAX);
  if (wrong.empty()) read_sources(root, manifest, wrong);
}

void read_shards(JsonFields& root, ShardManifest& manifest, std::string& wrong) {
  const Json* list = root.list("shards");
  if (list == nullptr) return;
  const bool with_documents = manifest.version == kManifestVersion;
  std::int64_t tokens = 0, documents = 0;
  for (const Json& entry : *list) {
    JsonFields fields(entry, wrong);
    ShardInfo shard;
    shard.file = fields.text("file");
    shard.tokens = fields.integer("tokens", 1, kTokensMax);
    shard.sha256 = fields.sha256("sha256");
    if (with_documents) {
      shard.documents = fields.integer("documents", 0, shard.tokens);
      shard.documents_sha256 = fields.sha256("documents_sha256");
    }
    // Only this name is a name: a manifest from elsewhere must not point outside its folder.
    if (shard.file != shard_file_name(manifest.shards.size())) fields.complain("file", "is not the name of that shard");
    const bool last = manifest.shards.size() + 1 == list->size();
    if (with_documents && (last ? shard.tokens > manifest.tokens_per_shard : shard.tokens != manifest.tokens_per_shard))
      fields.complain("tokens", "do not fit the tokens in a shard");
    tokens += shard.tokens;
    documents += shard.documents;
    if (tokens > kTokensMax) fields.complain("tokens", "add up to too many");
    if (!wrong.empty()) return;
    manifest.shards.push_back(std::move(shard));
  }
  if (tokens != manifest.tokens()) root.complain("shards", "do not add up to the training and validation tokens");
  if (documents != manifest.documents) root.complain("shards", "do not add up to the documents");
}

}  // namespace

std::string shard_file_name(std::size_t position) { return file_name(position, "tokens"); }

std::string document_file_name(std::size_t position) { return file_name(position, "documents"); }

std::int64_t token_bytes_for(std::int64_t vocab) { return vocab <= 256 ? 1 : vocab <= 65'536 ? 2 : 4; }

std::int64_t validation_tokens_of(std::int64_t tokens, double holdout_fraction) {
  return static_cast<std::int64_t>(std::floor(static_cast<double>(tokens) * holdout_fraction));
}

std::string canonical_text(const ShardManifest& manifest) {
  Json shards = Json::array();
  for (const ShardInfo& shard : manifest.shards) {
    shards.push_back({{"file", shard.file},
                      {"tokens", shard.tokens},
                      {"sha256", shard.sha256.hex()},
                      {"documents", shard.documents},
                      {"documents_sha256", shard.documents_sha256.hex()}});
  }
  Json sources = Json::array();
  for (const SourceInfo& source : manifest.sources) {
    sources.push_back({{"format", source.format}, {"bytes", source.bytes}, {"sha256", source.sha256.hex()}});
  }
  const Json root = {
      {"format", kFormat},
      {"version", kManifestVersion},
      {"tokenizer", {{"name", manifest.tokenizer.name}, {"sha256", manifest.tokenizer.hash.hex()}}},
      {"vocab", manifest.vocab},
      {"token_bytes", manifest.token_bytes},
      {"end_of_document", manifest.end_of_document ? Json(*manifest.end_of_document) : Json(nullptr)},
      {"text_field", manifest.text_field},
      {"sources", sources},
      {"holdout_fraction", manifest.holdout_fraction},
      {"tokens_per_shard", manifest.tokens_per_shard},
      {"documents", manifest.documents},
      {"empty_documents", manifest.empty_documents},
      {"broken_records", manifest.broken_records},
      {"text_bytes", manifest.text_bytes},
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
  ShardManifest manifest;
  manifest.version = fields.integer("version", 0, INT64_MAX);
  if (manifest.version != kManifestVersion && manifest.version != kManifestVersionWithoutDocuments) {
    return Error{ErrorCode::mismatch, "is of format version " + std::to_string(manifest.version) +
                                          ", and this program reads versions " +
                                          std::to_string(kManifestVersionWithoutDocuments) + " and " +
                                          std::to_string(kManifestVersion) + ": build the shards anew"};
  }
  if (const Json* tokenizer = fields.member("tokenizer"); tokenizer != nullptr) {
    JsonFields inner(*tokenizer, wrong);
    manifest.tokenizer = {inner.text("name"), inner.sha256("sha256")};
  } else {
    fields.complain("tokenizer", "is missing");
  }
  manifest.vocab = fields.integer("vocab", 1, kVocabMax);
  manifest.token_bytes = fields.integer("token_bytes", 1, 4);
  manifest.holdout_fraction = fields.number("holdout_fraction");
  manifest.train_tokens = fields.integer("train_tokens", 0, kTokensMax);
  manifest.validation_tokens = fields.integer("validation_tokens", 0, kTokensMax);
  if (manifest.token_bytes != token_bytes_for(manifest.vocab))
    fields.complain("token_bytes", "does not fit the vocabulary");
  if (fields.integer("tokens", 1, kTokensMax) != manifest.tokens())
    fields.complain("tokens", "is not training + validation");
  if (wrong.empty() && manifest.version == kManifestVersion) read_documents(fields, manifest, wrong);
  if (wrong.empty()) read_shards(fields, manifest, wrong);
  if (!wrong.empty()) return Error{ErrorCode::corrupt, wrong};
  return manifest;
}

}  // namespace stagecoach::data
