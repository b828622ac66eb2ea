#include "data/json_line.h"

#include <simdjson.h>

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

static_assert(JsonLineReader::kPaddingBytes >= simdjson::SIMDJSON_PADDING);

/// The first few names in an object, for the sentence about the one that is not there.
std::string names_of(const simdjson::dom::object& object) {
  constexpr std::size_t kNamesMax = 6, kNameBytesMax = 40;
  std::string names;
  std::size_t count = 0;
  for (const auto field : object) {
    if (count++ == kNamesMax) return names + ", …";
    // Cut between characters: a sentence is UTF-8 as well.
    std::string_view name = field.key;
    std::size_t bytes = std::min(name.size(), kNameBytesMax);
    while (bytes > 0 && bytes < name.size() && (static_cast<unsigned char>(name[bytes]) & 0xc0) == 0x80) --bytes;
    names += (names.empty() ? "\"" : ", \"") + std::string(name.substr(0, bytes)) + "\"";
  }
  return names.empty() ? "no field at all" : names;
}

}  // namespace

struct JsonLineReader::Parser {
  simdjson::dom::parser parser;
};

JsonLineReader::JsonLineReader(std::string field) : field_(std::move(field)), parser_(std::make_unique<Parser>()) {}
JsonLineReader::~JsonLineReader() = default;
JsonLineReader::JsonLineReader(JsonLineReader&&) noexcept = default;

Result<std::string_view> JsonLineReader::text_of(std::string_view line) {
  simdjson::dom::element root;
  if (const auto failed = parser_->parser.parse(line.data(), line.size(), false).get(root)) {
    return Error{ErrorCode::corrupt, std::string("is not JSON: ") + simdjson::error_message(failed)};
  }
  simdjson::dom::object object;
  if (root.get_object().get(object)) return Error{ErrorCode::corrupt, "is JSON, but not an object"};
  simdjson::dom::element value;
  if (object.at_key(field_).get(value)) {
    return Error{ErrorCode::corrupt, "has no field \"" + field_ + "\"; it has " + names_of(object)};
  }
  std::string_view text;
  if (value.get_string().get(text))
    return Error{ErrorCode::corrupt, "has a field \"" + field_ + "\" that is not a text"};
  return text;
}

std::size_t utf8_bytes(std::string_view text) {
  if (simdjson::validate_utf8(text.data(), text.size())) return text.size();
  // Somewhere it is not: character by character, with the same judge.
  std::size_t at = 0;
  while (at < text.size()) {
    const auto lead = static_cast<unsigned char>(text[at]);
    const std::size_t bytes = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (bytes > text.size() - at || !simdjson::validate_utf8(text.data() + at, bytes)) break;
    at += bytes;
  }
  return at;
}

}  // namespace stagecoach::data
