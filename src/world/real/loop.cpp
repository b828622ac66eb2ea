#include "world/real/loop.h"

#include <poll.h>
#include <sys/prctl.h>
#include <time.h>

#include <algorithm>

namespace stagecoach::world::real {

using base::Duration;
using base::Instant;

Instant monotonic_now() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return Instant::from_ns(t.tv_sec * 1'000'000'000ll + t.tv_nsec);
}

void Loop::run(Duration farewell) {
  ::prctl(PR_SET_TIMERSLACK, 1);  // pacing needs wake-ups finer than a millisecond (reference/transport.md §8)
  while (!handlers_.done()) turn(Instant::never());
  // What was sent last (an eviction, a finish) must leave before the socket closes.
  const Instant end = monotonic_now() + farewell;
  while (monotonic_now() < end) turn(end);
}

void Loop::turn(Instant latest) {
  Instant now = monotonic_now();
  endpoint_.advance(now);
  for (auto& event : endpoint_.take_events()) handlers_.on_link(event);
  handlers_.on_wakeup();
  if (now >= handlers_.next_deadline()) handlers_.on_time();
  endpoint_.advance(monotonic_now());  // what the handlers sent
  if (handlers_.done() && latest == Instant::never()) return;

  const Instant wake = std::min({endpoint_.next_deadline(), handlers_.next_deadline(), latest});
  now = monotonic_now();
  const std::int64_t wait_ns = wake == Instant::never() ? 1'000'000'000 : std::clamp<std::int64_t>((wake - now).ns(), 0, 1'000'000'000);
  pollfd watched[2] = {{descriptor_, POLLIN, 0}, {wakeup_.descriptor(), POLLIN, 0}};
  const timespec timeout{wait_ns / 1'000'000'000, wait_ns % 1'000'000'000};
  if (::ppoll(watched, 2, &timeout, nullptr) > 0 && (watched[1].revents & POLLIN)) wakeup_.clear();
}

}  // namespace stagecoach::world::real
