#include "data/input.h"

#include <unistd.h>

#include <cerrno>
#include <optional>
#include <system_error>

#include "base/files.h"

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
namespace fs = std::filesystem;

std::optional<InputFormat> format_named(std::string_view name) {
  for (const auto format : {InputFormat::text, InputFormat::lines, InputFormat::jsonl, InputFormat::parquet}) {
    if (name == to_string(format)) return format;
  }
  return std::nullopt;
}

std::optional<InputFormat> format_of_ending(const std::string& ending) {
  if (ending == ".txt" || ending == ".text" || ending == ".md") return InputFormat::text;
  if (ending == ".jsonl" || ending == ".ndjson") return InputFormat::jsonl;
  if (ending == ".parquet") return InputFormat::parquet;
  return std::nullopt;
}

}  // namespace

std::string_view to_string(InputFormat format) {
  switch (format) {
    case InputFormat::text:
      return "text";
    case InputFormat::lines:
      return "lines";
    case InputFormat::jsonl:
      return "jsonl";
    case InputFormat::parquet:
      return "parquet";
  }
  return "?";
}

Result<Input> input_of(const std::string& path, const InputOptions& options) {
  Input input{.name = path, .path = path};
  std::error_code failed;
  const fs::file_status status = fs::status(input.path, failed);
  if (!fs::exists(status)) return Error{ErrorCode::not_found, "there is no input " + path};
  if (fs::is_directory(status)) {
    return Error{ErrorCode::invalid_argument, "the input " + path + " is a folder: give its files (" + path + "/*)"};
  }
  if (!fs::is_regular_file(status))
    return Error{ErrorCode::invalid_argument, "the input " + path + " is not a file: it must be readable twice"};
  if (::access(path.c_str(), R_OK) != 0) return base::file_error("read", path, errno);
  input.bytes = fs::file_size(input.path, failed);
  if (failed) return base::file_error("read", path, failed.value());

  fs::path name = input.path;
  if (name.extension() == ".gz") input.compression = Compression::gzip;
  if (name.extension() == ".zst") input.compression = Compression::zstd;
  if (input.compression != Compression::none) name = name.stem();
  const auto format =
      options.format == "auto" ? format_of_ending(name.extension().string()) : format_named(options.format);
  if (!format && options.format != "auto") {
    return Error{ErrorCode::invalid_argument,
                 "there is no input format \"" + options.format + "\": give text, lines, jsonl or parquet"};
  }
  if (!format) {
    return Error{ErrorCode::invalid_argument,
                 "the input " + path + " has an ending that says no format: .txt, .text and .md are text, .jsonl and " +
                     ".ndjson are JSON lines, .parquet is Parquet, each also with .gz or .zst; or say --format"};
  }
  input.format = *format;
  return input;
}

}  // namespace stagecoach::data
