// `stagecoach join LINK`: one worker.
//
// In:      the link, where to keep key, log and files. Out: an exit status when the run is over.
// Thread:  the caller's, which becomes the loop thread.
#pragma once

#include <cstdint>
#include <string>

namespace stagecoach::app {

struct JoinOptions {
  std::string link;
  std::string key;                          // key file; empty = .stagecoach/worker.key
  std::string log;                          // empty = stderr
  std::string cache = ".stagecoach/cache";
  std::string device = "auto";              // as compute.device
  std::string trace;                        // where to write what it did; empty = nowhere
  std::string recompute = "auto";
  std::int64_t kept_bytes = 0;              // of kept forwards; 0 = half of the free memory
  std::string listen = "0.0.0.0:0";
  std::string advertise;                    // "host:port" that other workers dial; empty = found out
  std::int64_t parent = 0;                  // a launcher's process id: its worker does not outlive it; 0 = none
};

int run_join(const JoinOptions& options);

}  // namespace stagecoach::app
