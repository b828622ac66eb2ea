#include "world/real/loop.h"

#include <poll.h>
#include <sys/prctl.h>
#include <time.h>

#include <algorithm>

namespace stagecoach::world::real {

using base::Duration;
using base::Instant;

namespace {

std::int64_t clock_ns(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return t.tv_sec * 1'000'000'000ll + t.tv_nsec;
}

}  // namespace

Instant monotonic_now() { return Instant::from_ns(clock_ns(CLOCK_MONOTONIC)); }

Duration thread_cpu() { return Duration::nanoseconds(clock_ns(CLOCK_THREAD_CPUTIME_ID)); }

void Loop::run() {
  ::prctl(PR_SET_TIMERSLACK, 1);  // pacing needs wake-ups finer than a millisecond (reference/transport.md §8)
  while (!handlers_.done()) turn();
}

void Loop::say_goodbye(const std::string& text, Duration patience) {
  const Instant end = monotonic_now() + patience;
  advance();
  while (!all_acknowledged() && monotonic_now() < end) {
    sleep_until(std::min(endpoint_.next_deadline(), end));
    listen();
    advance();
  }
  for (const auto& peer : linked_) endpoint_.close(peer, text);
  advance();
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
  advance();  // what the handlers sent, with the acknowledgements of what they heard
  if (!handlers_.done()) sleep_until(std::min(endpoint_.next_deadline(), handlers_.next_deadline()));
}

void Loop::advance() {
  const Duration before = thread_cpu();
  endpoint_.advance(monotonic_now());
  link_cpu_ = link_cpu_ + (thread_cpu() - before);
}

void Loop::listen() {
  const Duration before = thread_cpu();
  endpoint_.take_in(monotonic_now());
  link_cpu_ = link_cpu_ + (thread_cpu() - before);
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
