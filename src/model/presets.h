// The documented sizes by name: dimensions, cut, split, numbers.
//
// In:      a name. Out: a TrainConfig with cuts at the edges of a split.
// Thread:  any; constants.
// Why:     a size is a handful of dimensions; every count is made from them by parameters() and nothing is copied from a table
//          that somebody else added up.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "model/config.h"

namespace stagecoach::model {

/// A Llama-3.2-type model as IOTA and Orion list it (reference, orion-iota-resbm §1.6): vocabulary 128,256, 8 key and value
/// heads, RoPE base 500,000, untied head, microbatches of 10 × 800 tokens.
struct Preset {
  std::string_view name;
  std::int64_t dim = 0;
  std::int64_t cut_width = 0;
  std::int64_t layers = 0;
  std::int64_t heads = 0;
  std::int64_t ffn = 0;
  double rope_scaling = 1;
  std::int64_t stages = 0;        // of its usual split, at whose edges the cuts lie
  std::int64_t replicas = 2;      // of each stage
  bool pure_bfloat16 = false;     // weights, sums and moments all in bfloat16: what fits the stage into 80 GB
  std::int64_t published = 0;     // the total that its authors list; 0 = only its name
  std::string_view remark = {};   // why the published total is not that of the dimensions; empty where it is
};

/// Smallest first.
std::span<const Preset> presets();

/// Null where there is none of that name. Case does not matter, and a blank is as good as a dash.
const Preset* find_preset(std::string_view name);

/// The preset cut for `stages` stages: one cut at each edge of their balanced split. Another number of stages is another model.
///
/// errors: stages must be between 1 and the preset's layers (CHECK)
TrainConfig train_config(const Preset& preset, std::int64_t stages);

/// Layers of each stage: "[4, 6×12, 5, 5, 4]".
std::string layers_text(const Split& split);

}  // namespace stagecoach::model
