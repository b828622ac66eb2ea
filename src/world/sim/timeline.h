// Timeline: the virtual clock and what is planned on it.
//
// In:      things to do at a time. Out: they are done, in time order; equal times keep the order in which they were planned.
// Thread:  one.
// Why:     every part of the simulated world plans on the same clock, and nothing else moves it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>
#include <utility>
#include <vector>

#include "base/time.h"

namespace stagecoach::world::sim {

/// A process of the simulated world, or its host: each has one of its own.
using Node = std::size_t;

class Timeline {
 public:
  base::Instant now() const { return now_; }

  void at(base::Instant when, std::function<void()> what) {
    entries_.push_back(Entry{std::max(when, now_), next_order_++, std::move(what)});
    std::push_heap(entries_.begin(), entries_.end());
  }

  /// Does the next thing; false when nothing is planned.
  bool run_one() {
    if (entries_.empty()) return false;
    std::pop_heap(entries_.begin(), entries_.end());
    const Entry entry = std::move(entries_.back());
    entries_.pop_back();
    now_ = entry.when;
    entry.what();
    return true;
  }

  /// When the next thing is planned; never() where nothing is.
  base::Instant next() const { return entries_.empty() ? base::Instant::never() : entries_.front().when; }

 private:
  struct Entry {
    base::Instant when;
    std::uint64_t order = 0;
    std::function<void()> what;
    bool operator<(const Entry& other) const { return std::tie(other.when, other.order) < std::tie(when, order); }
  };
  std::vector<Entry> entries_;  // a heap, the soonest first
  std::uint64_t next_order_ = 0;
  base::Instant now_;
};

}  // namespace stagecoach::world::sim
