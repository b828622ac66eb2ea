// Fuzzes the reader of JSON lines: no line may crash it, a text that it gives is UTF-8, and its padding is never
// judged.
//
// In:      any bytes as one line.
// Thread:  one.
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "data/json_line.h"

using namespace stagecoach;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static data::JsonLineReader reader("text");
  std::vector<char> line(bytes, bytes + size);
  const auto read = [&](char padding) {
    line.resize(size);
    line.resize(size + data::JsonLineReader::kPaddingBytes, padding);
    const auto text = reader.text_of(std::string_view(line.data(), size));
    return text ? std::string(*text) : "!" + text.error().message;
  };
  const std::string text = read('\0');
  CHECK(text == read('"'), "what lies behind a line does not matter");
  CHECK(data::utf8_bytes(text) == text.size(), "texts and sentences are UTF-8");
  const std::string_view raw(line.data(), size);
  CHECK(data::utf8_bytes(raw) <= size, "the good part of a text lies in it");
  return 0;
}
