// Section: one table of a scenario file, read key by key.
//
// In:      a TOML table. Out: values of the asked type; what is wrong goes to one list of problems, with its line.
// Thread:  any.
// Why:     a reader that names every problem at once must go on after each of them, and must know which keys nobody asked for.
#pragma once

#include <toml++/toml.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace stagecoach::app {

/// "35ms", "1.5s", "10min", "24h", "0".
///
/// errors: invalid_argument  what was expected and what came
base::Result<base::Duration> parse_time(std::string_view text);

struct ScenarioProblems {
  std::string file;
  std::vector<std::string> sentences;
  void add(const toml::node* node, const std::string& sentence);
};

class Section {
 public:
  /// `table` null: an empty section, which asks for its needed keys at `place`.
  Section(const toml::table* table, std::string label, const toml::node* place, ScenarioProblems& problems)
      : table_(table), label_(std::move(label)), place_(place), problems_(problems) {}

  /// The node, marked as known; null where there is none.
  const toml::node* node(const std::string& key);
  bool has(const std::string& key) const { return table_ != nullptr && table_->contains(key); }
  std::optional<std::string> text(const std::string& key);
  std::optional<std::string> word(const std::string& key, std::initializer_list<std::string_view> choices);
  std::optional<base::Duration> time(const std::string& key);
  std::optional<double> rate(const std::string& key);    // bytes a second
  std::optional<double> bytes(const std::string& key);
  std::optional<double> flops(const std::string& key);
  std::optional<double> number(const std::string& key, double least, double most);
  std::optional<std::int64_t> integer(const std::string& key, std::int64_t least, std::int64_t most);
  std::optional<bool> flag(const std::string& key);
  std::vector<std::string> texts(const std::string& key);
  /// A list of times; a single one is a list of one.
  std::vector<base::Duration> times(const std::string& key);

  /// A problem at the key, or at the section where the key is not there.
  void wrong(const std::string& key, const std::string& sentence);
  void missing(const std::string& key, const std::string& expected) { wrong(key, "is needed: " + expected); }
  /// Every key that nobody asked for is a problem.
  void finish();

 private:
  template <class Value, class Parse>
  std::optional<Value> quantity(const std::string& key, Parse parse);

  const toml::table* table_;
  std::string label_;
  const toml::node* place_;
  ScenarioProblems& problems_;
  std::set<std::string> known_;
};

}  // namespace stagecoach::app
