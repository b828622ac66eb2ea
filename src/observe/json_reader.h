// Reads fields of a parsed JSON object with bounds; the first thing that is wrong is kept, with its path.
//
// In:      nlohmann::json from a stranger. Out: checked values, or defaults and an error.
// Thread:  any.
// Why:     nlohmann's own conversions throw, and take 1e300 for an integer; this is the one place that knows better.
#pragma once

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace stagecoach::observe {

/// JSON text as a document. The depth of what strangers nest is bounded by `bytes_max`; nlohmann neither parses nor
/// frees recursively.
///
/// errors: too_large  longer than bytes_max · corrupt  not one JSON object
base::Result<nlohmann::json> parse_object(std::string_view text, std::size_t bytes_max, std::string_view what);

/// One object of the document. Objects inside share the error through `Problem`.
class ObjectReader {
 public:
  struct Problem {
    std::optional<base::Error> error;
  };
  ObjectReader(const nlohmann::json& object, std::string path, Problem& problem);

  std::uint64_t unsigned_integer(const char* name);
  std::int64_t integer(const char* name);
  /// A finite number in [least, most].
  double number(const char* name, double least, double most);
  std::optional<double> optional_number(const char* name, double least, double most);
  std::string text(const char* name, std::size_t bytes_max);
  /// The index of the text in `names`.
  std::size_t one_of(const char* name, std::initializer_list<std::string_view> names);
  /// Calls `each` with a reader for every object of the list.
  template <class Each>
  void list(const char* name, std::size_t count_max, Each each) {
    const nlohmann::json* array = bounded_list(name, count_max);
    if (array == nullptr) return;
    std::size_t index = 0;
    for (const auto& element : *array) {
      ObjectReader reader(element, path_ + name + "[" + std::to_string(index++) + "].", problem_);
      if (problem_.error) return;
      each(reader);
    }
  }
  /// A list of strings.
  std::vector<std::string> texts(const char* name, std::size_t count_max, std::size_t bytes_max);
  /// Calls `each` with a reader for the object; does nothing where it is null.
  template <class Each>
  void optional_object(const char* name, Each each) {
    const nlohmann::json* value = field(name);
    if (value == nullptr || value->is_null()) return;
    ObjectReader reader(*value, path_ + name + ".", problem_);
    if (!problem_.error) each(reader);
  }
  void fail(base::ErrorCode code, const std::string& name, const std::string& sentence);

 private:
  const nlohmann::json* field(const char* name);
  const nlohmann::json* bounded_list(const char* name, std::size_t count_max);
  double checked(const nlohmann::json& value, const char* name, double least, double most);

  const nlohmann::json& object_;
  std::string path_;
  Problem& problem_;
};

}  // namespace stagecoach::observe
