// A file's content as it was before somebody compressed it, with the file's SHA-256 along the way.
//
// In:      a file, plain, gzip (of any number of members) or zstd (of any number of frames); or a text in memory.
// Out:     its unpacked bytes, front to back.
// Thread:  one; waits for the disk. Holds half a megabyte and what the decompressor needs.
// Why:     foreign compressed bytes are met in one place, and every reader above sees plain text.
#pragma once

#include <memory>
#include <span>

#include "data/input.h"

namespace stagecoach::data {

class ByteStream {
 public:
  virtual ~ByteStream() = default;

  /// errors: not_found · io_error
  static base::Result<std::unique_ptr<ByteStream>> open(const Input& input);

  /// Fills the front of `out` and returns how much; 0 only at the end.
  ///
  /// errors: corrupt   the compressed data are damaged or cut off: says at which byte of the file
  ///         io_error
  virtual base::Result<std::size_t> read(std::span<char> out) = 0;

  /// Bytes of the file that were consumed so far.
  virtual std::uint64_t raw_bytes() const = 0;

  /// Reads the rest of the file, unpacking nothing. Call it once, last.
  ///
  /// errors: io_error
  virtual base::Result<SourceEnd> end() = 0;
};

}  // namespace stagecoach::data
