// What compute.dtype = "auto" means on this machine.
//
// In:      settings, the machine's devices. Out: settings with a dtype that is written down.
// Thread:  any.
// Why:     the dtype changes the losses, so it is settled once, when the run is made; workers are told, they do not choose.
#pragma once

#include "app/settings.h"

namespace stagecoach::app {

/// Replaces "auto": bfloat16 where the device named by the settings multiplies it faster than float32 (an NVIDIA GPU, or a
/// processor with AMX and a model wide enough for it), else float32. A coordinator without workers of its own asks its own machine.
void settle_numbers(RunSettings& settings);

}  // namespace stagecoach::app
