#include "link/link.h"

namespace stagecoach::link {

std::string to_string(DownReason reason) {
  switch (reason) {
    case DownReason::closed_by_us: return "closed by us";
    case DownReason::closed_by_peer: return "closed by the peer";
    case DownReason::idle: return "idle";
    case DownReason::unreachable: return "unreachable";
    case DownReason::wrong_identity: return "wrong identity";
    case DownReason::protocol_error: return "protocol error";
    case DownReason::peer_restarted: return "the peer restarted";
  }
  CHECK(false, "every DownReason has a text");
}

}  // namespace stagecoach::link
