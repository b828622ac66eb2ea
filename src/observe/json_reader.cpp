#include "observe/json_reader.h"

#include <limits>

namespace stagecoach::observe {

using base::Error;
using base::ErrorCode;
using nlohmann::json;

base::Result<json> parse_object(std::string_view text, std::size_t bytes_max, std::string_view what) {
  if (text.size() > bytes_max)
    return Error{ErrorCode::too_large, std::string(what) + ": " + std::to_string(text.size()) + " bytes, at most " +
                                           std::to_string(bytes_max) + " are read"};
  json document = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) return Error{ErrorCode::corrupt, std::string(what) + ": this is not a JSON object"};
  return document;
}

ObjectReader::ObjectReader(const json& object, std::string path, Problem& problem)
    : object_(object), path_(std::move(path)), problem_(problem) {
  if (!object_.is_object()) fail(ErrorCode::corrupt, "", "expected an object");
}

void ObjectReader::fail(ErrorCode code, const std::string& name, const std::string& sentence) {
  if (!problem_.error) problem_.error = Error{code, "field " + path_ + name + ": " + sentence};
}

const json* ObjectReader::field(const char* name) {
  if (!object_.is_object()) return nullptr;
  const auto at = object_.find(name);
  if (at == object_.end()) {
    fail(ErrorCode::corrupt, name, "is missing");
    return nullptr;
  }
  return &*at;
}

std::uint64_t ObjectReader::unsigned_integer(const char* name) {
  const json* value = field(name);
  if (value == nullptr) return 0;
  if (!value->is_number_unsigned()) {
    fail(ErrorCode::corrupt, name, "expected an integer from 0 to 2^64 − 1");
    return 0;
  }
  return *value->get_ptr<const json::number_unsigned_t*>();
}

std::int64_t ObjectReader::integer(const char* name) {
  const json* value = field(name);
  if (value == nullptr) return 0;
  if (value->is_number_unsigned()) {
    const std::uint64_t number = *value->get_ptr<const json::number_unsigned_t*>();
    if (number <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      return static_cast<std::int64_t>(number);
  } else if (value->is_number_integer()) {
    return *value->get_ptr<const json::number_integer_t*>();
  }
  fail(ErrorCode::corrupt, name, "expected an integer of 64 bits");
  return 0;
}

double ObjectReader::checked(const json& value, const char* name, double least, double most) {
  // is_number() was asked by the callers, so that this conversion cannot throw.
  const double number = value.get<double>();
  if (number >= least && number <= most) return number;
  fail(ErrorCode::corrupt, name, "expected a number from " + std::to_string(least) + " to " + std::to_string(most));
  return 0;
}

double ObjectReader::number(const char* name, double least, double most) {
  const json* value = field(name);
  if (value == nullptr) return 0;
  if (!value->is_number()) {
    fail(ErrorCode::corrupt, name, "expected a number");
    return 0;
  }
  return checked(*value, name, least, most);
}

std::optional<double> ObjectReader::optional_number(const char* name, double least, double most) {
  const json* value = field(name);
  if (value == nullptr || value->is_null()) return std::nullopt;
  return number(name, least, most);
}

std::string ObjectReader::text(const char* name, std::size_t bytes_max) {
  const json* value = field(name);
  if (value == nullptr) return "";
  const auto* text = value->get_ptr<const json::string_t*>();
  if (text == nullptr) {
    fail(ErrorCode::corrupt, name, "expected a text");
    return "";
  }
  if (text->size() > bytes_max) {
    fail(ErrorCode::too_large, name, "the text is longer than " + std::to_string(bytes_max) + " bytes");
    return "";
  }
  return *text;
}

std::size_t ObjectReader::one_of(const char* name, std::initializer_list<std::string_view> names) {
  const std::string given = text(name, 64);
  std::size_t index = 0;
  for (const std::string_view one : names) {
    if (given == one) return index;
    ++index;
  }
  fail(ErrorCode::corrupt, name, "is none of the names known here");
  return 0;
}

std::vector<std::string> ObjectReader::texts(const char* name, std::size_t count_max, std::size_t bytes_max) {
  std::vector<std::string> out;
  const json* array = bounded_list(name, count_max);
  if (array == nullptr) return out;
  for (const auto& element : *array) {
    const auto* text = element.get_ptr<const json::string_t*>();
    if (text == nullptr || text->size() > bytes_max) {
      fail(ErrorCode::corrupt, name, "expected texts of at most " + std::to_string(bytes_max) + " bytes");
      return {};
    }
    out.push_back(*text);
  }
  return out;
}

const json* ObjectReader::bounded_list(const char* name, std::size_t count_max) {
  const json* value = field(name);
  if (value == nullptr) return nullptr;
  if (!value->is_array()) {
    fail(ErrorCode::corrupt, name, "expected a list");
    return nullptr;
  }
  if (value->size() > count_max) {
    fail(ErrorCode::too_large, name, "the list is longer than " + std::to_string(count_max));
    return nullptr;
  }
  return value;
}

}  // namespace stagecoach::observe
