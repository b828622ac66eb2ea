// Opens the compute library, and with it torch, when a device is first used.
//
// In:      the path of libstagecoach_compute. Out: its Library.
// Thread:  any; the library stays open until the process ends.
// Why:     loading torch takes 0.2 s and 58 MB here, and far more in a CUDA build: whoever needs no device does not pay for it.
#pragma once

#include <string>

#include "base/result.h"
#include "compute/stage.h"

namespace stagecoach::compute {

/// Loads the shared library at `path` and returns its Library, which lives as long as the process.
///
/// errors: not_found  there is no such file · io_error  the loader refused it (its sentence says what is missing)
///         mismatch   it is a library, but not ours
base::Result<Library*> open_library(const std::string& path);

}  // namespace stagecoach::compute
