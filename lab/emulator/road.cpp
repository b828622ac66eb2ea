#include "lab/emulator/road.h"

#include <algorithm>

namespace stagecoach::lab {

using base::Duration;
using base::Instant;

namespace {

constexpr std::uint64_t kBitsPerByteNs = 8'000'000'000;  // bits a byte × nanoseconds a second
constexpr std::uint64_t kQueueMsDefault = 100;
constexpr std::uint64_t kQueueBytesMin = 3'000;          // two packets: with fewer nothing but single ones would pass

}  // namespace

std::uint64_t Fifo::queue_bytes() const {
  if (settings_.queue_bytes != 0) return settings_.queue_bytes;
  return std::max(settings_.bits_per_s / 8 * kQueueMsDefault / 1000, kQueueBytesMin);
}

std::optional<Instant> Fifo::enter(Instant at, std::size_t bytes) {
  if (!limits()) return at;
  if (free_at_ <= at) {
    free_at_ = at;
    remainder_ = 0;
  } else {
    const auto waiting_ns = static_cast<double>((free_at_ - at).ns());
    const double waiting_bytes = waiting_ns * static_cast<double>(settings_.bits_per_s) / static_cast<double>(kBitsPerByteNs);
    if (waiting_bytes + static_cast<double>(bytes) > static_cast<double>(queue_bytes())) return std::nullopt;
  }
  const std::uint64_t work = bytes * kBitsPerByteNs + remainder_;
  remainder_ = work % settings_.bits_per_s;
  free_at_ = free_at_ + Duration::nanoseconds(static_cast<std::int64_t>(work / settings_.bits_per_s));
  return free_at_;
}

void Road::set(const Settings& settings) {
  settings_ = settings;
  fifo_.set(settings.rate);
  if (settings.burst_loss == 0) bad_ = false;
}

Drop Road::lose(base::Prng& dice) {
  if (settings_.cut) return Drop::cut;
  if (settings_.burst_loss > 0) {
    const double leave = 1 / settings_.burst_length;
    const double enter = settings_.burst_loss * leave / (1 - settings_.burst_loss);
    bad_ = bad_ ? dice.unit() >= leave : dice.unit() < enter;
    if (bad_) return Drop::burst;
  }
  return settings_.loss > 0 && dice.unit() < settings_.loss ? Drop::loss : Drop::none;
}

Duration Road::draw_jitter(base::Prng& dice) const {
  if (settings_.jitter == Duration()) return Duration();
  const double bell = (dice.unit() + dice.unit() + dice.unit() + dice.unit()) / 2;  // 0 to 2, mean 1
  return Duration::nanoseconds(static_cast<std::int64_t>(bell * static_cast<double>(settings_.jitter.ns())));
}

Instant Road::reach(Instant at, Duration jitter, base::Prng& dice) {
  Instant due = at + settings_.delay + jitter;
  if (settings_.keep_order) {
    due = std::max(due, last_);
    last_ = due;
  }
  if (settings_.reorder > 0 && dice.unit() < settings_.reorder) due = due + settings_.reorder_by;
  return due;
}

}  // namespace stagecoach::lab
