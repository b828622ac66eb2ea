// The canonical text of a config: what ConfigId hashes and what a joiner is sent.
//
// One list of fields serves the writer and the parser, so that neither can forget a key that the other knows.
#include <charconv>
#include <cmath>
#include <limits>
#include <string_view>

#include "model/config.h"

namespace stagecoach::model {
namespace {

constexpr std::size_t kTextBytesMax = 64 << 10;
constexpr std::size_t kCutsMax = 1'000;

/// Calls visit(key, field) for every field of `config`, in the canonical order.
template <class Config, class Visitor>
void for_each_field(Config& config, Visitor&& visit) {
  auto& model = config.model;
  visit("model.vocab", model.vocab);
  visit("model.dim", model.dim);
  visit("model.layers", model.layers);
  visit("model.heads", model.heads);
  visit("model.kv_heads", model.kv_heads);
  visit("model.ffn", model.ffn);
  visit("model.norm_eps", model.norm_eps);
  visit("model.rope_base", model.rope_base);
  visit("model.rope_scaling", model.rope_scaling);
  visit("model.cut_kind", model.cut_kind);
  visit("model.cut_width", model.cut_width);
  visit("model.token_rank", model.token_rank);
  visit("model.token_window", model.token_window);
  visit("model.cut_after", model.cut_after);
  visit("model.seed", model.seed);
  auto& optimizer = config.optimizer;
  visit("optimizer.kind", optimizer.kind);
  visit("optimizer.beta1", optimizer.beta1);
  visit("optimizer.beta2", optimizer.beta2);
  visit("optimizer.eps", optimizer.eps);
  visit("optimizer.weight_decay", optimizer.weight_decay);
  visit("optimizer.momentum_decay", optimizer.momentum_decay);
  visit("optimizer.muon_momentum", optimizer.muon_momentum);
  visit("optimizer.muon_rate", optimizer.muon_rate);
  visit("optimizer.muon_steps", optimizer.muon_steps);
  visit("optimizer.muon_float", optimizer.muon_float);
  visit("optimizer.clip_norm", optimizer.clip_norm);
  auto& schedule = config.schedule;
  visit("schedule.kind", schedule.kind);
  visit("schedule.peak_lr", schedule.peak_lr);
  visit("schedule.floor_fraction", schedule.floor_fraction);
  visit("schedule.warmup_steps", schedule.warmup_steps);
  visit("schedule.decay_steps", schedule.decay_steps);
  visit("schedule.steps", schedule.steps);
  auto& batch = config.batch;
  visit("batch.sequences", batch.sequences);
  visit("batch.tokens", batch.tokens);
  visit("batch.microbatches", batch.microbatches);
  visit("batch.eval_microbatches", batch.eval_microbatches);
  visit("batch.eval_every", batch.eval_every);
  visit("batch.data_seed", batch.data_seed);
  visit("numbers.compute", config.numbers.compute);
  visit("numbers.state", config.numbers.state);
  visit("numbers.sums", config.numbers.sums);
  visit("threads", config.threads);
}

constexpr std::string_view kCutNames[] = {"none", "resbm", "resbm+tokens"};
constexpr std::string_view kOptimizerNames[] = {"adamw", "nadam", "muon"};
constexpr std::string_view kFloatNames[] = {"float32", "bfloat16"};
constexpr std::string_view kSumNames[] = {"fixed64", "float32", "bfloat16"};
constexpr std::string_view kScheduleNames[] = {"cosine", "wsd", "constant"};

std::string write(double value) {
  char text[64];
  const auto end = std::to_chars(text, text + sizeof text, value, std::chars_format::hex).ptr;
  return std::string(text, end);
}
std::string write(std::int64_t value) { return std::to_string(value); }
std::string write(std::uint64_t value) { return std::to_string(value); }
std::string write(int value) { return std::to_string(value); }
std::string write(CutKind value) { return std::string(kCutNames[static_cast<std::size_t>(value)]); }
std::string write(OptimizerKind value) { return std::string(kOptimizerNames[static_cast<std::size_t>(value)]); }
std::string write(FloatKind value) { return std::string(kFloatNames[static_cast<std::size_t>(value)]); }
std::string write(SumKind value) { return std::string(kSumNames[static_cast<std::size_t>(value)]); }
std::string write(ScheduleKind value) { return std::string(kScheduleNames[static_cast<std::size_t>(value)]); }
std::string write(const std::vector<std::int64_t>& list) {
  std::string text;
  for (const std::int64_t value : list) text += (text.empty() ? "" : ",") + std::to_string(value);
  return text;
}

template <class Integer>
bool read_integer(std::string_view text, Integer& value) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  return code == std::errc() && end == text.data() + text.size();
}
bool read(std::string_view text, std::int64_t& value) { return read_integer(text, value); }
bool read(std::string_view text, std::uint64_t& value) { return read_integer(text, value); }
bool read(std::string_view text, int& value) { return read_integer(text, value); }
bool read(std::string_view text, double& value) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::hex);
  return code == std::errc() && end == text.data() + text.size() && std::isfinite(value);
}
template <class Kind, std::size_t count>
bool read_kind(std::string_view text, const std::string_view (&names)[count], Kind& value) {
  for (std::size_t i = 0; i < count; ++i) {
    if (text != names[i]) continue;
    value = static_cast<Kind>(i);
    return true;
  }
  return false;
}
bool read(std::string_view text, CutKind& value) { return read_kind(text, kCutNames, value); }
bool read(std::string_view text, OptimizerKind& value) { return read_kind(text, kOptimizerNames, value); }
bool read(std::string_view text, FloatKind& value) { return read_kind(text, kFloatNames, value); }
bool read(std::string_view text, SumKind& value) { return read_kind(text, kSumNames, value); }
bool read(std::string_view text, ScheduleKind& value) { return read_kind(text, kScheduleNames, value); }
bool read(std::string_view text, std::vector<std::int64_t>& list) {
  list.clear();
  if (text.empty()) return true;
  for (;;) {
    const std::size_t comma = text.find(',');
    std::int64_t value = 0;
    if (list.size() >= kCutsMax || !read(text.substr(0, comma), value)) return false;
    list.push_back(value);
    if (comma == std::string_view::npos) return true;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace

std::string canonical_text(const TrainConfig& config) {
  std::string text;
  for_each_field(config, [&text](const char* key, const auto& field) {
    text += key;
    text += '=';
    text += write(field);
    text += '\n';
  });
  return text;
}

std::string canonical_text(const Split& split) {
  std::string text = "stages=" + std::to_string(split.size()) + "\n";
  for (std::size_t i = 0; i < split.size(); ++i) {
    text += "stage." + std::to_string(i) + "=" + std::to_string(split[i].first) + ":" + std::to_string(split[i].last) + "\n";
  }
  return text;
}

bool parse_canonical_text(const std::string& text, TrainConfig& config, std::string& why) {
  if (text.size() > kTextBytesMax) {
    why = "a config's text has at most " + std::to_string(kTextBytesMax) + " bytes, not " + std::to_string(text.size());
    return false;
  }
  TrainConfig parsed;
  std::string_view rest = text;
  why.clear();
  for_each_field(parsed, [&rest, &why](const std::string_view key, auto& field) {
    if (!why.empty()) return;
    const std::size_t line_end = rest.find('\n');
    const std::string_view line = rest.substr(0, line_end);
    if (line_end == std::string_view::npos || line.size() <= key.size() || line.substr(0, key.size()) != key ||
        line[key.size()] != '=') {
      why = "expected the line \"" + std::string(key) + "=…\", found \"" + std::string(line.substr(0, 80)) + "\"";
      return;
    }
    if (!read(line.substr(key.size() + 1), field)) {
      why = "the value of " + std::string(key) + " cannot be read: \"" + std::string(line.substr(key.size() + 1, 80)) + "\"";
      return;
    }
    rest.remove_prefix(line_end + 1);
  });
  if (why.empty() && !rest.empty()) why = "bytes after the last line: \"" + std::string(rest.substr(0, 80)) + "\"";
  // One config has one text: "+1", "01" or "10p-1" would read well and hash to another id.
  if (why.empty() && canonical_text(parsed) != text) why = "a number is not written in its canonical form";
  if (!why.empty()) return false;
  config = std::move(parsed);
  return true;
}

}  // namespace stagecoach::model
