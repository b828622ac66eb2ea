// LocalWorkers: `stagecoach join` processes of this machine, started and watched by `stagecoach train`.
//
// In:      how many, the join link, the run's folder. Out: processes; who of them has ended.
// Thread:  the caller's.
// Why:     `train` is nothing but `coordinate` and `join`, started locally (the issue of the spine); a local death is known at once.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace stagecoach::app {

class LocalWorkers {
 public:
  struct Options {
    std::string program;             // this program
    std::filesystem::path run_dir;   // each worker gets run_dir/workers/NN with its key and log
    std::string link;
    std::string device;
    std::string recompute;
    std::int64_t kept_bytes = 0;     // of each worker; 0 = half of this machine's free memory, shared out
    std::string listen;              // where workers hear each other
    std::size_t count = 0;
  };
  /// errors: io_error  a folder, a key or a process could not be made
  static base::Result<LocalWorkers> start(const Options& options);

  LocalWorkers(LocalWorkers&&) = default;
  LocalWorkers& operator=(LocalWorkers&&) = delete;
  /// Waits a moment for those that are ending, then kills the rest.
  ~LocalWorkers();

  /// Workers that have ended since the last call, with how.
  std::vector<std::pair<base::PeerId, std::string>> ended();

 private:
  struct Process {
    base::PeerId peer;
    pid_t pid = 0;
    std::filesystem::path output;
  };
  LocalWorkers() = default;
  std::vector<Process> running_;
};

}  // namespace stagecoach::app
