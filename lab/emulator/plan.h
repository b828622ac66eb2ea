// Plan: the emulator's language, one command a line; the same at the start and live (lab/README.md lists it).
//
// In:      text. Out: values, or what is wrong with the text.
// Thread:  any; pure.
// Why:     a plan comes from people and from scripts; it is checked as a whole before a device is made.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "lab/emulator/road.h"

namespace stagecoach::lab {

/// `host NAME netns=PATH address=A.B.C.D [up=RATE] [down=RATE] [up_queue=BYTES] [down_queue=BYTES]`; live without netns and address.
struct HostCommand {
  std::string name;
  std::string netns;
  std::uint32_t address = 0;
  std::optional<std::uint64_t> up_bits_per_s;
  std::optional<std::uint64_t> down_bits_per_s;
  std::optional<std::uint64_t> up_queue_bytes;
  std::optional<std::uint64_t> down_queue_bytes;
};

/// `pair FROM TO key=value …` or `both A B key=value …`; `*` is any host. Keys that are not named keep their value.
struct PairCommand {
  std::string from;
  std::string to;
  bool both = false;
  std::vector<std::pair<std::string, std::string>> changes;  // checked: change() takes them
};

/// `address NAME A.B.C.D`: the host has another address from now on.
struct AddressCommand {
  std::string name;
  std::uint32_t address = 0;
};

/// `stats`: the counts of each pair that carried something.
struct StatsCommand {};

using Command = std::variant<HostCommand, PairCommand, AddressCommand, StatsCommand>;

/// Nothing for an empty line or a comment (#).
///
/// errors: invalid_argument  names the word, what was expected there and an example
base::Result<std::optional<Command>> parse_command(std::string_view line);

/// Sets the one setting that `key` names. errors: invalid_argument
base::Result<void> change(Road::Settings& settings, const std::string& key, const std::string& value);

/// "10.77.0.1". errors: invalid_argument
base::Result<std::uint32_t> parse_address(const std::string& text);
std::string address_text(std::uint32_t address);

}  // namespace stagecoach::lab
