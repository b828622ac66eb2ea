#include "app/explain.h"

#include <fmt/format.h>

#include <sstream>
#include <string_view>

namespace stagecoach::app {
namespace {

/// `text` in lines of at most `columns`, each begun with `indent`.
std::string wrapped(const std::string& text, const std::string& indent, std::size_t columns) {
  std::string out;
  std::string line = indent;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (line.size() > indent.size() && line.size() + 1 + word.size() > columns) {
      out += line + "\n";
      line = indent;
    }
    if (line.size() > indent.size()) line += ' ';
    line += word;
  }
  return out + line + "\n";
}

std::string sentence_of(const Key& key) {
  std::string out = std::string(key.meaning);
  out += " — " + expectation(key);
  return out;
}

/// Calls `each` for every key and `group` before the first of each group.
template <class Group, class Each>
void walk(Group group, Each each) {
  std::string_view current;
  for (const Key& key : keys()) {
    if (key.group() != current) {
      current = key.group();
      group(current);
    }
    each(key);
  }
}

}  // namespace

std::string explain(std::size_t columns) {
  std::string out =
      "Every key, its default and what it means. Give them in a file, `stagecoach train my.toml`, or one by one,\n"
      "`stagecoach train --set model.dim=256`. A star marks the keys that change the losses.\n";
  const RunSettings defaults;
  walk([&](std::string_view group) { out += fmt::format("\n[{}]  {}\n", group, group_title(group)); },
       [&](const Key& key) {
         out += fmt::format("  {} = {}{}\n", key.name, to_toml_value(key.get(defaults)),
                            key.effect == Effect::run ? "" : "  *");
         out += wrapped(sentence_of(key), "      ", columns);
       });
  return out;
}

std::string to_toml(const RunSettings& settings) {
  std::string out = "# Settings of a Stagecoach run. `stagecoach train --explain` prints what every key means.\n";
  walk([&](std::string_view group) { out += fmt::format("\n# {}\n[{}]\n", group_title(group), group); },
       [&](const Key& key) {
         out += wrapped(sentence_of(key), "# ", 110);
         out += fmt::format("{} = {}\n", key.leaf(), to_toml_value(key.get(settings)));
       });
  return out;
}

}  // namespace stagecoach::app
