// `stagecoach account RUN TRACE…`: where the devices' time of a real run went, in the words of `simulate`.
//
// In:      a run's folder, and its workers' traces (docs/formats/trace.md). Out: the table, or JSON; exit codes below.
// Thread:  the caller's; reads files.
// Why:     the numbers that a planner promises are worth what a run's own account says of them.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "base/result.h"
#include "observe/accounting.h"
#include "observe/histogram.h"

namespace CLI {
class App;
}

namespace stagecoach::app {

struct AccountOptions {
  std::string run;
  std::vector<std::string> traces;
  std::string struck;  // a file of events of trouble; empty = none
  bool json = false;
};

CLI::App* add_account_command(CLI::App& app, AccountOptions& options);
/// Exit codes: 0 told · 1 something cannot be read, or nothing was committed · 8 losses or weights of a paced run are not
/// those of one machine.
int run_account(const AccountOptions& options, std::ostream& out, std::ostream& err);

/// One happening of a run, whoever wrote it down.
struct Told {
  base::Instant at;
  observe::WorkerNumber worker = 0;
  observe::TraceEvent event;
};

/// A worker's trace: the key in its first line, and the rest, but for a last line that its end tore.
///
/// errors: not_found, io_error · corrupt  which line
struct WorkerTrace {
  std::string peer;  // its key in hexadecimal digits
  std::vector<Told> told;
};
base::Result<WorkerTrace> read_trace(const std::string& path);

/// From a tensor's end at its maker to its arrival, by kind.
struct Journeys {
  observe::Histogram forward, backward;
};
/// `told` in time order, of all workers.
Journeys journeys_of(const std::vector<Told>& told);

}  // namespace stagecoach::app
