// See presets.h.
#include "model/presets.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/check.h"

namespace stagecoach::model {
namespace {

constexpr double kScaled = 32;
constexpr double kUnscaled = 1;

constexpr std::array kPresets = {
    Preset{"100M", 512, 128, 6, 32, 512, kScaled, 2, 2, false, 0, "the name is nominal, and nine tenths of it are embedding and head"},
    Preset{"1B", 2'048, 32, 16, 32, 8'192, kScaled, 3, 2, false, 1'500'055'552,
           "the listed total is 1,572,864 more than the dimensions give"},
    Preset{"3B", 3'072, 48, 28, 24, 8'192, kScaled, 4, 2, false, 3'606'752'256},
    Preset{"5B", 4'096, 16, 20, 32, 14'336, kScaled, 4, 2, false, 5'412'917'248},
    Preset{"7B", 4'096, 16, 26, 32, 14'336, kScaled, 4, 2, false, 7'157'813'248, "the listed total is that of 28 layers"},
    Preset{"8B", 4'096, 64, 32, 32, 14'336, kScaled, 4, 2, false, 8'030'261'248},
    Preset{"12B", 5'120, 16, 40, 40, 13'824, kScaled, 3, 2, false, 12'428'661'760,
           "the listed total is 104,857,600 (4 · 5,120²) more than the dimensions give"},
    Preset{"15B", 5'120, 80, 50, 40, 13'824, kScaled, 5, 2, false, 15'076'418'560},
    Preset{"21B", 5'120, 80, 64, 40, 16'384, kScaled, 5, 2, false, 21'446'661'120},
    Preset{"simulated-100B", 9'216, 144, 20, 72, 32'256, kUnscaled, 4, 2, true, 26'136'695'808,
           "the listed total is that of 22 layers"},
    Preset{"45B", 7'168, 112, 66, 56, 25'088, kUnscaled, 17, 2, true, 45'197'200'384},
    Preset{"100B", 9'216, 144, 90, 72, 32'256, kUnscaled, 16, 3, true, 99'615'863'808},
};

std::string folded(std::string_view name) {
  std::string out(name);
  for (char& c : out) c = c == ' ' || c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

}  // namespace

std::span<const Preset> presets() { return kPresets; }

const Preset* find_preset(std::string_view name) {
  const auto found = std::find_if(kPresets.begin(), kPresets.end(),
                                  [wanted = folded(name)](const Preset& preset) { return folded(preset.name) == wanted; });
  return found == kPresets.end() ? nullptr : &*found;
}

TrainConfig train_config(const Preset& preset, std::int64_t stages) {
  TrainConfig config;
  ModelConfig& model = config.model;
  model.vocab = 128'256;
  model.dim = preset.dim;
  model.layers = preset.layers;
  model.heads = preset.heads;
  model.kv_heads = 8;
  model.ffn = preset.ffn;
  model.rope_scaling = preset.rope_scaling;
  model.cut_width = preset.cut_width;
  // Without cuts edges may lie anywhere: that split says where they belong.
  model.cut_kind = CutKind::none;
  model.cut_after.clear();
  std::string why;
  const Split split = balanced_split(model, stages, why);
  CHECK(!split.empty(), "the caller bounds the stages of a preset by its layers");
  model.cut_kind = CutKind::resbm;
  for (std::size_t i = 0; i + 1 < split.size(); ++i) model.cut_after.push_back(split[i].last - 1);
  config.batch.sequences = 10;
  config.batch.tokens = 800;
  config.batch.microbatches = 64;
  config.schedule.peak_lr = 2e-4;
  config.numbers.compute = FloatKind::bfloat16;
  if (preset.pure_bfloat16) {
    config.numbers.state = FloatKind::bfloat16;
    config.numbers.sums = SumKind::bfloat16;
  }
  return config;
}

std::string layers_text(const Split& split) {
  std::string out;
  for (std::size_t i = 0; i < split.size();) {
    const std::int64_t layers = split[i].last - split[i].first;
    std::size_t same = i;
    while (same < split.size() && split[same].last - split[same].first == layers) ++same;
    // Two of a kind read better written out.
    const std::size_t entries = same - i > 2 ? 1 : same - i;
    for (std::size_t n = 0; n < entries; ++n) out += (out.empty() ? "[" : ", ") + std::to_string(layers);
    if (same - i > 2) out += "×" + std::to_string(same - i);
    i = same;
  }
  return out + "]";
}

}  // namespace stagecoach::model
