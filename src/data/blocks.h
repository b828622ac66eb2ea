// Cuts inputs into blocks: pieces of about a megabyte that can be tokenised apart, and begun again from.
//
// In:      an input and a place in it. Out: blocks, in order, the same whoever reads and whenever.
// Thread:  one; waits for the disk or the Parquet reader. Holds one block, or one document where it is longer.
// Why:     where blocks lie depends on the content alone, so any number of threads and any restart give the same
// shards.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/input.h"

namespace stagecoach::data {

inline constexpr std::size_t kBlockBytes = 1u << 20;
// What a tokenizer gets at once. SentencePiece takes four times as long for a text of 1 MiB as for the same text in
// pieces.
inline constexpr std::size_t kPieceBytes = 1u << 17;
inline constexpr std::size_t kDocumentBytesMax = 64u << 20;  // of one line or row; a text may have any length

/// A row of Parquet in a block.
struct BlockRow {
  std::size_t end = 0;       // where its text ends in the block's bytes
  std::uint64_t record = 0;  // its number in the file, from 0
};

/// A piece of an input.
struct Block {
  std::size_t input = 0;                // which one
  Place at;                             // of its first byte, line or row
  std::string bytes;                    // whole lines; whole rows, one after another; or pieces of a text
  std::vector<BlockRow> rows;           // Parquet: those that are neither null nor too long
  bool opens = false, closes = false;   // text: it is the document's first, last piece
  std::vector<Broken> broken;           // found while reading
  std::uint64_t raw_bytes = 0;          // of the input's file consumed up to the block's end
  std::optional<SourceEnd> source_end;  // set in the last block of an input
};

/// Reads one input from its beginning or from a place at which a block began before.
class BlockReader {
 public:
  virtual ~BlockReader() = default;

  struct Options {
    std::string text_field = "text";  // Parquet: the column
    std::string python;
  };
  /// errors: not_found · io_error · unavailable  Parquet needs Python and pyarrow: says what to install
  static base::Result<std::unique_ptr<BlockReader>> open(const Input& input, std::size_t index, const Place& from,
                                                         const Options& options);

  /// The next block; none after the one with source_end.
  ///
  /// errors: io_error · internal
  virtual base::Result<std::optional<Block>> next() = 0;
};

/// "a.jsonl line 18 (byte 1042 of its text)", for the record that begins at `place`.
std::string where_in(const Input& input, const Place& place);

/// How many bytes of `text`, at most kPieceBytes, make its first piece: up to the last newline, or else whole UTF-8
/// characters. All of it where it is shorter.
std::size_t piece_bytes(std::string_view text);

}  // namespace stagecoach::data
