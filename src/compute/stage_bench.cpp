// How long a middle stage takes on this machine: forward, backward from what a forward kept and with recompute, a step's end; and
// where that time goes, against the matmul rate measured in the same run.
//
// In:      options of "--name value" (below). Out: one "name value" a line, milliseconds, the
//          median of the rounds; then a table of the parts.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <map>
#include <string>

#include "base/prng.h"
#include "compute/device.h"
#include "compute/layers.h"
#include "compute/stage.h"

extern "C" stagecoach::compute::Library* stagecoach_compute_open();

namespace stagecoach::compute {
namespace {

struct Options {
  std::map<std::string, std::string> words = {
      {"--dim", "128"},      {"--heads", "4"},      {"--kv-heads", "2"},      {"--ffn", "448"},   {"--layers", "1"},
      {"--sequences", "2"},  {"--tokens", "128"},   {"--cut-width", "32"},    {"--threads", "1"}, {"--dtype", "float32"},
      {"--rounds", "7"},     {"--microbatches", "8"}, {"--device", "cpu"},    {"--state", "float32"},
      {"--clock", "wall"}};
  std::int64_t number(const char* name) const { return std::atoll(words.at(name).c_str()); }
};

/// "--clock cpu" counts the process's own time: with one thread it is the same on a machine that others use too.
bool cpu_clock = false;

double clock_ms() {
  if (cpu_clock) return static_cast<double>(std::clock()) * 1e3 / CLOCKS_PER_SEC;
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double milliseconds(const std::function<void()>& work) {
  const double before = clock_ms();
  work();
  return clock_ms() - before;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

/// Milliseconds of one call among several in a row.
double median_ms(std::int64_t rounds, const std::function<void()>& work) {
  constexpr int kCalls = 5;
  std::vector<double> all;
  for (std::int64_t i = 0; i < rounds + 1; ++i) {
    const double taken = milliseconds([&] {
      for (int n = 0; n < kCalls; ++n) work();
    });
    if (i > 0) all.push_back(taken / kCalls);
  }
  return median(all);
}

StageOptions stage_options(const Options& options) {
  StageOptions out;
  model::TrainConfig& config = out.config;
  config.model.dim = options.number("--dim");
  config.model.heads = options.number("--heads");
  config.model.kv_heads = options.number("--kv-heads");
  config.model.ffn = options.number("--ffn");
  config.model.cut_width = options.number("--cut-width");
  // The stage under test has a cut before and behind it, and the smallest head and tail beside it.
  const std::int64_t layers = options.number("--layers");
  config.model.layers = layers + 2;
  config.model.cut_after = {0, layers};
  out.range = {1, layers + 1};
  config.batch.sequences = options.number("--sequences");
  config.batch.tokens = options.number("--tokens");
  config.batch.microbatches = options.number("--microbatches");
  if (options.words.at("--dtype") == "bfloat16") config.numbers.compute = model::FloatKind::bfloat16;
  if (options.words.at("--state") == "bfloat16") config.numbers.state = model::FloatKind::bfloat16;
  config.threads = static_cast<int>(options.number("--threads"));
  out.device = options.words.at("--device");
  return out;
}

base::Payload random_boundary(const model::TrainConfig& config) {
  const std::int64_t count = config.batch.tokens_per_microbatch() * config.model.cut_width;
  base::Prng prng(1);
  const at::Tensor values = at::empty({count});
  for (std::int64_t i = 0; i < count; ++i) values.mutable_data_ptr<float>()[i] = static_cast<float>(prng.unit() - 0.5);
  const at::Tensor as_sent = values.to(config.numbers.compute == model::FloatKind::float32 ? at::kFloat : at::kBFloat16);
  const auto* bytes = static_cast<const std::byte*>(as_sent.const_data_ptr());
  return base::make_payload(base::Bytes(bytes, bytes + as_sent.nbytes()));
}

[[noreturn]] void fail(const std::string& sentence) {
  std::fprintf(stderr, "compute_stage_bench: %s\n", sentence.c_str());
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

/// Recompute and backward are told apart by a stage that keeps everything.
std::map<std::string, double> time_stage(StageOptions options, std::int64_t rounds) {
  const model::TrainConfig& config = options.config;
  const StageInput input{nullptr, random_boundary(config)};
  const std::int64_t microbatches = config.batch.microbatches;
  std::map<std::string, std::vector<double>> times;
  options.recompute = Recompute::always;
  const auto recomputing = need(stagecoach_compute_open()->make_stage(options));
  options.recompute = Recompute::never;
  const auto keeping = need(stagecoach_compute_open()->make_stage(options));
  std::printf("%s, %lld elements\n", keeping->numerics_class().c_str(), static_cast<long long>(keeping->elements()));
  for (std::int64_t round = 0; round < rounds + 2; ++round) {
    const base::Step step(static_cast<std::uint64_t>(round) + 1);
    std::map<std::string, double> sums;
    for (Stage* stage : {recomputing.get(), keeping.get()}) {
      const bool keeps = stage == keeping.get();
      for (std::int64_t m = 0; m < microbatches; ++m) {
        const MicrobatchName name{step, base::Attempt(1), base::MicrobatchIndex(static_cast<std::uint32_t>(m))};
        sums[keeps ? "forward_kept" : "forward"] += milliseconds([&] { need(stage->forward(stage->version(), input, name)); });
        sums[keeps ? "backward_kept" : "recompute_and_backward"] +=
            milliseconds([&] { need(stage->backward(stage->version(), name, input, input.boundary)); });
      }
    }
    const ElementRange all{0, keeping->elements()};
    const auto own = need(keeping->read_sum(step, base::Attempt(1), all));
    const double close = milliseconds([&] {
      need(keeping->write_reduced(step, base::Attempt(1), all, own));
      double squares = 0;
      for (const TensorNorm& norm : need(keeping->norms(step, base::Attempt(1)))) squares += norm.sum_of_squares;
      need(keeping->apply(step, base::Attempt(1), std::sqrt(squares)));
    });
    need(recomputing->write_reduced(step, base::Attempt(1), all, own));
    need(recomputing->apply(step, base::Attempt(1), 1.0));
    if (round < 2) continue;  // warms caches
    double step_ms = close;
    for (const auto& [name, sum] : sums) times[name].push_back(sum / static_cast<double>(microbatches));
    step_ms += sums["forward"] + sums["recompute_and_backward"];
    times["close"].push_back(close);
    times["step"].push_back(step_ms);
    times["step_kept"].push_back(close + sums["forward_kept"] + sums["backward_kept"]);
  }
  std::map<std::string, double> out;
  for (const auto& [name, values] : times) out[name] = median(values);
  return out;
}

/// The best rate of square products that fit the caches, FLOP a second.
double matmul_peak(at::ScalarType type, const at::Device& device, std::int64_t rounds) {
  double best = 0;
  for (const std::int64_t size : {512, 1'024, 2'048}) {
    const at::Tensor a = at::randn({size, size}).to(type).to(device), b = a.clone(), c = at::empty_like(a);
    const double ms = median_ms(rounds, [&] { at::mm_out(const_cast<at::Tensor&>(c), a, b); });
    best = std::max(best, 2.0 * static_cast<double>(size * size * size) / ms * 1e3);
  }
  return best;
}

struct Part {
  const char* name;
  double ms;
};

/// What one layer's forward and backward are made of, each timed by itself at the stage's sizes.
std::vector<Part> time_parts(const model::TrainConfig& config, at::ScalarType type, std::int64_t rounds) {
  const model::ModelConfig& m = config.model;
  const std::int64_t rows = config.batch.tokens_per_microbatch();
  const AttentionShape shape{config.batch.sequences, config.batch.tokens, m.heads, m.kv_heads, m.head_width()};
  const auto random = [&](std::int64_t r, std::int64_t c) { return at::randn({r, c}).to(type); };
  const at::Tensor x = random(rows, m.dim), wide = random(rows, m.ffn), weight = at::ones({m.dim}).to(type);
  const at::Tensor wqkv = random(shape.row(), m.dim), wo = random(m.dim, m.dim), w12 = random(2 * m.ffn, m.dim);
  const at::Tensor w3 = random(m.dim, m.ffn);
  at::Tensor qkv = random(rows, shape.row()), ab = random(rows, 2 * m.ffn);
  const AttentionKept attended = attention_forward(shape, qkv);
  const NormOutput normed = rms_norm(x, weight, m.norm_eps);
  const Rotation rotation = make_rotation(m, config.batch.tokens, at::kCPU);
  const auto time = [&](const std::function<void()>& work) { return median_ms(rounds, work); };
  return {{"products, forward", time([&] {
             product(x, wqkv);
             product(x, wo, x);
             product(x, w12);
             product(wide, w3, x);
           })},
          {"products, backward to inputs", time([&] {
             input_gradient(qkv, wqkv);
             input_gradient(x, wo);
             input_gradient(ab, w12);
             input_gradient(x, w3);
           })},
          {"products, gradients of weights", time([&] {
             weight_gradient(qkv, x);
             weight_gradient(x, x);
             weight_gradient(ab, x);
             weight_gradient(x, wide);
           })},
          {"attention, forward", time([&] { attention_forward(shape, qkv); })},
          {"attention, backward", time([&] { attention_backward(shape, qkv, attended, x); })},
          {"norms, forward", time([&] { rms_norm(x, weight, m.norm_eps), rms_norm(x, weight, m.norm_eps); })},
          {"norms, backward", time([&] {
             rms_norm_backward(x, weight, normed.rstd_T, x, x);
             rms_norm_backward(x, weight, normed.rstd_T, x, x);
           })},
          {"rotation, both ways", time([&] {
             rotate(shape, rotation, Turn::forward, qkv);
             rotate(shape, rotation, Turn::back, qkv);
           })},
          {"gate, forward", time([&] { gate(ab); })},
          {"gate, backward, with a copy", time([&] {
             at::Tensor used_up = ab.clone();
             gate_backward(used_up, wide);
           })}};
}

int run(const Options& options) {
  const StageOptions stage = stage_options(options);
  const model::TrainConfig& config = stage.config;
  const std::int64_t rounds = options.number("--rounds");
  const at::ScalarType type = config.numbers.compute == model::FloatKind::float32 ? at::kFloat : at::kBFloat16;
  auto times = time_stage(stage, rounds);
  for (const auto& [name, ms] : times) std::printf("%s %.4f\n", name.c_str(), ms);
  const double peak = matmul_peak(type, need(find_device(stage.device)), rounds);
  // 2 FLOP a matrix element and token forward, 4 backward; attention 2·S·D forward for the causal half of scores and mixing.
  const model::ModelConfig& m = config.model;
  const auto rows = static_cast<double>(config.batch.tokens_per_microbatch());
  const double matrices = static_cast<double>(model::total_elements(model::parameters(m, stage.range)));
  const double forward = rows * (2 * matrices + 2.0 * static_cast<double>(config.batch.tokens * m.dim * (m.layers - 2)));
  std::printf("matmul_peak_gflops %.1f\n", peak / 1e9);
  const double of_step = 3 * forward * static_cast<double>(config.batch.microbatches);
  std::printf("mfu_percent %.1f\n", 100 * of_step / (times["step_kept"] / 1e3) / peak);
  std::printf("mfu_recompute_percent %.1f\n", 100 * of_step / (times["step"] / 1e3) / peak);
  if (stage.device != "cpu") return 0;
  use_threads(config.threads);
  const at::NoGradGuard no_graph;
  std::printf("\npart of one layer, ms\n");
  double total = 0;
  for (const Part& part : time_parts(config, type, rounds)) {
    std::printf("%-34s %9.4f\n", part.name, part.ms);
    total += part.ms;
  }
  const auto layers = static_cast<double>(m.layers - 2);
  std::printf("%-34s %9.4f\n", "rest: cuts, sums, bytes, calls", (times["forward_kept"] + times["backward_kept"]) / layers - total);
  return 0;
}

}  // namespace
}  // namespace stagecoach::compute

int main(int count, char** words) {
  stagecoach::compute::Options options;
  for (int i = 1; i + 1 < count; i += 2) {
    const auto found = options.words.find(words[i]);
    if (found == options.words.end()) stagecoach::compute::fail(std::string("no such option: ") + words[i]);
    found->second = words[i + 1];
  }
  if (count % 2 == 0) stagecoach::compute::fail("each option has a value: --dim 128 --dtype bfloat16 …");
  stagecoach::compute::cpu_clock = options.words.at("--clock") == "cpu";
  return stagecoach::compute::run(options);
}
