#include "lab/emulator/star.h"

#include <algorithm>
#include <functional>
#include <tuple>

#include "base/check.h"

namespace stagecoach::lab {

using base::Duration;
using base::Instant;

namespace {

/// Segments that leave within so long of each other stay one run: as coarse as an interface that coalesces.
constexpr Duration kRunSpan = Duration::microseconds(500);

}  // namespace

HostIndex Star::add_host(std::uint32_t address) {
  CHECK(under_way_.empty(), "hosts come before packets");
  const std::size_t before = hosts_.size();
  hosts_.push_back({address, {}, {}});
  std::vector<Pair> pairs(hosts_.size() * hosts_.size());
  for (std::size_t from = 0; from < before; ++from) {
    for (std::size_t to = 0; to < before; ++to) pairs[from * hosts_.size() + to] = pairs_[from * before + to];
  }
  pairs_ = std::move(pairs);
  return before;
}

std::optional<HostIndex> Star::host_at(std::uint32_t address) const {
  const auto at = std::find_if(hosts_.begin(), hosts_.end(), [&](const Host& host) { return host.address == address; });
  if (at == hosts_.end()) return std::nullopt;
  return static_cast<HostIndex>(at - hosts_.begin());
}

void Star::send(HostIndex from, std::span<const std::byte> packet, Instant now, Sink& sink) {
  const auto shape = shape_of(packet);
  const auto to = shape ? host_at(shape->destination) : std::nullopt;
  if (!to || *to == from) {
    ++astray_;
    return;
  }
  travel(from, *to, *shape, now);
  InHand in_hand{packet, *shape, nullptr};
  dispatch(from, *to, in_hand, hosts_[*to].down.limits(), now, sink);
}

/// Fills runs_ and twins_ with what of the packet reaches the other host, and when.
void Star::travel(HostIndex from, HostIndex to, const Shape& shape, Instant now) {
  runs_.clear();
  twins_.clear();
  Pair& way = pair(from, to);
  Road& road = way.road;
  const Duration jitter = road.draw_jitter(dice_);
  for (std::size_t i = 0; i < shape.segments; ++i) {
    const std::size_t bytes = shape.wire_bytes(i);
    ++way.counts.packets;
    way.counts.bytes += bytes;
    auto leaves = hosts_[from].up.enter(now, bytes);
    if (leaves) leaves = road.fifo().enter(*leaves, bytes);
    if (!leaves) {
      ++way.counts.dropped;
      continue;
    }
    const Drop drop = road.lose(dice_);
    if (drop != Drop::none) {
      ++(drop == Drop::cut ? way.counts.cut : way.counts.lost);
      continue;
    }
    const Duration delay = road.settings().keep_order || i == 0 ? jitter : road.draw_jitter(dice_);
    const Instant due = road.reach(*leaves, delay, dice_);
    extend(i, due);
    if (road.draw_duplicate(dice_)) twins_.push_back({i, 1, due, due});
  }
}

/// Adds a segment to the last run, where it follows it closely, or begins one.
void Star::extend(std::size_t segment, Instant due) {
  if (!runs_.empty()) {
    Run& last = runs_.back();
    const bool follows = last.first + last.count == segment && due >= last.due && due - last.begins <= kRunSpan;
    if (follows) {
      ++last.count;
      last.due = due;
      return;
    }
  }
  runs_.push_back({segment, 1, due, due});
}

void Star::dispatch(HostIndex from, HostIndex to, InHand& packet, bool at_downlink, Instant now, Sink& sink) {
  for (const auto* runs : {&runs_, &twins_}) {
    for (const Run& run : *runs) {
      if (run.due <= now && !at_downlink) {
        deliver(from, to, packet.bytes, packet.shape, run, sink);
        continue;
      }
      if (!packet.kept) packet.kept = base::make_payload(base::Bytes(packet.bytes.begin(), packet.bytes.end()));
      under_way_.push_back({run.due, sequence_++, from, to, at_downlink, packet.kept, packet.shape, run});
      std::push_heap(under_way_.begin(), under_way_.end(), std::greater<>());
    }
  }
}

void Star::advance(Instant now, Sink& sink) {
  while (next_deadline() <= now) {
    std::pop_heap(under_way_.begin(), under_way_.end(), std::greater<>());
    UnderWay arrived = std::move(under_way_.back());
    under_way_.pop_back();
    if (!arrived.at_downlink) {
      deliver(arrived.from, arrived.to, *arrived.packet, arrived.shape, arrived.run, sink);
      continue;
    }
    pass_downlink(arrived);
    InHand in_hand{*arrived.packet, arrived.shape, arrived.packet};
    dispatch(arrived.from, arrived.to, in_hand, false, now, sink);
  }
}

/// Fills runs_ with what the downlink's queue lets through.
void Star::pass_downlink(UnderWay& arrived) {
  runs_.clear();
  twins_.clear();
  for (std::size_t i = arrived.run.first; i < arrived.run.first + arrived.run.count; ++i) {
    const auto leaves = hosts_[arrived.to].down.enter(arrived.due, arrived.shape.wire_bytes(i));
    if (leaves) extend(i, *leaves);
    else ++pair(arrived.from, arrived.to).counts.dropped;
  }
}

void Star::deliver(HostIndex from, HostIndex to, std::span<const std::byte> packet, const Shape& shape, const Run& run, Sink& sink) {
  pair(from, to).counts.delivered += run.count;
  const Cut piece = cut(packet, shape, run.first, run.count);
  sink.deliver(to, std::span(piece.head).first(piece.head_bytes), packet.subspan(piece.payload_at, piece.payload_bytes));
}

}  // namespace stagecoach::lab
