#include "data/block_encoder.h"

#include <algorithm>
#include <cstring>

#include "data/shard_manifest.h"

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

template <class Id>
void pack_as(std::span<const std::int32_t> ids, std::byte* to) {
  // x86-64 and AArch64 are little-endian, as the format is; a loop without a branch becomes vector code.
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto id = static_cast<Id>(ids[i]);
    std::memcpy(to + i * sizeof(Id), &id, sizeof(Id));
  }
}

void pack_ids(std::span<const std::int32_t> ids, std::int64_t token_bytes, std::byte* to) {
  if (token_bytes == 1) return pack_as<std::uint8_t>(ids, to);
  if (token_bytes == 2) return pack_as<std::uint16_t>(ids, to);
  pack_as<std::uint32_t>(ids, to);
}

}  // namespace

BlockEncoder::BlockEncoder(std::unique_ptr<Tokenizer> tokenizer, Options options)
    : tokenizer_(std::move(tokenizer)),
      options_(std::move(options)),
      token_bytes_(token_bytes_for(tokenizer_->vocab())),
      json_(options_.text_field) {}

Result<EncodedBlock> BlockEncoder::encode(Block block, const Input& input) {
  find_documents(block, input);
  const bool whole = input.format != InputFormat::text;
  std::vector<std::string_view> texts;
  pieces_.clear();
  EncodedBlock out;
  for (const Document& document : documents_) {
    std::string_view left = document.text;
    out.text_bytes += left.size();
    std::size_t pieces = 0;
    do {
      const std::size_t bytes = piece_bytes(left);
      texts.push_back(left.substr(0, bytes));
      left.remove_prefix(bytes);
      ++pieces;
    } while (!left.empty());
    pieces_.push_back(pieces);
  }
  if (!texts.empty()) {
    auto encoded = tokenizer_->encode(texts);
    if (!encoded) return encoded.error();
    CHECK(encoded->ends.size() == texts.size(), "a tokenizer answers for every text");
    pack(*encoded, out, whole);
  }
  block.bytes = {};
  block.rows = {};
  out.block = std::move(block);
  return out;
}

void BlockEncoder::find_documents(Block& block, const Input& input) {
  documents_.clear();
  switch (input.format) {
    case InputFormat::text:
      if (!block.bytes.empty()) documents_.push_back({block.bytes, block.at});
      break;
    case InputFormat::lines:
      find_in_lines(block);
      break;
    case InputFormat::jsonl:
      find_json(block, input);
      return;  // simdjson has seen to the UTF-8
    case InputFormat::parquet: {
      std::size_t begin = 0;
      for (const BlockRow& row : block.rows) {
        documents_.push_back({std::string_view(block.bytes).substr(begin, row.end - begin), {0, row.record}});
        begin = row.end;
      }
      break;
    }
  }
  if (!tokenizer_->takes_any_bytes()) drop_foreign_bytes(block, input);
}

void BlockEncoder::find_in_lines(const Block& block) {
  const std::string_view bytes = block.bytes;
  Place at = block.at;
  for (std::size_t begin = 0; begin < bytes.size();) {
    const std::size_t end = std::min(bytes.find('\n', begin), bytes.size());
    std::string_view line = bytes.substr(begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    documents_.push_back({line, at});
    const std::size_t next = std::min(end + 1, bytes.size());
    at = {at.byte + (next - begin), at.record + 1};
    begin = next;
  }
}

void BlockEncoder::find_json(Block& block, const Input& input) {
  // Both are sized before anything points into them: padding behind the last line, and room for all texts, none of
  // which is longer than its line.
  block.bytes.reserve(block.bytes.size() + JsonLineReader::kPaddingBytes);
  find_in_lines(block);
  texts_.clear();
  texts_.reserve(block.bytes.size());
  std::size_t kept = 0;
  for (const Document& document : documents_) {
    if (is_blank(document.text)) continue;
    const auto text = json_.text_of(document.text);
    if (!text) {
      block.broken.push_back({where_in(input, document.at), text.error().message});
      continue;
    }
    const std::size_t begin = texts_.size();
    texts_.append(*text);
    documents_[kept++] = {std::string_view(texts_).substr(begin), document.at};
  }
  documents_.resize(kept);
}

void BlockEncoder::drop_foreign_bytes(Block& block, const Input& input) {
  std::size_t kept = 0;
  for (const Document& document : documents_) {
    const std::size_t good = utf8_bytes(document.text);
    if (good == document.text.size()) {
      documents_[kept++] = document;
      continue;
    }
    // A text is named by the very byte; a line or row by its number and the byte within.
    Place at = document.at;
    std::string why = "is not UTF-8, which this tokenizer needs";
    if (input.format == InputFormat::text) {
      at.byte += good;
    } else {
      why += ": at byte " + std::to_string(good) + " of it";
    }
    block.broken.push_back({where_in(input, at), why});
  }
  documents_.resize(kept);
}

void BlockEncoder::pack(const Encoded& encoded, EncodedBlock& out, bool whole) const {
  const auto width = static_cast<std::size_t>(token_bytes_);
  const bool marked = whole && options_.end_of_document.has_value();
  out.packed.resize((encoded.ids.size() + (marked ? documents_.size() : 0)) * width);
  std::size_t from = 0, piece = 0;
  for (std::size_t d = 0; d < documents_.size(); ++d) {
    piece += pieces_[d];
    const std::size_t to = encoded.ends[piece - 1];
    if (to == from) {
      out.empty += whole ? 1 : 0;
      continue;
    }
    if (whole) out.starts.push_back(out.tokens);
    pack_ids(std::span(encoded.ids).subspan(from, to - from), token_bytes_, out.packed.data() + out.tokens * width);
    out.tokens += to - from;
    if (marked) {
      pack_ids(std::span(&*options_.end_of_document, 1), token_bytes_, out.packed.data() + out.tokens * width);
      ++out.tokens;
    }
    from = to;
  }
  out.packed.resize(out.tokens * width);
}

}  // namespace stagecoach::data
