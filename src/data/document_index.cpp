#include "data/document_index.h"

#include <algorithm>

#include "data/shard_writer.h"

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::size_t kPositionBytes = 8;

std::uint64_t position_at(std::span<const std::byte> file, std::size_t place) {
  return base::ByteReader(file.subspan(kShardHeaderBytes + place * kPositionBytes, kPositionBytes)).u64();
}

}  // namespace

Result<DocumentIndex> DocumentIndex::open(const std::filesystem::path& directory, const ShardManifest& manifest) {
  if (manifest.version != kManifestVersion) {
    return Error{ErrorCode::not_found, directory.string() +
                                           " is of an older format, which does not say where documents " +
                                           "begin: build the shards anew"};
  }
  DocumentIndex index;
  index.tokens_ = manifest.tokens();
  std::int64_t token = 0;
  for (std::size_t i = 0; i < manifest.shards.size(); ++i) {
    const ShardInfo& shard = manifest.shards[i];
    const std::filesystem::path path = directory / document_file_name(i);
    auto file = base::MappedFile::open(path);
    if (!file && file.error().code == ErrorCode::not_found)
      return Error{ErrorCode::corrupt, path.string() + " is missing, and the manifest counts on it"};
    if (!file) return file.error();
    const std::string problem = problem_of_documents(file->bytes(), shard, token, index.documents_);
    if (!problem.empty()) return Error{ErrorCode::corrupt, path.string() + " " + problem};
    if (shard.documents > 0) index.files_.push_back({std::move(*file), index.documents_, shard.documents});
    index.documents_ += shard.documents;
    token += shard.tokens;
  }
  return index;
}

DocumentRange DocumentIndex::at(std::int64_t number) const {
  CHECK(number >= 0 && number < documents_, "a document is one of those that are there");
  auto file = std::upper_bound(files_.begin(), files_.end(), number,
                               [](std::int64_t wanted, const File& each) { return wanted < each.first; });
  --file;
  const std::int64_t place = number - file->first;
  const bool last_of_file = place + 1 == file->count;
  const auto next = file + 1;
  const std::int64_t end = !last_of_file          ? start_of(*file, place + 1)
                           : next == files_.end() ? tokens_
                                                  : start_of(*next, 0);
  return {start_of(*file, place), end};
}

void DocumentIndex::for_each(const std::function<void(const DocumentRange&)>& take) const {
  std::int64_t before = -1;
  for (const File& file : files_) {
    for (std::int64_t i = 0; i < file.count; ++i) {
      const std::int64_t start = start_of(file, i);
      if (before >= 0) take({before, start});
      before = start;
    }
  }
  if (before >= 0) take({before, tokens_});
}

std::int64_t DocumentIndex::start_of(const File& file, std::int64_t place) const {
  return static_cast<std::int64_t>(position_at(file.bytes.bytes(), static_cast<std::size_t>(place)));
}

std::string problem_of_documents(std::span<const std::byte> file, const ShardInfo& shard, std::int64_t first_token,
                                 std::int64_t first_document) {
  const std::uint64_t expected = kShardHeaderBytes + static_cast<std::uint64_t>(shard.documents) * kPositionBytes;
  if (file.size() != expected) {
    return "has " + std::to_string(file.size()) + " bytes where the manifest's " + std::to_string(shard.documents) +
           " documents take " + std::to_string(expected);
  }
  const base::Bytes header = document_header(first_token, first_document);
  if (!std::equal(header.begin(), header.end(), file.begin()))
    return "has a header that does not agree with the manifest";
  std::uint64_t before = 0;
  const auto end = static_cast<std::uint64_t>(first_token + shard.tokens);
  for (std::size_t i = 0; i < static_cast<std::size_t>(shard.documents); ++i) {
    const std::uint64_t position = position_at(file, i);
    if (position < static_cast<std::uint64_t>(first_token) || position >= end || (i > 0 && position <= before))
      return "lets document " + std::to_string(first_document + static_cast<std::int64_t>(i)) + " begin at token " +
             std::to_string(position) + ", which is out of order or outside of its shard";
    before = position;
  }
  if (first_document == 0 && shard.documents > 0 && position_at(file, 0) != static_cast<std::uint64_t>(first_token))
    return "lets the first document begin after the first token";
  return {};
}

}  // namespace stagecoach::data
