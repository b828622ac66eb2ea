// Quantities as people write them: "80GB", "856Mbps", "60ms", "312T".
//
// In:      a word of the command line. Out: a number in the base unit, or what was expected.
// Thread:  any; pure.
// Why:     a planner is asked about devices and links by the numbers on their boxes, whose units differ by factors of 8 and 1.07.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace stagecoach::app {

/// "80GB" (10⁹), "24GiB" (2³⁰), "500MB", "1.5TB", or a plain number of bytes.
///
/// errors: invalid_argument  of all four: what was expected and what came; a quantity is above zero
base::Result<std::int64_t> parse_bytes(std::string_view text);

/// "856Mbps", "1.3Gbps" (bits) or "107MB/s" (bytes), in bytes per second.
base::Result<double> parse_rate(std::string_view text);

/// "60ms", "0.2s", "500us", in seconds; zero is fine.
base::Result<double> parse_seconds(std::string_view text);

/// "312T", "2.8T", "989T", "1P", or a plain number, in FLOP/s.
base::Result<double> parse_flops(std::string_view text);

}  // namespace stagecoach::app
