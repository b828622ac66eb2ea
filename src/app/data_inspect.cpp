// `stagecoach data inspect`: what a folder of shards holds, for people.
#include <algorithm>
#include <filesystem>
#include <ostream>
#include <vector>

#include "app/data_command.h"
#include "app/data_progress.h"
#include "app/generate_stream.h"
#include "app/interpreter.h"
#include "app/view_text.h"
#include "data/document_index.h"
#include "data/shards.h"

namespace stagecoach::app {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::int64_t kDocumentsShown = 3;
constexpr std::int64_t kTokensOfStart = 60;
constexpr std::int64_t kTokensShownMax = 100'000;            // of a document that was asked for
constexpr std::int64_t kLengthsMax = std::int64_t{1} << 26;  // held at once; of more documents every nth

Result<std::unique_ptr<data::Tokenizer>> tokenizer_of(const data::TokenShards& shards, const std::string& python) {
  const data::TokenizerId& id = shards.manifest().tokenizer;
  const std::string file = data::tokenizer_file_name(id.name);
  auto opened = data::open_tokenizer(file.empty() ? id.name : (shards.directory() / file).string(), {python});
  if (opened && (*opened)->id() != id)
    return Error{ErrorCode::mismatch, (shards.directory() / file).string() + " is not the tokenizer of these shards"};
  return opened;
}

/// The text of a document's first `tokens_max` tokens, without its mark, safe to show.
Result<std::string> text_of(const data::TokenShards& shards, const data::DocumentRange& range, std::int64_t tokens_max,
                            data::Tokenizer& tokenizer) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(std::min(range.end - range.first, tokens_max)));
  RETURN_IF_ERROR(shards.copy(range.first, tokens));
  if (range.end - range.first <= tokens_max && shards.manifest().end_of_document == tokens.back()) tokens.pop_back();
  auto text = tokenizer.decode(tokens);
  if (!text) return text;
  Utf8Stream safe;
  return safe.push(*text) + safe.finish();
}

void show_lengths(const data::DocumentIndex& documents, std::ostream& out) {
  std::vector<std::int64_t> lengths;
  const std::int64_t every = (documents.documents() + kLengthsMax - 1) / kLengthsMax;
  lengths.reserve(static_cast<std::size_t>(documents.documents() / every + 1));
  std::int64_t number = 0;
  double sum = 0;
  documents.for_each([&](const data::DocumentRange& range) {
    sum += static_cast<double>(range.end - range.first);
    if (number++ % every == 0) lengths.push_back(range.end - range.first);
  });
  std::sort(lengths.begin(), lengths.end());
  // The nearest rank: the smallest length that this part of the documents does not exceed.
  const auto percentile = [&](std::size_t percent) {
    return exact_text(lengths[(percent * lengths.size() + 99) / 100 - 1]);
  };
  out << "tokens a document: mean " << exact_text(static_cast<std::int64_t>(sum / static_cast<double>(number) + 0.5))
      << ", 10 % have at most " << percentile(10) << ", half " << percentile(50) << ", 90 % " << percentile(90)
      << ", 99 % " << percentile(99) << ", all " << percentile(100) << "\n";
}

void show_manifest(const data::TokenShards& shards, std::ostream& out) {
  const data::ShardManifest& m = shards.manifest();
  out << "folder     " << shards.directory().string() << " (manifest " << shards.manifest_hash().short_hex(16) << ")\n"
      << "tokenizer  " << m.tokenizer.name << " " << m.tokenizer.hash.short_hex(16) << ", " << exact_text(m.vocab)
      << " ids, " << m.token_bytes << (m.token_bytes == 1 ? " byte" : " bytes") << " a token\n"
      << "tokens     " << exact_text(m.tokens()) << " in " << m.shards.size() << " shards; "
      << exact_text(m.validation_tokens) << " held out\n";
  if (m.version != data::kManifestVersion) return;
  out << "documents  " << exact_text(m.documents) << ", each followed by "
      << (m.end_of_document ? "token " + std::to_string(*m.end_of_document) : "nothing")
      << "; left out: " << exact_text(m.empty_documents) << " empty, " << exact_text(m.broken_records) << " broken\n"
      << "text       " << bytes_text(static_cast<double>(m.text_bytes)) << " from " << m.sources.size()
      << (m.sources.size() == 1 ? " file" : " files");
  if (m.tokens() > 0) {
    char bytes[32];
    std::snprintf(bytes, sizeof bytes, "%.2f", static_cast<double>(m.text_bytes) / static_cast<double>(m.tokens()));
    out << ", " << bytes << " bytes a token";
  }
  out << "\n";
}

Result<void> inspect(const DataInspectOptions& options, std::ostream& out) {
  auto shards = data::TokenShards::open(options.directory, {});
  if (!shards) return shards.error();
  auto documents = data::DocumentIndex::open(options.directory, shards->manifest());
  if (!documents && (documents.error().code != ErrorCode::not_found || options.document)) return documents.error();
  const std::string python = python_interpreter(options.python);
  if (options.document) {
    if (*options.document < 0 || *options.document >= documents->documents()) {
      return Error{ErrorCode::invalid_argument, "--document: expected 0 to " +
                                                    std::to_string(documents->documents() - 1) + ", got " +
                                                    std::to_string(*options.document)};
    }
    auto tokenizer = tokenizer_of(*shards, python);
    if (!tokenizer) return tokenizer.error();
    const data::DocumentRange range = documents->at(*options.document);
    auto text = text_of(*shards, range, kTokensShownMax, **tokenizer);
    if (!text) return text.error();
    out << "document " << *options.document << ": tokens " << range.first << " to " << range.end - 1 << " ("
        << exact_text(range.end - range.first) << ")\n"
        << *text << "\n";
    return {};
  }
  show_manifest(*shards, out);
  if (!documents) return {};
  show_lengths(*documents, out);
  auto tokenizer = tokenizer_of(*shards, python);
  if (!tokenizer) return tokenizer.error();
  for (std::int64_t i = 0; i < std::min(kDocumentsShown, documents->documents()); ++i) {
    auto text = text_of(*shards, documents->at(i), kTokensOfStart, **tokenizer);
    if (!text) return text.error();
    std::replace(text->begin(), text->end(), '\n', ' ');
    out << "document " << i << ": " << *text << "\n";
  }
  return {};
}

}  // namespace

int run_data_inspect(const DataInspectOptions& options, std::ostream& out, std::ostream& err) {
  const Result<void> done = inspect(options, out);
  if (done) return 0;
  err << "stagecoach data inspect: " << done.error().message << "\n";
  return 1;
}

}  // namespace stagecoach::app
