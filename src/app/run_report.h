// What a run says of itself at its beginning and at its end.
//
// In:      the run's folder and its last status. Out: text, and the numbers of the summary.
// Thread:  the caller's; reads the shards once for their entropies.
// Why:     a split run and the unsplit reference tell the same things in the same words.
#pragma once

#include <string>

#include "app/run_folder.h"
#include "app/summary.h"
#include "observe/run_status.h"

namespace stagecoach::app {

/// "4 layers of width 128, 0.9 M parameters, bfloat16".
std::string model_line(const RunFolder& folder);

/// `seconds` and `tokens`: of this start alone.
RunSummary summarize(const RunFolder& folder, const observe::RunStatus& status, double seconds, std::uint64_t tokens);

}  // namespace stagecoach::app
