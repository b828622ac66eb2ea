// Loopback: what two processes of one machine may expect of the way between them.
//
// Thread:  any.
// Why:     a loopback address alone proves nothing: a tunnel to another machine ends at one too, and has a road's packet size.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stagecoach::world::real {

/// The largest datagram between two processes of one machine: a boundary tensor of a small model is a few of them, and each costs its
/// two ends about what one of a road's size does.
inline constexpr std::size_t kHomeDatagramBytes = 16'384;

/// Names this process's loopback interface until the machine is started again: two processes that have the same one reach each other
/// at loopback addresses without a road between. 0 where the system does not tell (it is not Linux), or where that interface does not take
/// kHomeDatagramBytes.
std::uint64_t loopback_id();

}  // namespace stagecoach::world::real
