#include "data/blocks.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/files.h"
#include "data/byte_stream.h"
#include "data/python_child.h"
#include "digest/digest.h"

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::uint32_t kNullRow = 0xffffffff;
constexpr std::uint64_t kRowsMax = 1u << 16;  // of a block, where rows are short

std::string too_long(std::uint64_t bytes) {
  return "is longer (" + std::to_string(bytes) + " bytes) than the " + std::to_string(kDocumentBytesMax) +
         " bytes that a document may have";
}

/// Text and lines: a window of unpacked bytes that moves over the input.
class StreamBlocks final : public BlockReader {
 public:
  StreamBlocks(const Input& input, std::size_t index, std::unique_ptr<ByteStream> stream)
      : input_(input), index_(index), stream_(std::move(stream)) {}

  Result<void> go_to(const Place& place) {
    std::string ignored(kBlockBytes, '\0');
    for (std::uint64_t left = place.byte; left > 0;) {
      auto count = stream_->read(std::span(ignored).first(std::min<std::uint64_t>(left, kBlockBytes)));
      if (!count) return count.error();
      if (*count == 0) return Error{ErrorCode::corrupt, input_.name + " is shorter than when this build began"};
      left -= *count;
    }
    at_ = place;
    return {};
  }

  Result<std::optional<Block>> next() override {
    if (ended_) return std::optional<Block>();
    Block block;
    block.input = index_;
    block.at = at_;
    RETURN_IF_ERROR(fill(kBlockBytes));
    RETURN_IF_ERROR(input_.format == InputFormat::text ? cut_text(block) : cut_lines(block));
    if (whole_ && window_.empty()) RETURN_IF_ERROR(close(block));
    block.raw_bytes = stream_->raw_bytes();
    return std::optional(std::move(block));
  }

 private:
  /// Grows the window to `bytes`, or to the end of the input.
  Result<void> fill(std::size_t bytes) {
    while (!whole_ && window_.size() < bytes) {
      const std::size_t held = window_.size();
      window_.resize(bytes);
      auto count = stream_->read(std::span(window_).subspan(held));
      window_.resize(held + (count ? *count : 0));
      if (!count && count.error().code != ErrorCode::corrupt) return count.error();
      if (!count) damage_ = count.error().message;
      whole_ = !count || *count == 0;
    }
    return {};
  }

  Result<void> cut_text(Block& block) {
    block.opens = at_.byte == 0;
    std::size_t bytes = 0;
    const auto left = [&] { return std::string_view(window_).substr(bytes); };
    while (left().size() >= kPieceBytes || (whole_ && !left().empty())) bytes += piece_bytes(left());
    take(block, bytes, 0);
    return {};
  }

  Result<void> cut_lines(Block& block) {
    std::size_t end = window_.rfind('\n');
    for (std::size_t searched = window_.size(); end == std::string::npos && !whole_; searched = window_.size()) {
      if (searched > kDocumentBytesMax) return skip_long_line(block);
      RETURN_IF_ERROR(fill(searched + kBlockBytes));
      end = window_.find('\n', searched);
    }
    const bool unfinished = end == std::string::npos;
    const std::size_t bytes = unfinished ? window_.size() : end + 1;
    const auto lines = static_cast<std::uint64_t>(std::count(window_.begin(), window_.begin() + bytes, '\n'));
    if (unfinished && whole_ && !damage_.empty()) {
      // The last line of a damaged file is a part of one: a document made of it would be half of what it was.
      window_.clear();
      at_.byte += bytes;
      return {};
    }
    take(block, bytes, lines + (unfinished && bytes > 0 ? 1 : 0));
    return {};
  }

  /// Consumes a line that is too long to be held.
  Result<void> skip_long_line(Block& block) {
    std::uint64_t bytes = 0;
    std::size_t end = std::string::npos;
    while ((end = window_.find('\n')) == std::string::npos && !(whole_ && window_.empty())) {
      bytes += window_.size();
      window_.clear();
      RETURN_IF_ERROR(fill(kBlockBytes));
    }
    const std::size_t rest = end == std::string::npos ? 0 : end + 1;
    bytes += rest;
    window_.erase(0, rest);
    block.broken.push_back({where_in(input_, at_), too_long(bytes)});
    at_ = {at_.byte + bytes, at_.record + 1};
    return {};
  }

  void take(Block& block, std::size_t bytes, std::uint64_t records) {
    block.bytes.assign(window_, 0, bytes);
    window_.erase(0, bytes);
    at_ = {at_.byte + bytes, at_.record + records};
  }

  Result<void> close(Block& block) {
    ended_ = true;
    if (!damage_.empty()) block.broken.push_back({input_.name, damage_});
    block.closes = input_.format == InputFormat::text;
    auto end = stream_->end();
    if (!end) return end.error();
    block.source_end = *end;
    return {};
  }

  const Input& input_;
  std::size_t index_;
  std::unique_ptr<ByteStream> stream_;
  std::string window_;
  std::string damage_;  // what ended the stream before its end
  bool whole_ = false;  // the window holds all that is left
  bool ended_ = false;
  Place at_;
};

/// Parquet: rows from a Python process.
class ParquetBlocks final : public BlockReader {
 public:
  ParquetBlocks(const Input& input, std::size_t index, const Place& from, PythonChild child, SourceEnd end)
      : input_(input), index_(index), child_(std::move(child)), end_(end), at_(from) {}

  Result<std::optional<Block>> next() override {
    if (ended_) return std::optional<Block>();
    Block block;
    block.input = index_;
    block.at = at_;
    if (rows_ == 0 && !begun_) RETURN_IF_ERROR(begin(block));
    while (!ended_ && block.bytes.size() < kBlockBytes && at_.record - block.at.record < kRowsMax) {
      if (row_ == lengths_.size()) {
        RETURN_IF_ERROR(receive(block));
        continue;
      }
      take_row(block);
    }
    block.raw_bytes = rows_ == 0
                          ? 0
                          : static_cast<std::uint64_t>(static_cast<double>(input_.bytes) *
                                                       static_cast<double>(at_.record) / static_cast<double>(rows_));
    if (ended_) {
      block.source_end = end_;
      block.raw_bytes = input_.bytes;
    }
    return std::optional(std::move(block));
  }

 private:
  Result<void> begin(Block& block) {
    begun_ = true;
    auto hello = child_.receive();
    if (!hello) return damaged(block, hello.error());
    rows_ = base::ByteReader(*hello).u64();
    return {};
  }

  Result<void> receive(Block& block) {
    if (ended_) return {};
    auto frame = child_.receive();
    if (!frame) return damaged(block, frame.error());
    frame_ = std::move(*frame);
    base::ByteReader reader(frame_);
    const std::uint64_t rows = reader.u64();
    if (rows > reader.remaining() / 4) return Error{ErrorCode::internal, "the Parquet helper sent half a frame"};
    lengths_.assign(static_cast<std::size_t>(rows), 0);
    std::uint64_t bytes = 0;
    for (std::uint32_t& length : lengths_) {
      length = reader.u32();
      bytes += length == kNullRow ? 0 : length;
    }
    if (bytes != reader.remaining()) return Error{ErrorCode::internal, "the Parquet helper sent half a frame"};
    row_ = 0;
    next_byte_ = frame_.size() - reader.remaining();
    ended_ = rows == 0;
    return {};
  }

  void take_row(Block& block) {
    const std::uint32_t length = lengths_[row_++];
    const std::size_t bytes = length == kNullRow ? 0 : length;
    if (length == kNullRow) {
      block.broken.push_back({where_in(input_, at_), "is null"});
    } else if (bytes > kDocumentBytesMax) {
      block.broken.push_back({where_in(input_, at_), too_long(bytes)});
    } else {
      block.bytes.append(base::as_text(std::span(frame_).subspan(next_byte_, bytes)));
      block.rows.push_back({block.bytes.size(), at_.record});
    }
    next_byte_ += bytes;
    ++at_.record;
  }

  /// A file that cannot be read further ends here; anything else ends the build.
  Result<void> damaged(Block& block, const Error& error) {
    if (error.code != ErrorCode::corrupt) return error.within(input_.name);
    block.broken.push_back({input_.name, error.message});
    ended_ = true;
    return {};
  }

  const Input& input_;
  std::size_t index_;
  PythonChild child_;
  SourceEnd end_;
  Place at_;
  base::Bytes frame_;
  std::vector<std::uint32_t> lengths_;  // of the frame's rows
  std::size_t row_ = 0, next_byte_ = 0;
  std::uint64_t rows_ = 0;
  bool begun_ = false, ended_ = false;
};

Result<std::unique_ptr<BlockReader>> open_parquet(const Input& input, std::size_t index, const Place& from,
                                                  const BlockReader::Options& options) {
  if (input.compression != Compression::none) {
    return Error{ErrorCode::invalid_argument,
                 input.name + ": a Parquet file is read from many places at once and is compressed inside: unpack it"};
  }
  digest::Sha256Stream hash;
  SourceEnd end;
  RETURN_IF_ERROR(base::read_in_pieces(input.path, [&](std::span<const std::byte> piece) {
    hash.update(piece);
    end.bytes += piece.size();
  }));
  end.sha256 = hash.finish();
  auto child = PythonChild::start(options.python,
                                  {"parquet", input.path.string(), options.text_field, std::to_string(from.record)});
  if (!child) return child.error().within(input.name);
  return std::unique_ptr<BlockReader>(std::make_unique<ParquetBlocks>(input, index, from, std::move(*child), end));
}

}  // namespace

Result<std::unique_ptr<BlockReader>> BlockReader::open(const Input& input, std::size_t index, const Place& from,
                                                       const Options& options) {
  if (input.format == InputFormat::parquet) return open_parquet(input, index, from, options);
  auto stream = ByteStream::open(input);
  if (!stream) return stream.error();
  auto reader = std::make_unique<StreamBlocks>(input, index, std::move(*stream));
  RETURN_IF_ERROR(reader->go_to(from));
  return std::unique_ptr<BlockReader>(std::move(reader));
}

std::string where_in(const Input& input, const Place& place) {
  if (input.format == InputFormat::parquet) return input.name + " row " + std::to_string(place.record + 1);
  std::string where = input.name;
  if (input.format != InputFormat::text) where += " line " + std::to_string(place.record + 1);
  return where + " (byte " + std::to_string(place.byte) +
         (input.compression == Compression::none ? ")" : " of its unpacked text)");
}

std::size_t piece_bytes(std::string_view text) {
  if (text.size() < kPieceBytes) return text.size();
  const std::string_view head = text.substr(0, kPieceBytes);
  if (const std::size_t newline = head.rfind('\n'); newline != std::string_view::npos) return newline + 1;
  constexpr std::size_t kCharacterBytesMax = 4;
  for (std::size_t back = 1; back < kCharacterBytesMax; ++back) {
    const auto byte = static_cast<unsigned char>(head[head.size() - back]);
    if ((byte & 0xc0) == 0x80) continue;          // inside a character
    if (byte >= 0xc0) return head.size() - back;  // begins one, which may not be whole
    break;
  }
  return head.size();
}

}  // namespace stagecoach::data
