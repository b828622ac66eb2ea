// The table of keys. A new setting is a field in RunSettings and one entry here.

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "app/device_choice.h"
#include "app/settings.h"

namespace stagecoach::app {
namespace {

using model::CutKind;
using model::OptimizerKind;
using model::ScheduleKind;

/// What every entry has, whatever its type.
struct About {
  std::string_view name;
  std::string_view unit;
  std::string_view meaning;
  Effect effect = Effect::run;
};

struct Range {
  double least = 0;
  double most = 0;
};

constexpr double kSeedMost = 9'007'199'254'740'992.0;  // 2^53: exact in a double and in TOML's signed 64 bits

Key key_of(const About& about, ValueType type) {
  Key key;
  key.name = about.name;
  key.type = type;
  key.unit = about.unit;
  key.meaning = about.meaning;
  key.effect = about.effect;
  return key;
}

/// `field` maps RunSettings& to a reference to any integer type that holds the range.
template <class Field>
Key integer(const About& about, Range range, Field field) {
  Key key = key_of(about, ValueType::integer);
  key.least = range.least;
  key.most = range.most;
  key.get = [field](const RunSettings& s) { return Value(static_cast<std::int64_t>(field(s))); };
  key.set = [field](RunSettings& s, const Value& v) {
    auto& target = field(s);
    target = static_cast<std::remove_reference_t<decltype(target)>>(std::get<std::int64_t>(v));
  };
  return key;
}

template <class Field>
Key real(const About& about, Range range, Field field) {
  Key key = key_of(about, ValueType::real);
  key.least = range.least;
  key.most = range.most;
  key.get = [field](const RunSettings& s) { return Value(field(s)); };
  key.set = [field](RunSettings& s, const Value& v) { field(s) = std::get<double>(v); };
  return key;
}

template <class Field>
Key text(const About& about, Field field, std::function<std::string(const std::string&)> complaint = {}) {
  Key key = key_of(about, ValueType::text);
  key.get = [field](const RunSettings& s) { return Value(field(s)); };
  key.set = [field](RunSettings& s, const Value& v) { field(s) = std::get<std::string>(v); };
  key.complaint = std::move(complaint);
  return key;
}

/// `names[i]` is the text of the enumerator with the value i.
template <class Field>
Key choice(const About& about, std::vector<std::string_view> names, Field field) {
  Key key = key_of(about, ValueType::choice);
  key.choices = names;
  key.get = [field, names](const RunSettings& s) {
    return Value(std::string(names[static_cast<std::size_t>(field(s))]));
  };
  key.set = [field, names](RunSettings& s, const Value& v) {
    auto& target = field(s);
    const auto at = std::find(names.begin(), names.end(), std::get<std::string>(v)) - names.begin();
    target = static_cast<std::remove_reference_t<decltype(target)>>(at);
  };
  return key;
}

Key cut_after_key() {
  Key key = key_of(
      {"model.cut_after", "layers",
       "the layers with a cut behind them: \"every\" (all but the last) or a list such as [0, 1, 2]; a stage can end "
       "only at a cut where the kind is not none",
       Effect::mathematics},
      ValueType::layer_list);
  key.least = 0;
  key.most = 4094;
  key.get = [](const RunSettings& s) {
    return s.cut_every ? Value(std::string("every")) : Value(s.train.model.cut_after);
  };
  key.set = [](RunSettings& s, const Value& v) {
    s.cut_every = std::holds_alternative<std::string>(v);
    if (!s.cut_every) s.train.model.cut_after = std::get<std::vector<std::int64_t>>(v);
  };
  return key;
}

Key text_files_key() {
  Key key =
      key_of({"data.text_files", "paths",
              "text files to train on, as paths from where the command is started; [] is the built-in King James text",
              Effect::data},
             ValueType::text_list);
  key.get = [](const RunSettings& s) { return Value(s.text_files); };
  key.set = [](RunSettings& s, const Value& v) { s.text_files = std::get<std::vector<std::string>>(v); };
  return key;
}

std::string address_complaint(const std::string& text) {
  if (text.empty()) return "";
  auto address = parse_address(text);
  return address ? "" : address.error().message;
}

#define FIELD(path) [](auto& s) -> auto& { return s.path; }

void add_model(std::vector<Key>& out) {
  constexpr Effect kMath = Effect::mathematics;
  out.push_back(integer({"model.vocab", "tokens", "size of the vocabulary; the byte-level tokenizer has 256", kMath},
                        {2, 1 << 20}, FIELD(train.model.vocab)));
  out.push_back(
      integer({"model.dim", "channels", "width D of the residual stream", kMath}, {2, 65536}, FIELD(train.model.dim)));
  out.push_back(integer({"model.layers", "layers", "decoder blocks, cut into stages", kMath}, {1, 4096},
                        FIELD(train.model.layers)));
  out.push_back(integer({"model.heads", "heads", "query heads; must divide dim into an even width", kMath}, {1, 4096},
                        FIELD(train.model.heads)));
  out.push_back(integer(
      {"model.kv_heads", "heads", "key and value heads, shared by groups of query heads; must divide heads", kMath},
      {1, 4096}, FIELD(train.model.kv_heads)));
  out.push_back(integer({"model.ffn", "channels", "inner width of the SwiGLU feed-forward part", kMath}, {1, 1 << 20},
                        FIELD(train.model.ffn)));
  out.push_back(real({"model.norm_eps", "no unit", "what RMSNorm adds to the mean square", kMath}, {1e-12, 1e-1},
                     FIELD(train.model.norm_eps)));
  out.push_back(real({"model.rope_base", "no unit", "base of the rotary position frequencies", kMath}, {1, 1e12},
                     FIELD(train.model.rope_base)));
  out.push_back(real({"model.rope_scaling", "no unit",
                      "how much slower the lowest rotary frequencies turn, as in Llama 3 for long contexts; 1 = none", kMath},
                     {1, 1e6}, FIELD(train.model.rope_scaling)));
  out.push_back(choice(
      {"model.cut_kind", "name",
       "how activations cross a cut: resbm squeezes them to cut_width numbers a token (arXiv 2604.11947), resbm+tokens "
       "too, and the receiver adds a view of its own of the last tokens; none sends all dim of them",
       kMath},
      {"none", "resbm", "resbm+tokens"}, FIELD(train.model.cut_kind)));
  out.push_back(integer({"model.cut_width", "channels a token",
                         "width K of what crosses a resbm cut; dim / cut_width is the compression", kMath},
                        {1, 65536}, FIELD(train.model.cut_width)));
  out.push_back(integer({"model.token_rank", "channels a token",
                         "resbm+tokens only: width r of the receiver's own embedding of the tokens", kMath},
                        {1, 65536}, FIELD(train.model.token_rank)));
  out.push_back(integer({"model.token_window", "tokens",
                         "resbm+tokens only: how many of the last tokens, its own included, a receiver sees", kMath},
                        {1, 64}, FIELD(train.model.token_window)));
  out.push_back(cut_after_key());
  out.push_back(integer({"model.seed", "no unit", "seed of the initial weights", kMath}, {0, kSeedMost},
                        FIELD(train.model.seed)));
}

void add_optimizer(std::vector<Key>& out) {
  constexpr Effect kMath = Effect::mathematics;
  const Range beta{0, 0.999999999};
  out.push_back(choice({"optimizer.kind", "name",
                        "how gradients become weights; all decay weights decoupled; muon is for the matrices inside the "
                        "blocks, with adamw for embeddings, head and norms", kMath},
                       {"adamw", "nadam", "muon"}, FIELD(train.optimizer.kind)));
  out.push_back(
      real({"optimizer.beta1", "a step", "decay of the first moment", kMath}, beta, FIELD(train.optimizer.beta1)));
  out.push_back(
      real({"optimizer.beta2", "a step", "decay of the second moment", kMath}, beta, FIELD(train.optimizer.beta2)));
  out.push_back(real({"optimizer.eps", "no unit", "what the root of the second moment gets added", kMath}, {1e-20, 1},
                     FIELD(train.optimizer.eps)));
  out.push_back(
      real({"optimizer.weight_decay", "of the rate, a step", "decay of matrices; norms are not decayed", kMath},
           {0, 10}, FIELD(train.optimizer.weight_decay)));
  out.push_back(real({"optimizer.momentum_decay", "no unit", "nadam only: how fast its momentum warms up", kMath},
                     {0, 1}, FIELD(train.optimizer.momentum_decay)));
  out.push_back(real({"optimizer.muon_momentum", "a step", "muon only: its Nesterov momentum", kMath}, beta,
                     FIELD(train.optimizer.muon_momentum)));
  out.push_back(real({"optimizer.muon_rate", "of the schedule's rate", "muon only: the rate of its matrices", kMath}, {0, 1e6},
                     FIELD(train.optimizer.muon_rate)));
  out.push_back(integer({"optimizer.muon_steps", "iterations", "muon only: Newton–Schulz iterations an update", kMath}, {1, 100},
                        FIELD(train.optimizer.muon_steps)));
  out.push_back(choice({"optimizer.muon_float", "name", "muon only: what those are computed in", kMath}, {"float32", "bfloat16"},
                       FIELD(train.optimizer.muon_float)));
  out.push_back(real({"optimizer.clip_norm", "L2 norm",
                      "the gradient's largest global L2 norm, over all stages; 0 = no clipping", kMath},
                     {0, 1e6}, FIELD(train.optimizer.clip_norm)));
}

void add_schedule(std::vector<Key>& out) {
  constexpr Effect kMath = Effect::mathematics;
  const Range steps{0, 1'000'000'000};
  out.push_back(integer({"schedule.steps", "steps", "length of the run", kMath}, {1, 1'000'000'000},
                        FIELD(train.schedule.steps)));
  out.push_back(choice(
      {"schedule.kind", "name",
       "the learning rate after the warm-up: cosine falls to the floor, wsd stays and falls in the last decay_steps, "
       "constant stays",
       kMath},
      {"cosine", "wsd", "constant"}, FIELD(train.schedule.kind)));
  out.push_back(real({"schedule.peak_lr", "no unit", "the highest learning rate", kMath}, {0, 10},
                     FIELD(train.schedule.peak_lr)));
  out.push_back(real({"schedule.floor_fraction", "of peak_lr", "where the learning rate ends", kMath}, {0, 1},
                     FIELD(train.schedule.floor_fraction)));
  out.push_back(integer({"schedule.warmup_steps", "steps", "the rate rises from nothing over so many", kMath}, steps,
                        FIELD(train.schedule.warmup_steps)));
  out.push_back(integer({"schedule.decay_steps", "steps", "wsd only: length of the fall at the end", kMath}, steps,
                        FIELD(train.schedule.decay_steps)));
}

void add_batch(std::vector<Key>& out) {
  constexpr Effect kMath = Effect::mathematics;
  out.push_back(integer({"batch.sequences", "sequences", "B, in one microbatch: the unit of work", kMath}, {1, 4096},
                        FIELD(train.batch.sequences)));
  out.push_back(
      integer({"batch.tokens", "tokens", "S, in one sequence", kMath}, {1, 1 << 20}, FIELD(train.batch.tokens)));
  out.push_back(integer({"batch.microbatches", "microbatches", "M, in one step", kMath}, {1, 4096},
                        FIELD(train.batch.microbatches)));
  out.push_back(integer({"batch.eval_microbatches", "microbatches", "held-out microbatches in one evaluation", kMath},
                        {0, 4096}, FIELD(train.batch.eval_microbatches)));
  out.push_back(
      integer({"batch.eval_every", "steps", "from one evaluation to the next; 0 = only after the last step", kMath},
              {0, 1'000'000'000}, FIELD(train.batch.eval_every)));
  out.push_back(integer({"batch.data_seed", "no unit", "seed of the order in which the text is read", kMath},
                        {0, kSeedMost}, FIELD(train.batch.data_seed)));
}

void add_layout_and_data(std::vector<Key>& out) {
  out.push_back(
      integer({"layout.stages", "stages", "how many pieces the layers are cut into"}, {1, 1024}, FIELD(stages)));
  out.push_back(integer(
      {"layout.replicas", "workers a stage", "workers with the same stage; stages × replicas workers make the run"},
      {1, 256}, FIELD(replicas)));
  out.push_back(text_files_key());
  out.push_back(
      text({"data.shards", "path",
            "a folder of token shards to train on instead of text; \"\" = cut them from the text", Effect::data},
           FIELD(shards)));
  out.push_back(text({"data.shard_cache", "path", "the folder that shards cut from text are kept in, to be used again"},
                     FIELD(shard_cache),
                     [](const std::string& path) { return path.empty() ? "the path is empty" : std::string(); }));
  out.push_back(real({"data.holdout_fraction", "of the text",
                      "the last part of it, never trained on: the validation loss is measured there", Effect::data},
                     {0.0001, 0.5}, FIELD(holdout_fraction)));
}

void add_numbers(std::vector<Key>& out) {
  constexpr Effect kMath = Effect::mathematics;
  Key dtype = choice({"compute.dtype", "name",
                      "what is multiplied, and sent between stages; auto is settled when the run is made: bfloat16 where this "
                      "machine is faster at it, else float32", kMath},
                     {"auto", "float32", "bfloat16"}, FIELD(numbers));
  dtype.set = [set = dtype.set](RunSettings& s, const Value& v) {
    set(s, v);
    if (s.numbers != NumbersChoice::automatic)
      s.train.numbers.compute = s.numbers == NumbersChoice::bfloat16 ? model::FloatKind::bfloat16 : model::FloatKind::float32;
  };
  out.push_back(std::move(dtype));
  out.push_back(choice({"compute.state_dtype", "name",
                        "what weights and moments are kept in from step to step; bfloat16 halves their memory, costs quality, "
                        "and needs compute.dtype bfloat16", kMath},
                       {"float32", "bfloat16"}, FIELD(train.numbers.state)));
  out.push_back(choice({"compute.accumulate", "name",
                        "what gradients are summed in; only fixed64 (8 bytes a parameter) makes losses independent of who did "
                        "what", kMath},
                       {"fixed64", "float32", "bfloat16"}, FIELD(train.numbers.sums)));
  out.push_back(choice({"compute.recompute", "name",
                        "whether a backward runs the forward again (always), uses what it left behind (never), or that while "
                        "compute.kept_bytes suffice (auto); the losses are the same"},
                       {"auto", "always", "never"}, FIELD(recompute)));
  out.push_back(integer({"compute.kept_bytes", "bytes",
                         "most that a worker keeps of its forwards where recompute is auto; 0 = its share of half of the "
                         "machine's free memory"},
                        {0, 1e15}, FIELD(kept_bytes)));
}

void add_run(std::vector<Key>& out) {
  out.push_back(text({"run.dir", "path", "the run's folder: logs, events, checkpoints; \"\" = runs/<date-time>"},
                     FIELD(run_dir)));
  out.push_back(
      integer({"run.checkpoint_every", "steps", "from one checkpoint to the next; one is always made at the end"},
              {1, 1'000'000'000}, FIELD(checkpoint_every)));
  out.push_back(integer({"run.keep_checkpoints", "checkpoints", "the newest ones that are kept"}, {1, 100'000},
                        FIELD(keep_checkpoints)));
  out.push_back(
      integer({"run.print_every", "steps", "from one line of output to the next, where that is not a terminal"},
              {1, 1'000'000}, FIELD(print_every)));
  out.push_back(text({"compute.device", "name",
                      "what computes: auto (cuda, else mps, else cpu), cpu, cuda, mps, or paced:NAME, which takes a device's time and "
                      "computes nothing (docs/formats/device.md). Losses are bit-equal only among devices of one kind"},
                     FIELD(device), device_complaint));
  add_numbers(out);
  out.push_back(integer(
      {"compute.threads", "threads",
       "of each worker's kernels; the number changes the last bits of the losses, so that it belongs to the run",
       Effect::mathematics},
      {1, 1024}, FIELD(train.threads)));
  out.push_back(text({"network.listen", "host:port",
                      "where the coordinator listens (UDP); \"\" = 127.0.0.1:0 for train, 0.0.0.0:4433 for coordinate; "
                      "port 0 = any free one"},
                     FIELD(listen), address_complaint));
  out.push_back(text({"network.advertise", "host:port",
                      "the coordinator's address in the join link, where others reach it by another than it listens "
                      "on; \"\" = the same"},
                     FIELD(advertise), address_complaint));
  out.push_back(integer({"network.uplink_bytes_per_s", "bytes/s", "most that one process sends; 0 = no cap"}, {0, 1e12},
                        FIELD(uplink_bytes_per_s)));
  Key deadline = key_of(
      {"network.join_deadline_s", "seconds", "how long the coordinator waits for all workers before it gives up"},
      ValueType::integer);
  deadline.least = 1;
  deadline.most = 31'536'000;
  deadline.get = [](const RunSettings& s) { return Value(s.join_deadline.ns() / 1'000'000'000); };
  deadline.set = [](RunSettings& s, const Value& v) {
    s.join_deadline = base::Duration::seconds(std::get<std::int64_t>(v));
  };
  out.push_back(std::move(deadline));
}

#undef FIELD

std::vector<Key> make_keys() {
  std::vector<Key> out;
  add_model(out);
  add_optimizer(out);
  add_schedule(out);
  add_batch(out);
  add_layout_and_data(out);
  add_run(out);
  return out;
}

}  // namespace

const std::vector<Key>& keys() {
  static const std::vector<Key> table = make_keys();
  return table;
}

const Key* find_key(std::string_view name) {
  const auto& table = keys();
  const auto at = std::find_if(table.begin(), table.end(), [&](const Key& key) { return key.name == name; });
  return at == table.end() ? nullptr : &*at;
}

std::string_view group_title(std::string_view group) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 9> kTitles = {{
      {"model", "What is trained: a Llama-type decoder and the cuts between its layers."},
      {"optimizer", "How gradients become weights."},
      {"schedule", "How long, and the learning rate over it."},
      {"batch", "The unit of work, the step, the evaluation."},
      {"layout", "How the model is spread over workers. Losses do not depend on it."},
      {"data", "What is read."},
      {"run", "Where the run lives and how often it is saved and shown."},
      {"compute", "What each worker computes with."},
      {"network", "How workers and coordinator find each other."},
  }};
  for (const auto& [name, title] : kTitles)
    if (name == group) return title;
  return "";
}

}  // namespace stagecoach::app
