// See memory.h. The layer's part follows compute/layers.cpp tensor by tensor; bench/stage holds the two against each other.
#include "model/memory.h"

#include <algorithm>

#include "model/parameters.h"

namespace stagecoach::model {
namespace {

constexpr std::int64_t kFloatBytes = 4;

// compute/loss.cpp: logits are made for so many tokens at a time.
constexpr std::int64_t kLogitTokensMax = 1'024;
constexpr std::int64_t kLogitBytesMax = std::int64_t{1} << 27;

/// The sizes that a layer's tensors are made of, in bytes: a [T, D] tensor is td, a weight [F, D] is fd.
struct Sizes {
  explicit Sizes(const TrainConfig& config)
      : tokens(config.batch.tokens_per_microbatch()),
        each(bytes_of(config.numbers.compute)),
        td(tokens * config.model.dim * each),
        tf(tokens * config.model.ffn * each),
        qkv_rows(config.model.dim + 2 * config.model.kv_heads * config.model.head_width()),
        dd(config.model.dim * config.model.dim * each),
        fd(config.model.dim * config.model.ffn * each) {}
  std::int64_t tokens, each, td, tf, qkv_rows, dd, fd;
  std::int64_t boundary(std::int64_t width) const { return tokens * width * each; }
};

/// The most that a layer's backward holds beside what its forward kept and the gradients of later layers. Gradients of weights
/// leave one by one, but fixed64 holds them until the microbatch is whole: the layer's own then pile up.
struct LayerWork {
  std::int64_t peak = 0;
  std::int64_t gradients = 0;  // that stay
};

class LayerBackward {
 public:
  LayerBackward(bool held) : held_(held) {}
  /// A moment with so many bytes of temporaries.
  void moment(std::int64_t bytes) { work_.peak = std::max(work_.peak, bytes + stays_ - freed_); }
  /// A weight's gradient of so many bytes while so many of temporaries are there.
  void gradient(std::int64_t bytes, std::int64_t temporaries) {
    moment(bytes + temporaries);
    if (held_) stays_ += bytes, work_.gradients += bytes;
  }
  /// So many bytes of what was kept are no longer needed.
  void freed(std::int64_t bytes) { freed_ += bytes; }
  LayerWork take() const { return work_; }

 private:
  const bool held_;
  std::int64_t stays_ = 0, freed_ = 0;
  LayerWork work_;
};

LayerWork layer_work(const TrainConfig& config, std::int64_t layer, const MemoryOptions& options) {
  const ModelConfig& model = config.model;
  const Sizes s(config);
  const bool receives = layer > 0 && model.bottleneck_follows(layer - 1), sends = model.bottleneck_follows(layer);
  // On a CPU a bfloat16 gradient is turned before the product that makes a weight's gradient.
  const std::int64_t turned = config.numbers.compute == FloatKind::bfloat16 && !options.separate_device ? 1 : 0;
  const std::int64_t out = s.boundary(model.boundary_width(layer)), qkv = s.tokens * s.qkv_rows * s.each;
  LayerBackward backward(config.numbers.sums == SumKind::fixed64);
  std::int64_t branch = 0;
  if (sends) {
    branch = s.td;
    backward.gradient(model.cut_width * model.dim * s.each, out + 2 * s.td + turned * out);
  }
  const std::int64_t above = out + branch;
  backward.moment(above + 2 * s.tf);
  backward.gradient(s.fd, above + s.tf + turned * (sends ? s.td : out));
  backward.gradient(2 * s.fd, above + turned * 2 * s.tf);
  backward.moment(above + 2 * s.td);
  backward.freed(2 * s.tf);
  backward.gradient(s.dd, above + s.td + turned * s.td);
  backward.moment(above + 2 * s.td + qkv);
  backward.gradient(s.qkv_rows * model.dim * s.each, above + s.td + qkv + turned * qkv);
  backward.moment(above + s.td + qkv + 2 * s.td);
  if (receives) backward.gradient(model.cut_width * model.dim * s.each, above + 3 * s.td + turned * s.td);
  if (model.sees_tokens(layer)) {
    const std::int64_t columns = model.token_window * model.token_rank;
    backward.gradient(model.vocab * model.token_rank * kFloatBytes, above + 4 * s.td + s.boundary(columns));
    backward.gradient(model.dim * columns * s.each, above + 4 * s.td + s.boundary(columns));
  }
  return backward.take();
}

/// The tail before its last layer: final norm, logits by chunks, the head's gradient.
LayerWork tail_work(const TrainConfig& config, const MemoryOptions& options) {
  const Sizes s(config);
  const std::int64_t row = config.model.vocab * s.each;
  const std::int64_t chunk = std::min(std::clamp<std::int64_t>(kLogitBytesMax / row, 16, kLogitTokensMax), s.tokens);
  const bool turned = config.numbers.compute == FloatKind::bfloat16 && !options.separate_device;
  LayerBackward backward(config.numbers.sums == SumKind::fixed64);
  backward.gradient(row * config.model.dim, 3 * s.td + chunk * row * (turned ? 2 : 1));
  backward.moment(4 * s.td);
  return backward.take();
}

/// The most that a backward holds beside what all the stage's layers keep.
std::int64_t backward_work(const TrainConfig& config, const StageRange& range, const MemoryOptions& options) {
  std::int64_t freed = 0, gradients = 0, peak = 0;
  const auto pass = [&](const LayerWork& work) {
    peak = std::max(peak, work.peak + gradients - freed);
    gradients += work.gradients;
  };
  if (range.last == config.model.layers) pass(tail_work(config, options));
  for (std::int64_t layer = range.last - 1; layer >= range.first; --layer) {
    pass(layer_work(config, layer, options));
    freed += kept_bytes(config, layer);
  }
  return peak;
}

std::string times(std::int64_t count, std::int64_t bytes, std::int64_t copies = 1) {
  return grouped(count) + " × " + std::to_string(bytes) + (copies == 1 ? "" : " × " + std::to_string(copies));
}

/// What every worker has at all times.
void add_standing(const TrainConfig& config, const std::vector<ParameterInfo>& list, const MemoryOptions& options, StageMemory& out) {
  const std::int64_t elements = total_elements(list);
  const std::int64_t state = bytes_of(config.numbers.state), compute = bytes_of(config.numbers.compute), sums = bytes_of(config.numbers.sums);
  std::int64_t moments = 0;
  for (const ParameterInfo& info : list) moments += static_cast<std::int64_t>(moment_prefixes(update_rule(config.optimizer, info)).size()) * info.elements();
  out.parts.push_back({"weights", elements * compute * options.versions_kept, MemoryPlace::device, MemoryPhase::always,
                       times(elements, compute, options.versions_kept)});
  if (state != compute) out.parts.push_back({"master", elements * state, MemoryPlace::device, MemoryPhase::always, times(elements, state)});
  out.parts.push_back({"moments", moments * state, MemoryPlace::device, MemoryPhase::always, times(moments, state)});
  out.parts.push_back({"sums", elements * sums, MemoryPlace::device, MemoryPhase::always, times(elements, sums)});
}

void add_microbatch(const TrainConfig& config, const StageRange& range, const MemoryOptions& options, StageMemory& out) {
  const bool tail = range.last == config.model.layers;
  std::int64_t kept = 0;
  for (std::int64_t layer = range.first; layer < range.last; ++layer) kept += kept_bytes(config, layer);
  const std::int64_t at_once = options.recompute || tail ? 1 : std::max<std::int64_t>(options.in_flight, 1);
  const std::int64_t mean = kept / ((range.last - range.first) * config.batch.tokens_per_microbatch());
  out.parts.push_back({"activations", kept * at_once, MemoryPlace::device, MemoryPhase::microbatch,
                       std::to_string(range.last - range.first) + " layers × " + grouped(config.batch.tokens_per_microbatch()) + " tokens × " +
                           grouped(mean) + " on average" + (at_once > 1 ? " × " + std::to_string(at_once) + " in flight" : "")});
  out.parts.push_back({"work", backward_work(config, range, options), MemoryPlace::device, MemoryPhase::microbatch,
                       config.numbers.sums == SumKind::fixed64 ? "gradients of the microbatch, and the widest moment of its backward"
                                                               : "the widest moment of a layer's backward, with one weight's gradient"});
}

void add_rest(const TrainConfig& config, const StageRange& range, std::int64_t elements, const MemoryOptions& options, StageMemory& out) {
  const std::int64_t sums = bytes_of(config.numbers.sums), replicas = options.replicas;
  if (replicas > 1) {  // alone, a worker's sums are the group's
    out.parts.push_back({"group", elements * sums, MemoryPlace::device, MemoryPhase::closing, times(elements, sums)});
    // Own slices read, those of others on their way, the sums that come back.
    out.parts.push_back({"reduce", elements * sums * (3 * replicas - 1) / replicas, MemoryPlace::host, MemoryPhase::closing,
                         times(elements, sums) + " × (3 − 1/" + std::to_string(replicas) + ")"});
  }
  // Until the step commits, z and dz of both sides of the stage stay in custody.
  const std::int64_t in = range.first > 0 ? config.boundary_bytes(range.first - 1) : 0;
  const std::int64_t behind = range.last < config.model.layers ? config.boundary_bytes(range.last - 1) : 0;
  const std::int64_t ids = config.batch.sequences * (config.batch.tokens + 1) * 4;
  const std::int64_t share = (config.batch.microbatches + replicas - 1) / replicas;
  out.parts.push_back({"custody", share * (2 * in + 2 * behind + ids), MemoryPlace::host, MemoryPhase::always,
                       std::to_string(share) + " microbatches × " + grouped(2 * in + 2 * behind + ids)});
}

std::int64_t peak_of(const std::vector<MemoryPart>& parts, const MemoryPlace* place) {
  std::int64_t always = 0, microbatch = 0, closing = 0;
  for (const MemoryPart& part : parts) {
    if (place != nullptr && part.place != *place) continue;
    (part.phase == MemoryPhase::always ? always : part.phase == MemoryPhase::microbatch ? microbatch : closing) += part.bytes;
  }
  return always + std::max(microbatch, closing);
}

}  // namespace

std::int64_t StageMemory::peak() const { return peak_of(parts, nullptr); }

std::int64_t StageMemory::peak(MemoryPlace place) const { return peak_of(parts, &place); }

std::int64_t StageMemory::of(std::string_view name) const {
  std::int64_t bytes = 0;
  for (const MemoryPart& part : parts) bytes += part.name == name ? part.bytes : 0;
  return bytes;
}

StageMemory stage_memory(const TrainConfig& config, const StageRange& range, const MemoryOptions& options) {
  const auto list = parameters(config.model, range);
  StageMemory out;
  add_standing(config, list, options, out);
  add_microbatch(config, range, options, out);
  add_rest(config, range, total_elements(list), options, out);
  return out;
}

std::int64_t kept_bytes(const TrainConfig& config, std::int64_t layer) {
  const ModelConfig& model = config.model;
  const Sizes s(config);
  const bool receives = layer > 0 && model.bottleneck_follows(layer - 1), sends = model.bottleneck_follows(layer);
  const std::int64_t stream = receives ? s.boundary(model.cut_width) + s.td : s.td;  // and what the cut widened it to
  const std::int64_t norms = 2 * (s.td + s.tokens * kFloatBytes);
  const std::int64_t attention = s.tokens * s.qkv_rows * s.each + s.td + s.tokens * model.heads * kFloatBytes;  // and the softmax's sums
  return stream + norms + attention + s.td + 2 * s.tf + (sends ? s.td : 0);
}

std::string grouped(std::int64_t number) {
  const std::string digits = std::to_string(number);
  const std::size_t sign = number < 0 ? 1 : 0;
  std::string out;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > sign && (digits.size() - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out;
}

}  // namespace stagecoach::model
