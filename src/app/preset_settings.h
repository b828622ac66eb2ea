// A preset as settings: what `train --preset 1B` and `model 1B` put before the user's own `--set`.
//
// In:      a preset's name, and a number of stages. Out: overrides "key=value" through the one table of keys.
// Thread:  any; pure.
// Why:     a preset is nothing but values of keys, so that files, `--set` and presets cannot mean different things.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "app/settings.h"
#include "model/presets.h"

namespace stagecoach::app {

/// Every key in which the preset differs from the defaults, cut for `stages` stages (its usual number where none is given).
///
/// errors: stages must be between 1 and the preset's layers (CHECK)
std::vector<std::string> preset_overrides(const model::Preset& preset, std::optional<std::int64_t> stages = std::nullopt);

/// "100M, 1B, …".
std::string preset_names();

}  // namespace stagecoach::app
