// ViewThread: a TerminalView that nobody waits for.
//
// In:      statuses and lines. Out: the same on a descriptor, as fast as whoever reads it allows.
// Thread:  the caller's; the writing is done on a thread of its own.
// Why:     a terminal that is held (Ctrl-S, a pager) blocks its writer. The loop must not be that writer: ten seconds without it
//          and every link has idled out.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <thread>

#include "app/view.h"
#include "base/time.h"

namespace stagecoach::app {

class ViewThread {
 public:
  /// Lines that wait to be written; beyond, the oldest are dropped and counted where they would have stood.
  static constexpr std::size_t kLinesMax = 1000;

  explicit ViewThread(TerminalView::Options options);
  ~ViewThread();
  ViewThread(const ViewThread&) = delete;
  ViewThread& operator=(const ViewThread&) = delete;

  /// Of statuses for a live view only the newest waits. Plain lines of all statuses wait their turn.
  void show(const observe::RunStatus& status);
  void say(std::string line);
  /// Writes what waits and shows the cursor again. What is not written after `patience` is left to the thread, which nobody waits
  /// for any more: it ends with its last write or with the process.
  void close(base::Duration patience);

 private:
  struct Shared;
  static void run(Shared& shared);

  std::shared_ptr<Shared> shared_;  // with the thread, which may outlive us
  PlainView plain_;
  std::thread thread_;
};

}  // namespace stagecoach::app
