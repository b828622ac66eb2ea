// How a long reading of data speaks while it goes on: a bar on a terminal, a line now and then elsewhere.
//
// In:      progress, and the time as an argument. Out: text for a terminal or a log.
// Thread:  one.
// Why:     the arithmetic of rates and times left knows no clock and no terminal, so that it can be tested.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/time.h"
#include "data/shard_build.h"

namespace stagecoach::app {

class DataProgress {
 public:
  struct Options {
    bool terminal = false;  // rewrite one line; else print whole lines, seldom
    int columns = 80;
  };
  DataProgress(const Options& options, base::Instant begun) : options_(options), begun_(begun) {}

  /// What to print for this progress; empty = nothing yet.
  std::string show(const data::BuildProgress& progress, base::Instant now);

  /// What to print before a line of another kind, and at the end: a bar must go away.
  std::string clear();

 private:
  Options options_;
  base::Instant begun_;
  std::optional<base::Instant> shown_;
  std::optional<data::BuildProgress> first_;  // a build that goes on has read much already, but not in this time
  bool bar_ = false;
};

/// "1,234,567"
std::string exact_text(std::int64_t count);

}  // namespace stagecoach::app
