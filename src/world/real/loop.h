// Loop: one thread's round of road, threads and time.
//
// In:      an endpoint with its descriptor, a wakeup that other threads ring, the next deadline.
// Out:     calls of the three handlers, again and again, until one of them says stop.
// Thread:  loop: it is the loop thread.
// Why:     worker and coordinator wait in the same way; the brain is called from here and from nowhere else.
#pragma once

#include <functional>
#include <set>
#include <string>

#include "base/time.h"
#include "link/link.h"
#include "world/real/mailbox.h"

namespace stagecoach::world::real {

/// CLOCK_MONOTONIC. The only clock of the real world's brains.
base::Instant monotonic_now();

/// CPU time that the calling thread has taken since its start.
base::Duration thread_cpu();

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

  /// Runs until done().
  void run();

  /// Waits until the peers have all that was sent to them, at most `patience`, then closes their links with `text`, so that they
  /// need not wait for silence to know. Time-driven work has ended: on_time is not called any more.
  void say_goodbye(const std::string& text, base::Duration patience);

  /// Of the loop thread's CPU time, what the road took: packets, encryption, streams.
  base::Duration link_cpu() const { return link_cpu_; }

 private:
  void turn();
  void advance();
  void listen();
  void sleep_until(base::Instant wake);
  bool all_acknowledged() const;

  link::Endpoint& endpoint_;
  int descriptor_;
  const Wakeup& wakeup_;
  Handlers handlers_;
  std::set<base::PeerId> linked_;
  base::Duration link_cpu_;
};

}  // namespace stagecoach::world::real
