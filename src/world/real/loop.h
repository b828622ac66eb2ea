// Loop: one thread's round of road, threads and time.
//
// In:      an endpoint with its descriptor, a wakeup that other threads ring, the next deadline.
// Out:     calls of the three handlers, again and again, until one of them says stop.
// Thread:  loop: it is the loop thread.
// Why:     worker and coordinator wait in the same way; the brain is called from here and from nowhere else.
#pragma once

#include <functional>

#include "base/time.h"
#include "link/link.h"
#include "world/real/mailbox.h"

namespace stagecoach::world::real {

/// CLOCK_MONOTONIC. The only clock of the real world's brains.
base::Instant monotonic_now();

class Loop {
 public:
  struct Handlers {
    std::function<void(link::Event&)> on_link;       // a link event
    std::function<void()> on_wakeup;                 // mailboxes may hold something, a signal may have come
    std::function<void()> on_time;                   // the deadline has come
    std::function<base::Instant()> next_deadline;
    std::function<bool()> done;
  };
  /// `descriptor` is readable when the endpoint has something to read.
  Loop(link::Endpoint& endpoint, int descriptor, const Wakeup& wakeup, Handlers handlers)
      : endpoint_(endpoint), descriptor_(descriptor), wakeup_(wakeup), handlers_(std::move(handlers)) {}

  /// Runs until done(), then lets the endpoint say its last words for at most `farewell`.
  void run(base::Duration farewell);

 private:
  void turn(base::Instant latest);

  link::Endpoint& endpoint_;
  int descriptor_;
  const Wakeup& wakeup_;
  Handlers handlers_;
};

}  // namespace stagecoach::world::real
