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

void Loop::run() {
  ::prctl(PR_SET_TIMERSLACK, 1);  // pacing needs wake-ups finer than a millisecond (reference/transport.md §8)
  while (!handlers_.done()) turn();
}

void Loop::say_goodbye(const std::string& text, Duration patience) {
  const Instant end = monotonic_now() + patience;
  endpoint_.advance(monotonic_now());
  while (!all_acknowledged() && monotonic_now() < end) {
    sleep_until(std::min(endpoint_.next_deadline(), end));
    listen();
    endpoint_.advance(monotonic_now());
  }
  for (const auto& peer : linked_) endpoint_.close(peer, text);
  endpoint_.advance(monotonic_now());
}

bool Loop::all_acknowledged() const {
  return std::all_of(linked_.begin(), linked_.end(), [this](const base::PeerId& peer) {
    const auto stats = endpoint_.stats(peer);
    return !stats || stats->bytes_queued == 0;
  });
}

void Loop::turn() {
  listen();
  if (monotonic_now() >= handlers_.next_deadline()) handlers_.on_time();
  endpoint_.advance(monotonic_now());  // what the handlers sent
  if (!handlers_.done()) sleep_until(std::min(endpoint_.next_deadline(), handlers_.next_deadline()));
}

void Loop::listen() {
  endpoint_.advance(monotonic_now());
  for (auto& event : endpoint_.take_events()) {
    if (const auto* up = std::get_if<link::LinkUp>(&event)) linked_.insert(up->peer);
    if (const auto* down = std::get_if<link::LinkDown>(&event)) linked_.erase(down->peer);
    handlers_.on_link(event);
  }
  handlers_.on_wakeup();
}

void Loop::sleep_until(Instant wake) {
  const Instant now = monotonic_now();
  const std::int64_t wait_ns = wake == Instant::never() ? 1'000'000'000 : std::clamp<std::int64_t>((wake - now).ns(), 0, 1'000'000'000);
  pollfd watched[2] = {{descriptor_, POLLIN, 0}, {wakeup_.descriptor(), POLLIN, 0}};
  const timespec timeout{wait_ns / 1'000'000'000, wait_ns % 1'000'000'000};
  if (::ppoll(watched, 2, &timeout, nullptr) > 0 && (watched[1].revents & POLLIN)) wakeup_.clear();
}

}  // namespace stagecoach::world::real
