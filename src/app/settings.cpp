// Reads TOML and `--set` through the table of keys; collects every problem instead of stopping at the first.

#include "app/settings.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <set>
#include <system_error>

#include "wire/messages.h"

namespace stagecoach::app {
namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      out += std::string("\\") + c;
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\u{:04X}", static_cast<unsigned>(c));
    else
      out += c;
  }
  return out + "\"";
}

std::string real_text(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  std::string out = fmt::format("{}", number);
  if (out.find_first_of(".e") == std::string::npos) out += ".0";
  return out;
}

/// What a TOML node is, in the words of an error message.
std::string describe(const toml::node& node) {
  if (const auto* text = node.as_string()) return "the text " + to_toml_value(Value(text->get().substr(0, 60)));
  if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
  if (const auto* number = node.as_integer()) return std::to_string(number->get());
  if (const auto* number = node.as_floating_point()) return to_toml_value(Value(number->get()));
  if (node.is_array()) return "a list";
  if (node.is_table()) return "a table";
  return "a date or time";
}

std::string number_text(double value) {
  return std::abs(value) < 1e15 && value == std::floor(value) ? fmt::format("{}", static_cast<std::int64_t>(value))
                                                              : fmt::format("{}", value);
}

/// One reading: settings, the problems so far, and which keys were refused.
class Reader {
 public:
  /// Reads every key of the document; unknown ones are problems.
  void read_document(const toml::table& document, const std::string& name) {
    for (const auto& [group, node] : document) {
      const std::string where = place(name, node);
      const auto* table = node.as_table();
      if (table == nullptr) {
        read_pair(std::string(group.str()), node, where);
        continue;
      }
      read_table(std::string(group.str()), *table, name, where);
    }
  }

  /// Reads one "key=value" of the command line.
  void read_override(const std::string& text) {
    const std::string where = "--set " + text;
    const auto equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      problem(where, "expected key=value, such as model.dim=256");
      return;
    }
    const std::string name = trimmed(text.substr(0, equals));
    const std::string right = trimmed(text.substr(equals + 1));
    const Key* key = find_key(name);
    if (key == nullptr) {
      unknown(name, where);
      return;
    }
    const bool wants_text = key->type != ValueType::integer && key->type != ValueType::real;
    try {
      const toml::table parsed = toml::parse("v = " + right);
      const toml::node* node = parsed.get("v");
      const bool one_value = parsed.size() == 1 && node != nullptr;
      if (one_value && (!wants_text || node->is_string() || node->is_array())) {
        read_value(*key, *node, where);
        return;
      }
    } catch (const toml::parse_error&) {
      // a shell rarely carries TOML's quotes: what is no TOML value is taken as plain text below
    }
    read_value(*key, toml::value<std::string>(right), where);
  }

  /// Everything that only shows when all values are known.
  void check_whole() {
    auto& model = settings_.train.model;
    if (settings_.cut_every) {
      model.cut_after.clear();
      for (std::int64_t layer = 0; layer + 1 < model.layers; ++layer) model.cut_after.push_back(layer);
    }
    bool consistent = true;
    for (const std::string& sentence : model::problems(settings_.train)) {
      consistent = false;
      if (!follows_from_refusal(sentence)) problems_.push_back(sentence);
    }
    const auto& batch = settings_.train.batch;
    const double tokens = static_cast<double>(batch.sequences) * static_cast<double>(batch.tokens) *
                          static_cast<double>(batch.microbatches) * static_cast<double>(settings_.train.schedule.steps);
    if (tokens > 0x1p60)
      problems_.push_back(
          "batch.sequences × batch.tokens × batch.microbatches × schedule.steps: a run has at most 2^60 tokens");
    if (!settings_.shards.empty() && !settings_.text_files.empty())
      problems_.push_back("data.shards and data.text_files: give one of them, not both");
    if (consistent && refused_.empty()) {
      std::string why;
      const model::Split split = model::balanced_split(model, settings_.stages, why);
      if (split.empty()) problems_.push_back("layout.stages: " + why);
      else check_frames(split);
    } else if (settings_.stages > model.layers && !refused_.contains("layout.stages") && !refused_.contains("model.layers")) {
      // The split itself needs a sound model, but this much shows already: all problems come at once.
      problems_.push_back(fmt::format("layout.stages: a model of {} layers has at most {} stages, not {}", model.layers, model.layers, settings_.stages));
    }
  }

  void problem(const std::string& where, const std::string& sentence) { problems_.push_back(where + ": " + sentence); }
  LoadedSettings take() { return {std::move(settings_), std::move(problems_)}; }

 private:
  /// What the road carries between stages has bounds of its own (wire/messages.h).
  void check_frames(const model::Split& split) {
    const auto& batch = settings_.train.batch;
    constexpr std::int64_t kBytes = 4;  // of a token id
    const auto refuse = [&](const std::string& what, std::int64_t bytes, std::size_t most, const std::string& make_smaller) {
      if (bytes <= static_cast<std::int64_t>(most)) return;
      problems_.push_back(fmt::format("{} are {} bytes, of which a message carries at most {}: make {} smaller", what, bytes, most, make_smaller));
    };
    if (split.size() > wire::kStagesMax)
      problems_.push_back(fmt::format("layout.stages: a run has at most {} stages", wire::kStagesMax));
    if (settings_.replicas > static_cast<std::int64_t>(wire::kMembersMax))
      problems_.push_back(fmt::format("layout.replicas: a stage has at most {} replicas", wire::kMembersMax));
    if (batch.microbatches + batch.eval_microbatches > static_cast<std::int64_t>(wire::kMicrobatchesMax))
      problems_.push_back(fmt::format("batch.microbatches + batch.eval_microbatches must be at most {}, not {}", wire::kMicrobatchesMax,
                                      batch.microbatches + batch.eval_microbatches));
    if (split.size() < 2) return;  // nothing is sent on
    refuse("the token ids of a microbatch, batch.sequences × (batch.tokens + 1) × 4,", batch.sequences * (batch.tokens + 1) * kBytes,
           wire::kTokenBytesMax, "batch.sequences or batch.tokens");
    std::int64_t widest = split.front().last - 1;
    for (std::size_t i = 0; i + 1 < split.size(); ++i)
      if (settings_.train.model.boundary_width(split[i].last - 1) > settings_.train.model.boundary_width(widest)) widest = split[i].last - 1;
    refuse(fmt::format("the numbers between two stages, batch.sequences × batch.tokens × {} × {},",
                       settings_.train.model.boundary_width(widest), model::bytes_of(settings_.train.numbers.compute)),
           settings_.train.boundary_bytes(widest), wire::kTensorBytesMax,
           "batch.sequences, batch.tokens or the cut (model.cut_width, model.dim)");
  }

  static std::string place(const std::string& name, const toml::node& node) {
    return name + ":" + std::to_string(node.source().begin.line);
  }

  static std::string trimmed(const std::string& text) {
    const auto first = text.find_first_not_of(" \t");
    if (first == std::string::npos) return "";
    return text.substr(first, text.find_last_not_of(" \t") - first + 1);
  }

  void read_table(const std::string& group, const toml::table& table, const std::string& name,
                  const std::string& where) {
    if (group_title(group).empty()) {
      std::set<std::string_view> groups;
      for (const Key& key : keys()) groups.insert(key.group());
      std::string list;
      for (std::string_view known : groups) list += (list.empty() ? "" : ", ") + std::string(known);
      problem(where, "there is no group [" + group + "]; there are: " + list);
      return;
    }
    for (const auto& [leaf, node] : table) read_pair(group + "." + std::string(leaf.str()), node, place(name, node));
  }

  void read_pair(const std::string& name, const toml::node& node, const std::string& where) {
    if (const Key* key = find_key(name))
      read_value(*key, node, where);
    else
      unknown(name, where);
  }

  void unknown(const std::string& name, const std::string& where) {
    problem(where, "there is no key " + name.substr(0, 80) + "; did you mean " + std::string(nearest_key(name)) + "?");
  }

  void read_value(const Key& key, const toml::node& node, const std::string& where) {
    if (auto value = convert(key, node)) {
      const std::string wrong = range_complaint(key, *value);
      if (wrong.empty()) {
        key.set(settings_, *value);
        refused_.erase(std::string(key.name));
        return;
      }
      refuse(key, where, wrong);
      return;
    }
    refuse(key, where, "got " + describe(node));
  }

  void refuse(const Key& key, const std::string& where, const std::string& what_came) {
    refused_.insert(std::string(key.name));
    problem(where, std::string(key.name) + ": expected " + expectation(key) + ", " + what_came);
  }

  /// The node as the key's type; nothing where it is of another.
  static std::optional<Value> convert(const Key& key, const toml::node& node) {
    switch (key.type) {
      case ValueType::integer:
        if (const auto* number = node.as_integer()) return Value(number->get());
        return std::nullopt;
      case ValueType::real:
        if (const auto* number = node.as_floating_point()) return Value(number->get());
        if (const auto* number = node.as_integer()) return Value(static_cast<double>(number->get()));
        return std::nullopt;
      case ValueType::text:
      case ValueType::choice:
        if (const auto* text = node.as_string()) return Value(text->get());
        return std::nullopt;
      case ValueType::layer_list:
        if (const auto* text = node.as_string()) return Value(text->get());
        return list_of<std::int64_t>(node);
      case ValueType::text_list:
        if (const auto* text = node.as_string()) return Value(std::vector<std::string>{text->get()});
        return list_of<std::string>(node);
    }
    return std::nullopt;
  }

  template <class T>
  static std::optional<Value> list_of(const toml::node& node) {
    const auto* array = node.as_array();
    if (array == nullptr) return std::nullopt;
    std::vector<T> out;
    for (const auto& element : *array) {
      const auto* value = element.as<T>();
      if (value == nullptr) return std::nullopt;
      out.push_back(value->get());
    }
    return Value(std::move(out));
  }

  /// "got …" where the value is of the right type and still wrong; empty where it is fine.
  static std::string range_complaint(const Key& key, const Value& value) {
    const auto outside = [&](double number) { return !(number >= key.least && number <= key.most); };
    if (const auto* number = std::get_if<std::int64_t>(&value))
      return outside(static_cast<double>(*number)) ? "got " + std::to_string(*number) : "";
    if (const auto* number = std::get_if<double>(&value)) return outside(*number) ? "got " + to_toml_value(value) : "";
    if (const auto* text = std::get_if<std::string>(&value)) {
      if (key.type == ValueType::choice &&
          std::find(key.choices.begin(), key.choices.end(), *text) == key.choices.end())
        return "got " + to_toml_value(value);
      if (key.type == ValueType::layer_list && *text != "every") return "got " + to_toml_value(value);
      if (text->find('\0') != std::string::npos) return "got a text with a zero byte";
      return key.complaint ? key.complaint(*text) : "";
    }
    if (const auto* layers = std::get_if<std::vector<std::int64_t>>(&value)) {
      if (layers->size() > 4095) return "got " + std::to_string(layers->size()) + " of them";
      for (const std::int64_t layer : *layers)
        if (outside(static_cast<double>(layer))) return "got " + std::to_string(layer) + " among them";
      return "";
    }
    for (const std::string& text : std::get<std::vector<std::string>>(value))
      if (text.empty() || text.find('\0') != std::string::npos) return "got an empty path among them";
    return "";
  }

  /// A refused key kept its default, so that what the model says about it would be about a value the user never gave.
  bool follows_from_refusal(const std::string& sentence) const {
    return std::any_of(refused_.begin(), refused_.end(),
                       [&](const std::string& name) { return sentence.find(name) != std::string::npos; });
  }

  RunSettings settings_;
  std::vector<std::string> problems_;
  std::set<std::string> refused_;
};

/// Levenshtein's distance, two rows.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({row[j - 1] + 1, above + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

LoadedSettings parse_settings(std::string_view text, const std::string& name,
                              const std::vector<std::string>& overrides) {
  Reader reader;
  try {
    reader.read_document(toml::parse(text, name), name);
  } catch (const toml::parse_error& error) {
    reader.problem(name + ":" + std::to_string(error.source().begin.line),
                   "this is not TOML: " + std::string(error.description()));
  }
  for (const std::string& pair : overrides) reader.read_override(pair);
  reader.check_whole();
  return reader.take();
}

LoadedSettings load_settings(const std::optional<std::string>& path, const std::vector<std::string>& overrides) {
  if (!path) return parse_settings("", "the defaults", overrides);
  std::ifstream file(*path, std::ios::binary);
  const int reason = errno;
  if (!file) return {{}, {*path + ": cannot read the config: " + std::strerror(reason)}};
  std::string text(kConfigBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || (file.fail() && !file.eof()))
    return {{}, {*path + ": cannot read the config: it is not a readable file"}};
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > kConfigBytesMax) return {{}, {*path + ": a config has at most 1 MiB; is this the right file?"}};
  return parse_settings(text, *path, overrides);
}

std::string_view nearest_key(std::string_view name) {
  std::string_view best;
  std::size_t least = SIZE_MAX;
  const std::string_view given = name.substr(0, 80);  // a bound on the work, far beyond any key
  for (const Key& key : keys()) {
    // A name without its group counts as one edit, so that "dim" finds model.dim and not something shorter.
    const std::size_t distance = std::min(edit_distance(given, key.name), edit_distance(given, key.leaf()) + 1);
    if (distance < least) {
      least = distance;
      best = key.name;
    }
  }
  return best;
}

std::string expectation(const Key& key) {
  const std::string range = "from " + number_text(key.least) + " to " + number_text(key.most);
  const std::string unit = " (" + std::string(key.unit) + ")";
  switch (key.type) {
    case ValueType::integer:
      return "an integer " + range + unit;
    case ValueType::real:
      return "a number " + range + unit;
    case ValueType::text:
      return "a text" + unit;
    case ValueType::choice: {
      std::string list;
      for (std::string_view one : key.choices) list += (list.empty() ? "\"" : ", \"") + std::string(one) + "\"";
      return "one of " + list;
    }
    case ValueType::layer_list:
      return "\"every\" or a list of integers " + range + unit;
    case ValueType::text_list:
      return "a list of texts" + unit;
  }
  return "";
}

std::string to_toml_value(const Value& value) {
  if (const auto* number = std::get_if<std::int64_t>(&value)) return std::to_string(*number);
  if (const auto* number = std::get_if<double>(&value)) return real_text(*number);
  if (const auto* text = std::get_if<std::string>(&value)) return quoted(*text);
  std::string out;
  if (const auto* list = std::get_if<std::vector<std::int64_t>>(&value)) {
    for (const std::int64_t number : *list) out += (out.empty() ? "" : ", ") + std::to_string(number);
  } else {
    for (const std::string& text : std::get<std::vector<std::string>>(value))
      out += (out.empty() ? "" : ", ") + quoted(text);
  }
  return "[" + out + "]";
}

std::string default_run_dir(std::time_t now) {
  std::tm parts{};
  localtime_r(&now, &parts);
  char text[64];
  const std::size_t size = std::strftime(text, sizeof text, "runs/%Y-%m-%d-%H%M%S", &parts);
  return std::string(text, size);
}

base::Result<link::Address> parse_address(std::string_view text) {
  const auto refuse = [&](const std::string& why) {
    return base::Error{base::ErrorCode::invalid_argument, why + " in \"" + std::string(text.substr(0, 80)) +
                                                              "\"; a good one is 10.0.0.1:4433 or [::1]:4433"};
  };
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return refuse("there is no port");
  std::string_view host = text.substr(0, colon);
  const std::string_view port_text = text.substr(colon + 1);
  unsigned port = 0;
  const auto [end, error] = std::from_chars(port_text.data(), port_text.data() + port_text.size(), port);
  if (error != std::errc() || end != port_text.data() + port_text.size() || port > 65535)
    return refuse("the port is not a number from 0 to 65535");
  std::string_view allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-";
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
    allowed = "0123456789abcdefABCDEF:.";
  }
  if (host == "*") host = "0.0.0.0";
  if (host.empty() || host.size() > 253 || host.find_first_not_of(allowed) != std::string_view::npos)
    return refuse("the host is not an IPv4 address, an IPv6 address in brackets or a name");
  return link::Address{std::string(host), static_cast<std::uint16_t>(port)};
}

}  // namespace stagecoach::app
