// Turns one block into the bytes that stand in a shard.
//
// In:      a block and a tokenizer. Out: its ids, packed, with the places where documents begin.
// Thread:  one object a thread.
// Why:     this is all the work of a build that many cores can share; whatever needs order comes after it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "data/blocks.h"
#include "data/json_line.h"
#include "data/tokenizer.h"

namespace stagecoach::data {

/// A block's tokens. The documents of a text, which may lie in several blocks, are put together later.
struct EncodedBlock {
  Block block;         // its bytes and rows were consumed
  base::Bytes packed;  // ids, token_bytes each, little-endian
  std::uint64_t tokens = 0;
  std::vector<std::uint64_t> starts;  // the positions in this block at which its whole documents begin
  std::uint64_t empty = 0;            // documents that gave no token
  std::uint64_t text_bytes = 0;       // of the documents' texts
};

class BlockEncoder {
 public:
  struct Options {
    std::string text_field = "text";
    std::optional<std::int32_t> end_of_document;  // put after each whole document
  };
  BlockEncoder(std::unique_ptr<Tokenizer> tokenizer, Options options);

  /// Broken lines and rows are added to the block's. A document of kPieceBytes or more is tokenised in pieces.
  ///
  /// errors: those of Tokenizer::encode
  base::Result<EncodedBlock> encode(Block block, const Input& input);

 private:
  struct Document {
    std::string_view text;
    Place at;
  };
  void find_documents(Block& block, const Input& input);
  void find_in_lines(const Block& block);
  void find_json(Block& block, const Input& input);
  void drop_foreign_bytes(Block& block, const Input& input);
  void pack(const Encoded& encoded, EncodedBlock& out, bool whole) const;

  std::unique_ptr<Tokenizer> tokenizer_;
  Options options_;
  std::int64_t token_bytes_;
  JsonLineReader json_;
  std::vector<Document> documents_;  // of the block at work
  std::string texts_;                // JSON: what their texts point into
  std::vector<std::size_t> pieces_;  // for each document, how many texts the tokenizer is given
};

}  // namespace stagecoach::data
