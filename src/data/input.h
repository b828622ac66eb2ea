// What `data build` reads: one file, in which format, and how it is compressed.
//
// In:      a path. Out: a checked Input; for what was broken in it, where and why.
// Thread:  any; plain values.
// Why:     the readers, the plan of a build and its messages speak of the same few values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"

namespace stagecoach::data {

/// How documents lie in an input.
enum class InputFormat {
  text,     // the whole file is one document
  lines,    // each line is one
  jsonl,    // each line is a JSON object with a text field
  parquet,  // each row has a text column
};

enum class Compression { none, gzip, zstd };

std::string_view to_string(InputFormat format);

struct Input {
  std::string name;  // as the user gave it
  std::filesystem::path path;
  InputFormat format = InputFormat::text;
  Compression compression = Compression::none;
  std::uint64_t bytes = 0;  // of the file as it lies there
  std::string_view memory;  // instead of a file: the text itself, which must outlive the build
};

/// Where a reader stands in an input's unpacked content.
struct Place {
  std::uint64_t byte = 0;    // of the unpacked text; 0 in Parquet
  std::uint64_t record = 0;  // lines or rows before it; 0 in a text
  bool operator==(const Place&) const = default;
};

/// A line, row or file that gives no document.
struct Broken {
  std::string where;  // "a.jsonl.gz line 17 (byte 1042 of its text)"
  std::string why;
};

/// What an input held once it was read to its end.
struct SourceEnd {
  std::uint64_t bytes = 0;  // of the file
  base::Sha256 sha256;      // of the file
  bool operator==(const SourceEnd&) const = default;
};

struct InputOptions {
  std::string format = "auto";  // by the name's ending; or text, lines, jsonl, parquet
};

/// The input at `path`.
///
/// errors: not_found · io_error  it cannot be read
///         invalid_argument  a folder, or a name whose ending says no format: names those that do
base::Result<Input> input_of(const std::string& path, const InputOptions& options);

}  // namespace stagecoach::data
