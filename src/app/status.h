// `stagecoach status RUN|LINK`: the live state of a run, asked of its coordinator.
//
// In:      a run's folder or a join link. Out: text or JSON; an exit status.
// Thread:  the caller's; waits up to ten seconds.
#pragma once

#include <string>

namespace stagecoach::app {

struct StatusOptions {
  std::string target;  // a run's folder, or a link
  bool json = false;
};

int run_status(const StatusOptions& options);

}  // namespace stagecoach::app
