// The safetensors format: named tensors in one file that every tool of the field reads.
//
// In:      named tensors; later a path. Out: a durable file with its hash; later checked tensors.
// Thread:  any; waits for the disk. An open file is immutable.
// Why:     the reader meets files from anywhere, so it bounds and checks everything before it uses it.
// Source:  https://github.com/huggingface/safetensors, README, "Format". What we add is in docs/formats/checkpoint.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/ids.h"
#include "base/result.h"
#include "base/tensor_bytes.h"

namespace stagecoach::store {

inline constexpr std::size_t kSafetensorsHeaderBytesMax = 100'000'000;
inline constexpr std::size_t kTensorDimensionsMax = 16;

using Metadata = std::map<std::string, std::string>;

/// A file as it was written.
struct WrittenFile {
  std::uint64_t bytes = 0;
  base::Sha256 sha256;
};

/// Writes a new file, tensor after tensor, and waits until it is on the disk. Wide types come first, so that each
/// tensor is aligned.
///
/// errors: invalid_argument  two tensors of one name, a name of the format's own, or bytes that do not fit the shape
///         already_exists · out_of_space · io_error  what was written of the file stays: it belongs where nobody looks
base::Result<WrittenFile> write_safetensors(const std::filesystem::path& path,
                                            std::span<const base::NamedTensor> tensors, const Metadata& metadata);

/// Where one tensor lies.
struct TensorEntry {
  std::string name;
  base::DType dtype = base::DType::f32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  // bytes from the end of the header
  std::uint64_t end = 0;
};

/// The header's content, checked against the number of bytes that follow it.
struct SafetensorsHeader {
  std::vector<TensorEntry> entries;  // ascending by place
  Metadata metadata;
  std::uint64_t data_offset = 0;  // of the file's first byte after the header
};

/// Reads the header of a whole file. Takes hostile bytes.
///
/// errors: corrupt   truncated, a header above the limit, not JSON, a name twice, a shape that does not give its length,
///                   gaps, overlaps, bytes left over
///         mismatch  an element type that is not F32, BF16, I64 or I32
base::Result<SafetensorsHeader> parse_safetensors(std::span<const std::byte> file);

/// A checked, mapped file.
class SafetensorsFile {
 public:
  /// errors: not_found · io_error · those of parse_safetensors, with the path before the sentence
  static base::Result<SafetensorsFile> open(const std::filesystem::path& path);

  const std::vector<TensorEntry>& entries() const { return header_.entries; }
  const Metadata& metadata() const { return header_.metadata; }
  /// The whole file, for hashing.
  std::span<const std::byte> bytes() const { return file_.bytes(); }
  /// A copy of one of entries().
  base::NamedTensor read(const TensorEntry& entry) const;

 private:
  SafetensorsFile(base::MappedFile file, SafetensorsHeader header)
      : file_(std::move(file)), header_(std::move(header)) {}
  base::MappedFile file_;
  SafetensorsHeader header_;
};

/// "F32", "BF16", "I64", "I32"
const char* safetensors_dtype(base::DType dtype);

/// Bytes that a tensor of this shape takes; none where a dimension is negative, there are too many, or the product
/// overflows.
std::optional<std::uint64_t> tensor_size_bytes(base::DType dtype, std::span<const std::int64_t> shape);

}  // namespace stagecoach::store
