// What every key means, as text: for `stagecoach train --explain` and as a commented TOML file.
//
// In:      the table of keys, settings. Out: text.
// Thread:  any.
// Why:     the written-out file in a run's folder is the record of what was asked for; it must parse back to the same
// settings.
#pragma once

#include <string>

#include "app/settings.h"

namespace stagecoach::app {

/// Every key with its default, unit, range and meaning, by group, wrapped to `columns`. A star marks keys that change
/// the losses.
std::string explain(std::size_t columns = 100);

/// All settings as a TOML file, each key with its meaning as a comment. parse_settings() of it gives the same settings.
std::string to_toml(const RunSettings& settings);

}  // namespace stagecoach::app
