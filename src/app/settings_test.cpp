#include "app/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>

#include "app/explain.h"
#include "base/prng.h"

namespace stagecoach::app {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

/// A random value that the key accepts.
Value random_value(const Key& key, base::Prng& prng) {
  const auto integer = [&] {
    return static_cast<std::int64_t>(key.least) +
           static_cast<std::int64_t>(prng.below(static_cast<std::uint64_t>(key.most - key.least) + 1));
  };
  switch (key.type) {
    case ValueType::integer:
      return integer();
    case ValueType::real:
      return key.least + prng.unit() * (key.most - key.least);
    case ValueType::choice:
      return std::string(key.choices[prng.below(key.choices.size())]);
    case ValueType::text:
      if (key.complaint && key.unit == "host:port") return std::string("[::1]:") + std::to_string(prng.below(65536));
      if (key.name == "compute.device") return std::string("paced:a \"quoted\" file ") + std::to_string(prng.next());
      return std::string("a \"quoted\" \\ path\twith ü and \x7f #") + std::to_string(prng.next());
    case ValueType::layer_list:
      if (prng.below(2) == 0) return std::string("every");
      return std::vector<std::int64_t>{0, 1 + static_cast<std::int64_t>(prng.below(100))};
    case ValueType::text_list:
      return std::vector<std::string>{"a.txt", "b \"c\".txt"};
  }
  return std::int64_t{0};
}

std::set<std::string> values_of(const RunSettings& settings) {
  std::set<std::string> out;
  for (const Key& key : keys()) out.insert(std::string(key.name) + "=" + to_toml_value(key.get(settings)));
  return out;
}

// Claim: the defaults are the laptop run of the design, and nothing is wrong with them.
TEST(Settings, defaults_are_the_laptop_run) {
  const LoadedSettings loaded = load_settings(std::nullopt);
  EXPECT_THAT(loaded.problems, IsEmpty());
  const RunSettings& s = loaded.settings;
  EXPECT_EQ(s.train, model::TrainConfig{});
  EXPECT_EQ(s.stages * s.replicas, 8);
  EXPECT_THAT(s.train.model.cut_after, ElementsAre(0, 1, 2));
  EXPECT_EQ(s.train.batch.tokens_per_step(), 2 * 128 * 8);
}

// Claim: each name is in the table once, has a titled group, a unit and a meaning, and its default is accepted by its
// own bounds.
TEST(Settings, the_table_describes_every_key) {
  std::set<std::string_view> names;
  const RunSettings defaults;
  std::string file;
  for (const Key& key : keys()) {
    EXPECT_TRUE(names.insert(key.name).second) << key.name;
    EXPECT_FALSE(group_title(key.group()).empty()) << key.name;
    EXPECT_FALSE(key.meaning.empty()) << key.name;
    EXPECT_FALSE(key.unit.empty()) << key.name;
    EXPECT_EQ(find_key(key.name), &key);
    const auto loaded = parse_settings("", "t", {std::string(key.name) + "=" + to_toml_value(key.get(defaults))});
    EXPECT_THAT(loaded.problems, IsEmpty()) << key.name;
  }
}

// Claim: a written-out file parses back to the same settings, for the defaults and for random values of every key.
TEST(Settings, written_toml_reads_back_equal) {
  base::Prng prng(7);
  for (int round = 0; round < 200; ++round) {
    RunSettings settings;
    if (round > 0)
      for (const Key& key : keys()) key.set(settings, random_value(key, prng));
    const LoadedSettings loaded = parse_settings(to_toml(settings), "t");
    EXPECT_EQ(values_of(loaded.settings), values_of(settings)) << to_toml(settings);
  }
  const LoadedSettings defaults = load_settings(std::nullopt);
  EXPECT_EQ(parse_settings(to_toml(defaults.settings), "t").settings, defaults.settings);
}

// Claim: the laptop config in the tree is the written-out defaults, so that it shows every key and never goes stale.
TEST(Settings, the_laptop_file_is_the_defaults) {
  const auto path = std::filesystem::path(__FILE__).parent_path() / "../../configs/laptop.toml";
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  const LoadedSettings defaults = load_settings(std::nullopt);
  EXPECT_EQ(text.str(), to_toml(defaults.settings));
  const LoadedSettings loaded = load_settings(path.string());
  EXPECT_THAT(loaded.problems, IsEmpty());
  EXPECT_EQ(loaded.settings, defaults.settings);
}

// Claim: an unknown key is refused at its line with the nearest name; a bare or misspelt one finds its place.
TEST(Settings, unknown_keys_get_the_nearest_name) {
  EXPECT_THAT(parse_settings("[model]\ndim = 64\nlayer = 4\n", "my.toml").problems,
              ElementsAre("my.toml:3: there is no key model.layer; did you mean model.layers?"));
  EXPECT_EQ(nearest_key("dim"), "model.dim");
  EXPECT_EQ(nearest_key("optimiser.beta2"), "optimizer.beta2");
  EXPECT_EQ(nearest_key("shedule.step"), "schedule.steps");
  EXPECT_EQ(nearest_key("checkpoint_every"), "run.checkpoint_every");
  EXPECT_THAT(parse_settings("[modle]\ndim = 64\n", "my.toml").problems,
              ElementsAre(AllOf(HasSubstr("my.toml:1: there is no group [modle]"), HasSubstr("model, network"))));
  EXPECT_THAT(parse_settings("dim = 64\n", "my.toml").problems, ElementsAre(HasSubstr("did you mean model.dim?")));
}

// Claim: wrong types, ranges, enumerators and non-finite numbers each say place, expectation and what came; all in one
// go.
TEST(Settings, every_problem_is_reported_at_once) {
  const auto loaded = parse_settings(
      "[model]\n"
      "dim = \"wide\"\n"
      "layers = 4.0\n"
      "norm_eps = nan\n"
      "cut_kind = \"zip\"\n"
      "cut_after = [0, -1]\n"
      "[schedule]\n"
      "peak_lr = inf\n"
      "steps = 0\n"
      "[network]\n"
      "listen = \"nowhere\"\n"
      "[data]\n"
      "text_files = [1]\n",
      "my.toml", {"batch.microbatches=99999", "nonsense"});
  EXPECT_THAT(loaded.problems,
              ::testing::UnorderedElementsAre(
                  "my.toml:2: model.dim: expected an integer from 2 to 65536 (channels), got the text \"wide\"",
                  "my.toml:3: model.layers: expected an integer from 1 to 4096 (layers), got 4.0",
                  "my.toml:4: model.norm_eps: expected a number from 1e-12 to 0.1 (no unit), got nan",
                  "my.toml:5: model.cut_kind: expected one of \"none\", \"resbm\", \"resbm+tokens\", got \"zip\"",
                  "my.toml:6: model.cut_after: expected \"every\" or a list of integers from 0 to 4094 (layers), got "
                  "-1 among them",
                  "my.toml:8: schedule.peak_lr: expected a number from 0 to 10 (no unit), got inf",
                  "my.toml:9: schedule.steps: expected an integer from 1 to 1000000000 (steps), got 0",
                  AllOf(HasSubstr("my.toml:11: network.listen: expected a text (host:port)"), HasSubstr("no port")),
                  "my.toml:13: data.text_files: expected a list of texts (paths), got a list",
                  HasSubstr("--set batch.microbatches=99999: batch.microbatches: expected an integer from 1 to 4096"),
                  HasSubstr("--set nonsense: expected key=value")));
}

// Claim: what only the whole model shows is reported too: heads that do not divide, more stages than can be cut.
TEST(Settings, the_model_and_the_split_are_checked) {
  EXPECT_THAT(parse_settings("", "t", {"model.heads=3"}).problems, ::testing::Contains(HasSubstr("model.heads")));
  EXPECT_THAT(parse_settings("", "t", {"layout.stages=9"}).problems, ElementsAre(HasSubstr("layout.stages")));
  EXPECT_THAT(parse_settings("", "t", {"data.shards=x", "data.text_files=y"}).problems, SizeIs(1));
}

// Claim: `every` follows the number of layers, whatever the order of the keys; a list stands as given.
TEST(Settings, cut_after_every_follows_the_layers) {
  const auto six = parse_settings("[model]\ncut_after = \"every\"\nlayers = 6\n", "t");
  EXPECT_THAT(six.settings.train.model.cut_after, ElementsAre(0, 1, 2, 3, 4));
  const auto list = parse_settings("[model]\nlayers = 6\ncut_after = [2]\n[layout]\nstages = 2\n", "t");
  EXPECT_THAT(list.settings.train.model.cut_after, ElementsAre(2));
  EXPECT_THAT(parse_settings("", "t", {"model.layers=2", "layout.stages=2", "model.cut_after=[0]"})
                  .settings.train.model.cut_after,
              ElementsAre(0));
}

// Claim: --set takes plain words where a shell would eat quotes, overrides the file, and cannot smuggle in a second
// key.
TEST(Settings, overrides_read_like_a_shell_writes_them) {
  const auto loaded =
      parse_settings("[run]\ndir = \"a\"\n", "t",
                     {"run.dir=2024", "model.cut_kind=none", "optimizer.kind = nadam", "model.cut_after=every",
                      "data.text_files=my text.txt", "schedule.peak_lr=1e-3", "optimizer.weight_decay=0"});
  EXPECT_THAT(loaded.problems, IsEmpty());
  EXPECT_EQ(loaded.settings.run_dir, "2024");
  EXPECT_EQ(loaded.settings.train.model.cut_kind, model::CutKind::none);
  EXPECT_EQ(loaded.settings.train.optimizer.kind, model::OptimizerKind::nadam);
  EXPECT_THAT(loaded.settings.text_files, ElementsAre("my text.txt"));
  EXPECT_EQ(loaded.settings.train.schedule.peak_lr, 1e-3);
  EXPECT_EQ(loaded.settings.train.optimizer.weight_decay, 0);
  EXPECT_THAT(parse_settings("", "t", {"model.seed=1\nmodel.dim=64"}).problems, SizeIs(1));
  EXPECT_THAT(parse_settings("", "t", {"model.seed="}).problems, SizeIs(1));
}

// Claim: a file that is no TOML, too large, absent or a folder is one clear problem.
TEST(Settings, bad_files_are_problems_not_crashes) {
  EXPECT_THAT(parse_settings("[model\n", "my.toml").problems, ElementsAre(HasSubstr("my.toml:1: this is not TOML")));
  EXPECT_THAT(parse_settings(std::string(5000, '['), "t").problems, SizeIs(1));
  EXPECT_THAT(parse_settings("a = " + std::string(5000, '['), "t").problems, SizeIs(1));
  EXPECT_THAT(parse_settings(std::string("\xff\xfe\x00", 3), "t").problems, SizeIs(1));
  EXPECT_THAT(load_settings("/does/not/exist.toml").problems, ElementsAre(HasSubstr("cannot read the config")));
  EXPECT_THAT(load_settings(::testing::TempDir()).problems, ElementsAre(HasSubstr("cannot read the config")));
  const std::string path = ::testing::TempDir() + "stagecoach_large" + std::to_string(::getpid()) + ".toml";
  std::ofstream(path) << std::string(kConfigBytesMax + 1, '#');
  EXPECT_THAT(load_settings(path).problems, ElementsAre(HasSubstr("1 MiB")));
  std::remove(path.c_str());
}

// Claim: TOML accepts the integer 3 for a real, and the extremes of 64 bits are refused without overflow.
TEST(Settings, extremes_do_not_overflow) {
  EXPECT_EQ(parse_settings("", "t", {"optimizer.clip_norm=3"}).settings.train.optimizer.clip_norm, 3.0);
  for (const char* number : {"9223372036854775807", "-9223372036854775808", "-1"})
    for (const char* key : {"model.seed", "schedule.steps", "network.join_deadline_s", "batch.sequences"})
      EXPECT_THAT(parse_settings("", "t", {std::string(key) + "=" + number}).problems, SizeIs(1)) << key << number;
  EXPECT_THAT(parse_settings("", "t",
                             {"batch.sequences=4096", "batch.tokens=1048576", "batch.microbatches=4096",
                              "schedule.steps=1000000000"})
                  .problems,
              ::testing::Contains(HasSubstr("2^60")));
}

// Claim: what no message can carry between stages is refused with the sizes, before a run begins; alone, without a road, the same
// microbatch is fine.
TEST(Settings, microbatches_that_no_message_carries_are_refused) {
  // 512 x 1024 tokens of width 128 and 4 bytes: 256 MiB, and 192 fit.
  const std::vector<std::string> wide = {"batch.sequences=512", "batch.tokens=1024", "model.cut_kind=none", "model.dim=128"};
  EXPECT_THAT(parse_settings("", "none", wide).problems,
              ElementsAre(AllOf(HasSubstr("268435456 bytes"), HasSubstr("at most 201326592"), HasSubstr("batch.tokens"))));
  std::vector<std::string> alone = wide;
  alone.push_back("layout.stages=1");
  EXPECT_THAT(parse_settings("", "none", alone).problems, IsEmpty());
  // 4096 x (1024 + 1) ids of 4 bytes: just beyond 16 MiB; with 1023 tokens they just fit.
  const std::vector<std::string> many = {"batch.sequences=4096", "batch.tokens=1024", "model.cut_width=1"};
  EXPECT_THAT(parse_settings("", "none", many).problems, ElementsAre(AllOf(HasSubstr("token ids"), HasSubstr("16793600 bytes"))));
  EXPECT_THAT(parse_settings("", "none", {"batch.sequences=4096", "batch.tokens=1023", "model.cut_width=1"}).problems, IsEmpty());
}

// Claim: --explain shows every key with its default, and stars exactly those that change the losses.
TEST(Settings, explain_shows_every_key) {
  const std::string text = explain();
  const RunSettings defaults;
  for (const Key& key : keys()) {
    const std::string line = std::string(key.name) + " = " + to_toml_value(key.get(defaults));
    EXPECT_THAT(text, HasSubstr(line + (key.effect == Effect::run ? "\n" : "  *\n")));
  }
}

// Claim: addresses are taken in their three forms and refused with a good example otherwise.
TEST(Settings, addresses) {
  EXPECT_EQ(parse_address("127.0.0.1:0").value(), (link::Address{"127.0.0.1", 0}));
  EXPECT_EQ(parse_address("[::1]:4433").value(), (link::Address{"::1", 4433}));
  EXPECT_EQ(parse_address("*:4433").value(), (link::Address{"0.0.0.0", 4433}));
  EXPECT_EQ(parse_address("train.example.org:9").value().host, "train.example.org");
  for (const char* bad : {"", "1.2.3.4", ":1", "1.2.3.4:65536", "1.2.3.4:x", "1.2.3.4:-1", "::1:80", "a b:1", "[]:1"})
    EXPECT_FALSE(parse_address(bad).ok()) << bad;
}

// Claim: the run's folder is named by the local time.
TEST(Settings, run_folder_carries_the_time) {
  std::tm parts{};
  parts.tm_year = 126, parts.tm_mon = 10, parts.tm_mday = 22, parts.tm_hour = 15, parts.tm_min = 26, parts.tm_sec = 3;
  parts.tm_isdst = -1;
  EXPECT_EQ(default_run_dir(std::mktime(&parts)), "runs/2026-11-22-152603");
}

// Claim: a split into more stages than layers is told together with problems that have nothing to do with it.
TEST(Settings, too_many_stages_are_told_beside_other_problems) {
  const auto loaded = parse_settings("[layout]\nstages = 99\n[model]\nheads = 3\ndimm = 4\n", "my.toml");
  EXPECT_THAT(loaded.problems, testing::Contains(testing::HasSubstr("at most 4 stages, not 99")));
  EXPECT_THAT(loaded.problems, testing::Contains(testing::HasSubstr("model.heads")));
  EXPECT_THAT(loaded.problems, testing::Contains(testing::HasSubstr("dimm")));
}

}  // namespace
}  // namespace stagecoach::app
