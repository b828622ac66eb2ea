// Names and addresses of this machine, for links that people pass on.
//
// Thread:  the caller's; may wait for a name server.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace stagecoach::app {

/// The first address of `host` as a literal; a literal stays as it is.
///
/// errors: not_found  the name is unknown
base::Result<std::string> resolve(const std::string& host);

/// The address of this machine from which packets to `host` leave: where others on that side reach us.
std::string local_address_towards(const std::string& host, std::uint16_t port);

/// An address of this machine that others can use; 127.0.0.1 where it has no other.
std::string public_guess();

}  // namespace stagecoach::app
