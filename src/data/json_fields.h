// Typed members of a JSON object, with the first thing that was wrong.
//
// In:      a parsed object from a manifest on disk. Out: checked values; a default where one is wrong.
// Thread:  any.
// Why:     the JSON library throws where a type differs; a manifest that somebody damaged is an ordinary value here.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "base/ids.h"

namespace stagecoach::data {

/// Reads members of `object`. All readers of one document share `wrong`: once it is not empty, do not use what was
/// read.
class JsonFields {
 public:
  JsonFields(const nlohmann::json& object, std::string& wrong) : object_(object), wrong_(wrong) {}

  /// An integer in [low, high]; `low` where it is not.
  std::int64_t integer(const char* key, std::int64_t low, std::int64_t high) {
    const nlohmann::json* value = member(key);
    const bool fits =
        value != nullptr && value->is_number_integer() &&
        (!value->is_number_unsigned() || value->get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX));
    if (!fits) {
      complain(key, "is not an integer");
      return low;
    }
    const auto number = value->get<std::int64_t>();
    if (number >= low && number <= high) return number;
    complain(key, "is out of range");
    return low;
  }

  double number(const char* key) {
    const nlohmann::json* value = member(key);
    if (value != nullptr && value->is_number()) return value->get<double>();
    complain(key, "is not a number");
    return 0;
  }

  std::string text(const char* key) {
    const nlohmann::json* value = member(key);
    if (value != nullptr && value->is_string()) return value->get<std::string>();
    complain(key, "is not a text");
    return {};
  }

  base::Sha256 sha256(const char* key) {
    base::Sha256 hash;
    if (!hash.parse_hex(text(key))) complain(key, "is not a SHA-256");
    return hash;
  }

  /// An array of at least one entry, or null.
  const nlohmann::json* list(const char* key) {
    const nlohmann::json* value = member(key);
    if (value != nullptr && value->is_array() && !value->empty()) return value;
    complain(key, "is not a list with entries");
    return nullptr;
  }

  /// The member, or null where there is none.
  const nlohmann::json* member(const char* key) const {
    if (!object_.is_object()) return nullptr;
    const auto found = object_.find(key);
    return found == object_.end() ? nullptr : &*found;
  }

  void complain(const char* key, const char* what) {
    if (wrong_.empty()) wrong_ = std::string("\"") + key + "\" " + what;
  }

 private:
  const nlohmann::json& object_;
  std::string& wrong_;
};

}  // namespace stagecoach::data
