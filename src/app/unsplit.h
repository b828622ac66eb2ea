// The unsplit reference: the whole model in one process through the same stage code.
//
// In:      a run's folder. Out: the same events and checkpoint that a split run writes; an exit status.
// Thread:  the caller's, which computes.
// Why:     every claim of equality needs something to be equal to: no pipeline, no network, no replica, the same mathematics.
#pragma once

#include "app/run_folder.h"

namespace stagecoach::app {

/// Trains all steps from the seeded start. 0 = finished. A reference is short: it does not resume.
int run_unsplit(const RunFolder& folder, bool plain);

}  // namespace stagecoach::app
