// One line of a JSONL file: the text in one of its fields.
//
// In:      a line, from anywhere. Out: the text, or what is wrong with the line.
// Thread:  one object a thread; it keeps its memory from line to line.
// Why:     the code that a stranger's data reach first stands alone, so that it can be fuzzed.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace stagecoach::data {

class JsonLineReader {
 public:
  /// Bytes that must be readable behind a line: simdjson loads whole vectors.
  static constexpr std::size_t kPaddingBytes = 64;

  explicit JsonLineReader(std::string field);
  ~JsonLineReader();
  JsonLineReader(JsonLineReader&&) noexcept;

  /// The text of the field, which must be a member of the line's object; valid until the next call.
  ///
  /// errors: corrupt  the line is not JSON in UTF-8, or has no such text: the sentence says why
  base::Result<std::string_view> text_of(std::string_view padded_line);

 private:
  struct Parser;
  std::string field_;
  std::unique_ptr<Parser> parser_;
};

/// Where `text` stops being UTF-8; its size where it is UTF-8 to the end.
std::size_t utf8_bytes(std::string_view text);

}  // namespace stagecoach::data
