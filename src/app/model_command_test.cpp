// Claims: `model` tells for every preset what its dimensions give, and where a published total is wrong; presets, `--set`, files and
// the configs in the tree mean the same; a device that is too small is told by the exit status; nonsense is refused with what to say.
#include "app/model_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "app/preset_settings.h"
#include "app/settings.h"
#include "model/presets.h"

namespace stagecoach::app {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Told {
  int status = 0;
  std::string out, err;
};

Told tell(const ModelOptions& options) {
  std::ostringstream out, err;
  Told told;
  told.status = run_model(options, out, err);
  told.out = out.str(), told.err = err.str();
  return told;
}

TEST(ModelCommand, tells_of_every_preset) {
  for (const model::Preset& preset : model::presets()) {
    const Told told = tell({.what = std::string(preset.name)});
    EXPECT_EQ(told.status, 0) << preset.name << told.err;
    if (!preset.remark.empty()) {
      EXPECT_THAT(told.out, HasSubstr(std::string(preset.remark))) << preset.name;
    }
    const Told machine = tell({.what = std::string(preset.name), .json = true});
    const json report = json::parse(machine.out);
    std::int64_t sum = 0;
    for (const json& stage : report["stages"]) sum += stage["parameters"].get<std::int64_t>();
    EXPECT_EQ(sum, report["parameters"]) << preset.name;
    if (preset.published != 0 && preset.remark.empty()) {
      EXPECT_EQ(report["parameters_without_cuts"], preset.published) << preset.name;
    }
  }
}

TEST(ModelCommand, orion_is_told_as_it_was) {
  const Told text = tell({.what = "100B", .device = "80GB"});
  EXPECT_EQ(text.status, 0);
  for (const char* words : {"99,615,863,808", "[4, 6×12, 5, 5, 4]", "2.197 MiB", "140.6 MiB", "64 to 1", "It fits."})
    EXPECT_THAT(text.out, HasSubstr(words));
  const json report = json::parse(tell({.what = "100B", .json = true}).out);
  EXPECT_EQ(report["parameters_without_cuts"], 99'615'863'808);
  EXPECT_EQ(report["boundaries"][0]["bytes"], 8'000 * 144 * 2);
  EXPECT_EQ(report["stages"][1]["memory"]["weights"]["bytes"], 2 * report["stages"][1]["parameters"].get<std::int64_t>());
}

TEST(ModelCommand, what_does_not_fit_is_an_exit_status) {
  const Told told = tell({.what = "100B", .device = "24GB"});
  EXPECT_EQ(told.status, 3);
  EXPECT_THAT(told.out, HasSubstr("too large by"));
  EXPECT_EQ(tell({.what = "8B", .device = "24GiB"}).status, 3);
  EXPECT_EQ(tell({.what = "1B", .stages = 8, .overrides = {"batch.sequences=2"}, .device = "24GiB"}).status, 0);
}

TEST(ModelCommand, cuts_follow_the_stages_of_a_preset) {
  const json report = json::parse(tell({.what = "15B", .stages = 10, .json = true}).out);
  EXPECT_EQ(report["stages"].size(), 10u);
  EXPECT_EQ(report["boundaries"].size(), 9u);
  for (const json& boundary : report["boundaries"]) EXPECT_EQ(boundary["bytes"], 8'000 * 80 * 2);
}

TEST(ModelCommand, nonsense_is_refused_all_at_once) {
  const Told told = tell({.what = "2B", .device = "many", .uplink = "fast", .mfu = 2});
  EXPECT_EQ(told.status, 1);
  EXPECT_THAT(told.out, IsEmpty());
  for (const char* words : {"neither a preset nor a file", "100M, 1B", "--device", "--uplink", "--mfu"}) EXPECT_THAT(told.err, HasSubstr(words));
  EXPECT_THAT(tell({.what = "1B", .stages = 17}).err, HasSubstr("from 1 to 16 stages"));
  EXPECT_THAT(tell({.what = "1B", .overrides = {"model.dim=100"}}).err, HasSubstr("model.dim"));
}

TEST(PresetSettings, say_what_train_config_says) {
  for (const model::Preset& preset : model::presets()) {
    const LoadedSettings loaded = parse_settings("", "none", preset_overrides(preset));
    EXPECT_THAT(loaded.problems, IsEmpty()) << preset.name;
    EXPECT_EQ(loaded.settings.train, model::train_config(preset, preset.stages)) << preset.name;
    EXPECT_EQ(loaded.settings.stages, preset.stages) << preset.name;
  }
}

TEST(PresetSettings, are_the_files_of_that_name) {
  const auto folder = std::filesystem::path(__FILE__).parent_path() / "../../configs";
  for (const char* name : {"100M", "1B", "15B", "100B"}) {
    const LoadedSettings file = load_settings((folder / (std::string(name) + ".toml")).string());
    EXPECT_THAT(file.problems, IsEmpty()) << name;
    EXPECT_EQ(file.settings, parse_settings("", "none", preset_overrides(*model::find_preset(name))).settings) << name;
  }
}

}  // namespace
}  // namespace stagecoach::app
