// What every brain hears from its links and asks of them.
//
// In/out:  values. A world (real or simulated) makes the events and carries out the effects.
// Thread:  loop.
// Why:     worker and coordinator speak to links in the same words; a brain never sees an endpoint.
#pragma once

#include <string>
#include <vector>

#include "base/ids.h"
#include "link/link.h"
#include "wire/messages.h"

namespace stagecoach::wire {

// ---- events ----
struct LinkIsUp {
  base::PeerId peer;
  link::Address address;  // as seen from here
};
/// The link goes on from another address of the peer.
struct PeerMoved {
  base::PeerId peer;
  link::Address address;
};
struct LinkIsDown {
  base::PeerId peer;
  link::DownReason reason = link::DownReason::closed_by_us;
  std::string text;
};
struct MessageArrived {
  base::PeerId peer;
  Message message;
};

// ---- effects ----
/// Send to a peer whose link is up. Where it is not, nothing is sent: a LinkIsDown has come or will come.
struct Send {
  base::PeerId peer;
  Message message;
};
struct Dial {
  base::PeerId peer;
  std::vector<link::Address> addresses;
};
struct CloseLink {
  base::PeerId peer;
  std::string text;
};
/// The process is done: 0 = the run is over, else the text says what failed and what to do.
struct Exit {
  int code = 0;
  std::string text;
};

}  // namespace stagecoach::wire
