// One stage of a model on one device, timed and weighed: the program behind bench/stage.
//
// In:      stage_program LIBRARY key=value…: a preset or dimensions, the stage's number, numbers, threads, how often.
// Out:     one JSON object a line: seconds of each forward, backward with its recompute, forward that keeps, backward after it,
//          and the end of a step; the most that torch's allocators had handed out at once, and the size of this process at its
//          largest, less what it was with the library open and warm.
// Thread:  one; torch's own below it.
// Why:     it drives compute::Stage as a worker does and nothing else, so that what is measured is what a worker takes.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "allocations.h"
#include "base/prng.h"
#include "compute/library.h"
#include "model/presets.h"

namespace stagecoach::bench {
namespace {

using base::Payload;
using compute::StageInput;

constexpr base::Attempt kAttempt(1);

[[noreturn]] void fail(const std::string& sentence) {
  std::fprintf(stderr, "stage_program: %s\n", sentence.c_str());
  std::exit(1);
}

template <class T>
T need(base::Result<T> result) {
  if (!result.ok()) fail(result.error().message);
  return std::move(result).value();
}
void need(const base::Result<void>& result) {
  if (!result.ok()) fail(result.error().message);
}

/// The words of the command line; whatever nobody asked for is an error.
class Words {
 public:
  Words(int count, char** words) {
    for (int i = 2; i < count; ++i) {
      const std::string word = words[i];
      const auto equals = word.find('=');
      if (equals == std::string::npos) fail("expected key=value, not \"" + word + "\"");
      values_[word.substr(0, equals)] = word.substr(equals + 1);
    }
  }
  std::string text(const std::string& key, const std::string& otherwise) {
    const auto found = values_.find(key);
    if (found == values_.end()) return otherwise;
    std::string value = found->second;
    values_.erase(found);
    return value;
  }
  std::int64_t number(const std::string& key, std::int64_t otherwise) {
    const std::string value = text(key, std::to_string(otherwise));
    char* end = nullptr;
    const std::int64_t number = std::strtoll(value.c_str(), &end, 10);
    if (value.empty() || *end != '\0') fail(key + ": expected a whole number, not \"" + value + "\"");
    return number;
  }
  template <class Kind>
  Kind one_of(const std::string& key, std::initializer_list<std::pair<const char*, Kind>> choices, Kind otherwise) {
    const std::string value = text(key, "");
    if (value.empty()) return otherwise;
    std::string names;
    for (const auto& [name, kind] : choices) {
      if (value == name) return kind;
      names += std::string(names.empty() ? "" : ", ") + name;
    }
    fail(key + ": expected one of " + names + ", not \"" + value + "\"");
  }
  void end() const {
    if (!values_.empty()) fail("there is no key " + values_.begin()->first);
  }

 private:
  std::map<std::string, std::string> values_;
};

struct Plan {
  compute::StageOptions options;
  std::int64_t microbatches = 2;  // a round
  std::int64_t rounds = 1;        // 0 = as many as each line of standard input says, an answer after each
  bool kept = false;              // each microbatch a second time with a forward that keeps, so that the backward alone shows
};

void read_numbers(Words& words, model::TrainConfig& config) {
  using model::FloatKind;
  using model::SumKind;
  const auto floats = {std::pair("float32", FloatKind::float32), std::pair("bfloat16", FloatKind::bfloat16)};
  config.numbers.compute = words.one_of("compute", floats, config.numbers.compute);
  config.numbers.state = words.one_of("state", floats, config.numbers.compute == FloatKind::float32 ? FloatKind::float32 : config.numbers.state);
  config.numbers.sums = words.one_of("sums", {std::pair("fixed64", SumKind::fixed64), {"float32", SumKind::float32}, {"bfloat16", SumKind::bfloat16}},
                                     config.numbers.sums);
  config.threads = static_cast<int>(words.number("threads", 1));
}

Plan plan_of(Words& words) {
  Plan plan;
  model::TrainConfig& config = plan.options.config;
  std::int64_t stages = 4;
  if (const std::string name = words.text("preset", ""); !name.empty()) {
    const model::Preset* preset = model::find_preset(name);
    if (preset == nullptr) fail("there is no preset " + name);
    stages = words.number("stages", preset->stages);
    if (stages < 1 || stages > preset->layers) fail("stages: from 1 to " + std::to_string(preset->layers));
    config = model::train_config(*preset, stages);
  } else {
    stages = words.number("stages", stages);
  }
  model::ModelConfig& m = config.model;
  m.vocab = words.number("vocab", m.vocab);
  m.dim = words.number("dim", m.dim);
  m.heads = words.number("heads", m.heads);
  m.kv_heads = words.number("kv_heads", m.kv_heads);
  m.ffn = words.number("ffn", m.ffn);
  m.cut_width = words.number("cut_width", m.cut_width);
  if (const std::int64_t layers = words.number("layers", m.layers); layers != m.layers) {
    m.layers = layers;
    m.cut_after.clear();
    for (std::int64_t s = 1; s < stages; ++s) m.cut_after.push_back(s * layers / stages - 1);
  }
  config.batch.sequences = words.number("sequences", config.batch.sequences);
  config.batch.tokens = words.number("tokens", config.batch.tokens);
  config.batch.microbatches = 4'096;
  read_numbers(words, config);
  plan.options.device = words.text("device", "cpu");
  plan.kept = words.number("kept", 0) != 0;
  plan.options.recompute = plan.kept ? compute::Recompute::never : compute::Recompute::always;
  plan.microbatches = words.number("microbatches", plan.microbatches);
  plan.rounds = words.number("rounds", plan.rounds);
  const std::int64_t stage = words.number("stage", 1);
  words.end();
  if (const auto problems = model::problems(config); !problems.empty()) fail(problems.front());
  std::string why;
  const model::Split split = model::balanced_split(m, stages, why);
  if (split.empty()) fail(why);
  if (stage < 0 || stage >= stages) fail("stage: from 0 to " + std::to_string(stages - 1));
  plan.options.range = split[static_cast<std::size_t>(stage)];
  return plan;
}

double status_bytes(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key + ":")) return std::strtod(line.c_str() + key.size() + 1, nullptr) * 1'024;
  return 0;
}

/// From here on VmHWM counts anew (proc(5), clear_refs).
void forget_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

class Run {
 public:
  Run(compute::Library& library, const Plan& plan) : plan_(plan), config_(plan.options.config), stage_(need(library.make_stage(plan.options))) {
    const auto& range = plan.options.range;
    const bool head = range.first == 0, tail = range.last == config_.model.layers;
    input_.tokens = token_ids();
    if (!head) input_.boundary = numbers(config_.model.boundary_width(range.first - 1), 0.5);
    if (!tail) gradient_ = numbers(config_.model.boundary_width(range.last - 1), 1e-4);
    tail_ = tail;
  }

  /// One step: some microbatches forward and backward, then its end.
  void step() {
    const base::Step step(++steps_);
    for (std::int64_t m = 0; m < plan_.microbatches; ++m) {
      const compute::MicrobatchName name{step, kAttempt, base::MicrobatchIndex(static_cast<std::uint64_t>(m))};
      if (!tail_) timed(forward_, [&] { need(stage_->forward(stage_->version(), input_)); });
      timed(backward_, [&] { need(stage_->backward(stage_->version(), name, input_, gradient_)); });
      if (tail_ || !plan_.kept) continue;
      timed(keeping_, [&] { need(stage_->forward(stage_->version(), input_, name)); });
      timed(after_kept_, [&] { need(stage_->backward(stage_->version(), name, input_, gradient_)); });
    }
    timed(close_, [&] { close(step); });
  }

  /// Tells what was timed since it last told.
  void print(const Allocations& allocations, double base_bytes, double peak_bytes) {
    std::printf("{\"numerics\": \"%s\", \"elements\": %lld, \"tokens\": %lld, \"microbatches\": %lld,", stage_->numerics_class().c_str(),
                static_cast<long long>(stage_->elements()), static_cast<long long>(config_.batch.tokens_per_microbatch()),
                static_cast<long long>(plan_.microbatches));
    print("forward_s", forward_);
    print("backward_s", backward_);
    print("kept_forward_s", keeping_);
    print("kept_backward_s", after_kept_);
    print("close_s", close_);
    std::printf(" \"host_tensor_bytes\": %lld, \"device_tensor_bytes\": %lld, \"base_bytes\": %.0f, \"process_bytes\": %.0f}\n",
                static_cast<long long>(allocations.host_peak_bytes()), static_cast<long long>(allocations.device_peak_bytes()), base_bytes,
                peak_bytes - base_bytes);
    std::fflush(stdout);
  }

 private:
  void close(base::Step step) {
    need(stage_->reduce_alone(step, kAttempt));
    double squares = 0;
    for (const compute::TensorNorm& norm : need(stage_->norms(step, kAttempt))) squares += norm.sum_of_squares;
    need(stage_->apply(step, kAttempt, std::sqrt(squares)));
  }

  template <class Work>
  static void timed(std::vector<double>& into, Work&& work) {
    const auto before = std::chrono::steady_clock::now();
    work();
    into.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count());
  }

  static void print(const char* name, std::vector<double>& seconds) {
    std::printf(" \"%s\": [", name);
    for (std::size_t i = 0; i < seconds.size(); ++i) std::printf("%s%.6f", i == 0 ? "" : ", ", seconds[i]);
    std::printf("],");
    seconds.clear();
  }

  Payload token_ids() const {
    base::Prng prng(1);
    base::ByteWriter ids;
    for (std::int64_t i = 0; i < config_.batch.sequences * (config_.batch.tokens + 1); ++i)
      ids.u32(static_cast<std::uint32_t>(prng.below(static_cast<std::uint64_t>(config_.model.vocab))));
    return base::make_payload(ids.take());
  }

  /// A boundary tensor of even noise in numbers.compute.
  Payload numbers(std::int64_t width, double scale) const {
    base::Prng prng(2);
    const auto count = static_cast<std::size_t>(config_.batch.tokens_per_microbatch() * width);
    const auto each = static_cast<std::size_t>(model::bytes_of(config_.numbers.compute));
    base::Bytes bytes(count * each);
    for (std::size_t i = 0; i < count; ++i) {
      const auto value = static_cast<float>((prng.unit() - 0.5) * 2 * scale);
      std::byte raw[4];
      std::memcpy(raw, &value, 4);
      std::memcpy(bytes.data() + i * each, raw + 4 - each, each);  // bfloat16 is the upper half
    }
    return base::make_payload(std::move(bytes));
  }

  const Plan& plan_;
  const model::TrainConfig& config_;
  std::unique_ptr<compute::Stage> stage_;
  StageInput input_;
  Payload gradient_;
  bool tail_ = false;
  std::uint64_t steps_ = 0;
  std::vector<double> forward_, backward_, keeping_, after_kept_, close_;
};

/// A small stage of the same numbers: what the library loads and keeps for itself is there before anything is weighed.
void warm_up(compute::Library& library, const Plan& plan) {
  Plan small;
  small.options.config.numbers = plan.options.config.numbers;
  small.options.config.threads = plan.options.config.threads;
  small.options.device = plan.options.device;
  small.options.range = {1, 2};
  Run(library, small).step();
}

int run(int count, char** arguments) {
  Words words(count, arguments);
  const Plan plan = plan_of(words);
  compute::Library& library = *need(compute::open_library(arguments[1]));
  warm_up(library, plan);
  const double base_bytes = status_bytes("VmRSS");
  forget_peak();
  const Allocations allocations;
  Run run(library, plan);
  const auto answer = [&](std::int64_t rounds) {
    for (std::int64_t round = 0; round < rounds; ++round) run.step();
    run.print(allocations, base_bytes, status_bytes("VmHWM"));
  };
  if (plan.rounds > 0) answer(plan.rounds);
  else for (std::int64_t rounds = 0; std::cin >> rounds;) answer(rounds);
  return 0;
}

}  // namespace
}  // namespace stagecoach::bench

int main(int count, char** words) {
  if (count >= 2) return stagecoach::bench::run(count, words);
  std::fprintf(stderr, "usage: stage_program LIBRARY [key=value…]\n");
  return 1;
}
