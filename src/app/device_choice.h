// What computes: a real device by its name, or a paced one by its time (docs/formats/device.md).
//
// In:      "cpu", "paced:a100", "paced:a100@0.38", "paced:FILE.toml"; a table of a device's times. Out: a paced device's options.
// Thread:  any; reads a file.
// Why:     `join`, `compute.device` and scenarios mean the same by the same words.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "app/scenario_reader.h"
#include "base/result.h"
#include "world/real/paced_device.h"

namespace stagecoach::app {

inline constexpr std::string_view kPacedPrefix = "paced:";

constexpr bool is_paced(std::string_view device) { return device.starts_with(kPacedPrefix); }

/// What is wrong with the words as a name of a device, or empty. Reads no file.
std::string device_complaint(const std::string& device);

/// Nothing where the words name a real device.
///
/// errors: invalid_argument  neither a known device nor a file; a file in which something is wrong, with its line · those of reading it
base::Result<std::optional<world::real::PacedDevice::Options>> paced_device(const std::string& device);

/// Reads flops, mfu, forward, backward and memory. `stages`: how many times a list may hold, besides one; none = any number.
world::paced::DeviceSpeed read_speed(Section& section, std::optional<std::size_t> stages);

/// A file that paced_device() reads back as these.
std::string device_text(const world::real::PacedDevice::Options& device);

}  // namespace stagecoach::app
