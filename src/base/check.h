// CHECK: states what must hold, in every build.
//
// In:      a condition that only a bug of ours can make false, and a sentence.
// Out:     nothing, or a line on stderr and abort().
// Thread:  any.
// Why:     a bug must stop the process before it spreads; what a peer, a file or a user can influence is a Result instead.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace stagecoach::base {

[[noreturn]] inline void check_failed(const char* condition, const char* must_hold, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: this is a bug in stagecoach: %s (%s is false)\n", file, line, must_hold, condition);
  std::abort();
}

}  // namespace stagecoach::base

#define CHECK(condition, must_hold)                                                             \
  do {                                                                                          \
    if (!(condition)) ::stagecoach::base::check_failed(#condition, must_hold, __FILE__, __LINE__); \
  } while (false)
