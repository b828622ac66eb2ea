// What the user may set about a run: one table of keys, and how values get from a TOML file and `--set` into a struct.
//
// In:      a TOML file, `key=value` overrides.
// Out:     RunSettings, or every problem at once, each with the place it stands at and what was expected there.
// Thread:  any; plain values.
// Why:     parsing, `--explain`, error messages and the written-out config all read the one table below, so that they
// cannot
//          tell the user different things.
#pragma once

#include <cstdint>
#include <ctime>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "compute/stage.h"
#include "link/link.h"
#include "model/config.h"

namespace stagecoach::app {

/// compute.dtype as the user wrote it.
enum class NumbersChoice : std::uint8_t { automatic, float32, bfloat16 };

/// Everything a run is started from. The defaults are those of `stagecoach train` without a file.
struct RunSettings {
  model::TrainConfig train;
  bool cut_every = true;  // model.cut_after = "every": train.model.cut_after follows model.layers

  std::int64_t stages = 4;
  std::int64_t replicas = 2;

  std::vector<std::string> text_files;  // empty = the built-in King James text
  std::string shards;                   // a folder of token shards that exists; empty = cut them from the text
  std::string shard_cache = ".stagecoach/shards";
  double holdout_fraction = 0.05;

  std::string run_dir;  // empty = default_run_dir()
  std::int64_t checkpoint_every = 100;
  std::int64_t keep_checkpoints = 3;
  std::int64_t print_every = 10;

  std::string device = "auto";
  NumbersChoice numbers = NumbersChoice::automatic;  // auto: resolve_numbers() writes train.numbers.compute
  compute::Recompute recompute = compute::Recompute::automatic;
  std::int64_t kept_bytes = 0;  // of kept forwards, a worker; 0 = a share of the machine's free memory

  std::string listen;     // "host:port"; empty = the command's default (kTrainListen, kCoordinateListen)
  std::string advertise;  // "host:port" for the join link; empty = the listening address
  std::int64_t uplink_bytes_per_s = 0;
  base::Duration join_deadline = base::Duration::seconds(600);

  bool operator==(const RunSettings&) const = default;
};

inline constexpr std::string_view kTrainListen = "127.0.0.1:0";
inline constexpr std::string_view kCoordinateListen = "0.0.0.0:4433";
/// A config file longer than this is refused unread.
inline constexpr std::size_t kConfigBytesMax = 1u << 20;

/// A key's value between the table and TOML.
using Value = std::variant<std::int64_t, double, std::string, std::vector<std::int64_t>, std::vector<std::string>>;

enum class ValueType : std::uint8_t {
  integer,
  real,
  text,
  choice,      // one of `choices`
  layer_list,  // "every" or a list of integers
  text_list,   // a list of strings; one string alone is a list of one
};

/// What a changed value changes.
enum class Effect : std::uint8_t {
  mathematics,  // the losses: part of the ConfigId, the same on every machine of a run and at every resume
  data,         // the losses, through the token shards' manifest hash
  run,          // only where, how fast and how visibly
};

/// One key: the only place where it is described.
struct Key {
  std::string_view name;  // "model.dim": group, dot, name
  ValueType type = ValueType::integer;
  std::string_view unit;  // "no unit" where there is none
  std::string_view meaning;
  Effect effect = Effect::run;
  double least = 0;  // of integers and reals, and of each integer of a list; both inclusive
  double most = 0;
  std::vector<std::string_view> choices;
  std::function<Value(const RunSettings&)> get;
  std::function<void(RunSettings&, const Value&)> set;       // the value has passed type and range
  std::function<std::string(const std::string&)> complaint;  // text only: what is wrong with it, or empty

  std::string_view group() const { return name.substr(0, name.find('.')); }
  std::string_view leaf() const { return name.substr(name.find('.') + 1); }
};

/// All keys, grouped, in the order in which they are shown. Built once, never changed.
const std::vector<Key>& keys();
/// Null where there is none of that name.
const Key* find_key(std::string_view name);
/// What the group of keys is about: one line for `--explain` and for the written-out file.
std::string_view group_title(std::string_view group);
/// The name in the table that is nearest to `name` by edit distance, a bare last part ("dim") counting as a match.
std::string_view nearest_key(std::string_view name);

/// "an integer from 1 to 65536, in microbatches": what a value of this key must look like.
std::string expectation(const Key& key);
/// The value as TOML writes it. Reals in the shortest form that parses back to the same bits.
std::string to_toml_value(const Value& value);

/// Settings, or all that is wrong with where they came from. With problems the settings are of no use.
struct LoadedSettings {
  RunSettings settings;
  std::vector<std::string> problems;  // each a sentence with its place ("my.toml:12") in front
  bool ok() const { return problems.empty(); }
};

/// Reads `text` over the defaults, then `overrides` ("model.dim=256", in order) over it, then checks the whole with
/// model::problems() and the split with model::balanced_split().
///
/// `name` stands for the text in messages.
LoadedSettings parse_settings(std::string_view text, const std::string& name,
                              const std::vector<std::string>& overrides = {});

/// The same from the file at `path`; from the defaults alone where there is no path.
LoadedSettings load_settings(const std::optional<std::string>& path, const std::vector<std::string>& overrides = {});

/// "runs/2026-11-22-152603": local time, so that a person finds last night's run.
std::string default_run_dir(std::time_t now);

/// "10.0.0.1:4433", "[::1]:0" or "*:4433" (all IPv4 addresses).
///
/// errors: invalid_argument  what was expected and what came
base::Result<link::Address> parse_address(std::string_view text);

}  // namespace stagecoach::app
