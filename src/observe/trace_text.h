// A worker's trace as text: one event a line, for the accounts of a run that is over (docs/formats/trace.md).
//
// In:      trace events with the times at which they happened. Out: lines; and events again from lines.
// Thread:  any; pure.
// Why:     real workers cannot feed one account as they go; what they write is merged by time afterwards.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "observe/accounting.h"

namespace stagecoach::observe {

struct TraceLine {
  base::Instant at;  // nanoseconds since 1970
  TraceEvent event;
};

/// One line without its newline. Of Opened, Worked and Arrived only: the others are the run's (CHECK).
std::string to_line(const TraceLine& line);

/// errors: corrupt  not such a line
base::Result<TraceLine> parse_trace_line(std::string_view line);

}  // namespace stagecoach::observe
