// Claims: each preset's tensors, added up one by one, are its published total or differ from it as the reference says; cuts lie at
// the edges of the usual split; Orion's layers, bytes and ratio are those of the run.
#include "model/presets.h"

#include <gtest/gtest.h>

#include <map>

#include "model/parameters.h"

namespace stagecoach::model {
namespace {

std::int64_t count_without_cuts(const Preset& preset) {
  ModelConfig model = train_config(preset, 1).model;
  EXPECT_TRUE(model.cut_after.empty());
  return total_elements(parameters(model));
}

TEST(Presets, count_what_the_reference_recomputed) {
  // reference, orion-iota-resbm §1.6: totals from the dimensions, where they differ from the listed ones.
  const std::map<std::string_view, std::int64_t> recomputed = {
      {"1B", 1'498'482'688}, {"7B", 6'721'589'248}, {"12B", 12'323'804'160}, {"simulated-100B", 23'975'543'808}};
  for (const Preset& preset : presets()) {
    const auto differs = recomputed.find(preset.name);
    if (differs != recomputed.end()) {
      EXPECT_EQ(count_without_cuts(preset), differs->second) << preset.name;
      EXPECT_NE(preset.published, differs->second) << preset.name;
      EXPECT_FALSE(preset.remark.empty()) << preset.name;
    } else if (preset.published != 0) {
      EXPECT_EQ(count_without_cuts(preset), preset.published) << preset.name;
      EXPECT_TRUE(preset.remark.empty()) << preset.name;
    }
  }
  EXPECT_EQ(count_without_cuts(*find_preset("100B")), 99'615'863'808);
}

TEST(Presets, listed_totals_of_more_layers_are_that) {
  for (const auto& [name, layers] : {std::pair<const char*, std::int64_t>{"7B", 28}, {"simulated-100B", 22}}) {
    Preset preset = *find_preset(name);
    preset.layers = layers;
    EXPECT_EQ(count_without_cuts(preset), preset.published) << name;
  }
}

TEST(Presets, make_sound_configs_cut_at_their_edges) {
  for (const Preset& preset : presets()) {
    const TrainConfig config = train_config(preset, preset.stages);
    EXPECT_TRUE(problems(config).empty()) << preset.name << ": " << problems(config).front();
    std::string why;
    const Split split = balanced_split(config.model, preset.stages, why);
    ASSERT_EQ(static_cast<std::int64_t>(split.size()), preset.stages) << preset.name << ": " << why;
    for (std::size_t i = 0; i + 1 < split.size(); ++i) EXPECT_EQ(config.model.cut_after[i], split[i].last - 1) << preset.name;
  }
}

TEST(Presets, orion_is_orion) {
  const TrainConfig config = train_config(*find_preset("100B"), 16);
  std::string why;
  const Split split = balanced_split(config.model, 16, why);
  EXPECT_EQ(layers_text(split), "[4, 6×12, 5, 5, 4]");
  EXPECT_EQ(config.batch.tokens_per_microbatch(), 8'000);
  // 8,000 tokens at 2 bytes: 140.6 MiB of width 9,216 become 2.197 MiB of width 144.
  EXPECT_EQ(config.boundary_bytes(split[0].last - 1), 8'000 * 144 * 2);
  EXPECT_NEAR(static_cast<double>(config.boundary_bytes(split[0].last - 1)) / (1 << 20), 2.197, 0.0005);
  EXPECT_NEAR(static_cast<double>(config.boundary_bytes(0)) / (1 << 20), 140.6, 0.05);
  // A cut costs one [K, D] and one [D, K].
  EXPECT_EQ(total_elements(parameters(config.model)), 99'615'863'808 + 15 * 2 * 9'216 * 144);
  EXPECT_EQ(total_elements(parameters(config.model, split[1])), 6 * 1'080'576'000ll + 2 * 9'216 * 144);
}

TEST(Presets, are_found_as_people_write_them) {
  EXPECT_EQ(find_preset("100b"), find_preset("100B"));
  EXPECT_EQ(find_preset("simulated 100B")->layers, 20);
  EXPECT_EQ(find_preset("2B"), nullptr);
  EXPECT_EQ(find_preset(""), nullptr);
}

TEST(Presets, layers_are_told_in_runs) {
  EXPECT_EQ(layers_text({{0, 4}}), "[4]");
  EXPECT_EQ(layers_text({{0, 1}, {1, 2}, {2, 3}, {3, 5}}), "[1×3, 2]");
}

}  // namespace
}  // namespace stagecoach::model
