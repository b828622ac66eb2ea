#include "data/shard_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace stagecoach::data {
namespace {

using base::Result;

constexpr std::string_view kTokenMagic = "SCTOKENS";
constexpr std::string_view kDocumentMagic = "SCDOCUMS";
constexpr std::uint32_t kFileVersion = 1;
constexpr std::uint32_t kPositionBytes = 8;

}  // namespace

base::Bytes shard_header(std::int64_t vocab, std::int64_t tokens) {
  base::ByteWriter header;
  header.raw(base::as_bytes(kTokenMagic));
  header.u32(kFileVersion);
  header.u32(static_cast<std::uint32_t>(token_bytes_for(vocab)));
  header.u64(static_cast<std::uint64_t>(tokens));
  header.u64(static_cast<std::uint64_t>(vocab));
  return header.take();
}

base::Bytes document_header(std::int64_t first_token, std::int64_t first_document) {
  base::ByteWriter header;
  header.raw(base::as_bytes(kDocumentMagic));
  header.u32(kFileVersion);
  header.u32(kPositionBytes);
  header.u64(static_cast<std::uint64_t>(first_token));
  header.u64(static_cast<std::uint64_t>(first_document));
  return header.take();
}

ShardWriter::ShardWriter(std::filesystem::path directory, const Layout& layout, OnShard on_shard)
    : directory_(std::move(directory)),
      layout_(layout),
      token_bytes_(static_cast<std::size_t>(token_bytes_for(layout.vocab))),
      on_shard_(std::move(on_shard)) {
  CHECK(layout.vocab > 0 && layout.tokens_per_shard > 0, "a layout is checked before shards are written in it");
}

void ShardWriter::go_on(std::vector<ShardInfo> whole, std::int64_t position, std::int64_t documents) {
  CHECK(shards_.empty() && written_ == 0, "a writer goes on before it has written");
  shards_ = std::move(whole);
  position_ = position;
  documents_ = documents;
  for (const ShardInfo& shard : shards_) written_ += shard.tokens;
  CHECK(position_ <= written_, "no token lies between what is whole and what comes");
}

Result<void> ShardWriter::append(std::span<const std::byte> packed, std::span<const std::uint64_t> starts) {
  const std::int64_t begin = position_;
  const auto tokens = static_cast<std::int64_t>(packed.size() / token_bytes_);
  std::size_t start = 0;
  const auto pass_start = [&](std::int64_t before) {
    if (start == starts.size() || begin + static_cast<std::int64_t>(starts[start]) >= before) return false;
    ++start;
    ++documents_;
    return true;
  };
  while (pass_start(written_)) {  // in shards that are whole
  }
  while (written_ < begin + tokens) {
    if (!open_) RETURN_IF_ERROR(begin_shard());
    const std::int64_t left = layout_.tokens_per_shard - open_->info.tokens;
    const std::int64_t count = std::min(left, begin + tokens - written_);
    const auto from = static_cast<std::size_t>(written_ - begin) * token_bytes_;
    RETURN_IF_ERROR(open_->tokens.write(packed.subspan(from, static_cast<std::size_t>(count) * token_bytes_)));
    written_ += count;
    open_->info.tokens += count;
    base::ByteWriter positions;
    for (std::size_t first = start; pass_start(written_); first = start) {
      positions.u64(static_cast<std::uint64_t>(begin) + starts[first]);
      ++open_->info.documents;
    }
    RETURN_IF_ERROR(open_->documents.write(positions.take()));
    if (open_->info.tokens == layout_.tokens_per_shard) RETURN_IF_ERROR(end_shard());
  }
  position_ = begin + tokens;
  return {};
}

Result<void> ShardWriter::finish() { return open_ ? end_shard() : Result<void>(); }

Result<void> ShardWriter::HashedFile::write(std::span<const std::byte> bytes) {
  hash.update(bytes);
  return file.write(bytes);
}

Result<ShardWriter::HashedFile> ShardWriter::create(const std::string& name, const base::Bytes& header) const {
  // What lies there is the unfinished file of a build that ended.
  RETURN_IF_ERROR(base::remove_tree(directory_ / name));
  auto file = base::FileWriter::create(directory_ / name);
  if (!file) return file.error();
  HashedFile out{std::move(*file), {}};
  RETURN_IF_ERROR(out.write(header));
  return out;
}

Result<void> ShardWriter::begin_shard() {
  ShardInfo info;
  info.file = shard_file_name(shards_.size());
  auto tokens = create(info.file, shard_header(layout_.vocab, layout_.tokens_per_shard));
  if (!tokens) return tokens.error();
  auto documents = create(document_file_name(shards_.size()), document_header(written_, documents_));
  if (!documents) return documents.error();
  open_.emplace(Open{std::move(*tokens), std::move(*documents), std::move(info)});
  return {};
}

Result<void> ShardWriter::end_shard() {
  RETURN_IF_ERROR(open_->tokens.file.finish());
  RETURN_IF_ERROR(open_->documents.file.finish());
  ShardInfo info = open_->info;
  info.sha256 = open_->tokens.hash.finish();
  info.documents_sha256 = open_->documents.hash.finish();
  open_.reset();
  if (info.tokens < layout_.tokens_per_shard) {
    auto hash = correct_header(info);
    if (!hash) return hash.error();
    info.sha256 = *hash;
  }
  RETURN_IF_ERROR(base::sync_directory(directory_));
  shards_.push_back(info);
  return on_shard_ ? on_shard_(info) : Result<void>();
}

Result<base::Sha256> ShardWriter::correct_header(const ShardInfo& info) const {
  const std::filesystem::path path = directory_ / info.file;
  const base::Bytes header = shard_header(layout_.vocab, info.tokens);
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (descriptor < 0) return base::file_error("open", path, errno);
  const bool written = ::pwrite(descriptor, header.data(), header.size(), 0) == static_cast<ssize_t>(header.size()) &&
                       ::fsync(descriptor) == 0;
  const int failed = errno;
  ::close(descriptor);
  if (!written) return base::file_error("write", path, failed);
  digest::Sha256Stream hash;
  RETURN_IF_ERROR(base::read_in_pieces(path, [&](std::span<const std::byte> piece) { hash.update(piece); }));
  return hash.finish();
}

}  // namespace stagecoach::data
