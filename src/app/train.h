// `stagecoach train` and `stagecoach coordinate`: a run from settings to summary.
//
// In:      a request. Out: a run; an exit status.
// Thread:  the caller's, which becomes the loop thread.
// Why:     `train` is `coordinate` plus local `join` processes and nothing else.
#pragma once

#include <string>

#include "app/run_folder.h"

namespace stagecoach::app {

struct TrainOptions {
  RunRequest request;
  bool start_workers = true;  // false: `coordinate`, whose workers join from elsewhere
  bool unsplit = false;       // one process, one device, no network: the reference that every split run equals
  bool plain = false;         // lines instead of a live view
  std::string program;        // this program's path
};

/// Runs until the end, a stop or an error. 0 = finished, or stopped as asked.
int run_train(const TrainOptions& options);

}  // namespace stagecoach::app
