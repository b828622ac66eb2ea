// Contention: which of two links between the same two peers stays.
//
// In:      what each side said in its greeting, and what stands here now.
// Out:     a verdict, the same at both ends without asking.
// Thread:  any; pure.
// Why:     peers dial each other at the same moment, and processes die and come back under their old key; every road needs one
//          answer, and the two ends must not each keep the link that the other one closed.
//
// The side that was dialled judges; a dialler waits for its greeting. A greeting names the start of the process (random) and a tick of
// that process's count of dials and acceptances. So the judge knows whether the dial it sees is older or newer than the link it has:
// newer means that the peer has lost that link, older means that both dialled at once.
#pragma once

#include <cstdint>
#include <optional>

#include "base/ids.h"

namespace stagecoach::link {

struct Greeting {
  std::uint64_t start = 0;  // random, one for each start of a process
  std::uint64_t tick = 0;   // one more for each dial and each acceptance
  auto operator<=>(const Greeting&) const = default;
};

/// What stands at the judge when a peer's dial has proven its key.
struct Standing {
  base::PeerId self;
  base::PeerId peer;
  bool dialling = false;             // a dial of ours to the peer is under way
  std::optional<Greeting> up;        // what the peer said on the link that is up
};

enum class Verdict {
  accept,   // nothing speaks against it; a dial of ours to the same peer is given up
  replace,  // the peer has lost the link that is up, or restarted: this one takes its place
  refuse,   // an older dial: the link that is up stays
  wait,     // our own dial goes first; judge again when it has ended
};

/// Of two dials at once that of the smaller key goes first.
inline Verdict judge(const Standing& here, const Greeting& dial) {
  if (here.up) {
    const bool restarted = here.up->start != dial.start;
    return restarted || dial.tick > here.up->tick ? Verdict::replace : Verdict::refuse;
  }
  if (here.dialling && here.self < here.peer) return Verdict::wait;
  return Verdict::accept;
}

}  // namespace stagecoach::link
