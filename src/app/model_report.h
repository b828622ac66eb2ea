// What `stagecoach model` knows about a config: counts, memory, FLOPs, bytes, waiting.
//
// In:      settings, and what device and link are said to do.
// Out:     a report as values; the same as text and as JSON.
// Thread:  any; pure.
// Why:     the numbers are made once and shown twice, and tests read them without parsing tables.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "app/settings.h"
#include "model/arithmetic.h"
#include "model/memory.h"
#include "model/presets.h"

namespace stagecoach::app {

struct ReportOptions {
  std::string title;                       // the preset's name or the file's
  const model::Preset* preset = nullptr;   // where it is one: what was published about it
  model::Assumptions assumptions;
  std::optional<std::int64_t> device_bytes;  // a verdict for a device of this size
};

struct StageReport {
  model::StageRange range;
  std::int64_t parameters = 0;
  model::TokenFlops flops;
  std::int64_t executed_flops = 0;
  model::StageMemory memory;
  std::int64_t needed_bytes = 0;  // of it, what the device must hold
  model::StagePace pace;
};

struct ModelReport {
  ReportOptions options;
  RunSettings settings;
  model::Split split;
  std::int64_t parameters = 0;
  std::int64_t cut_parameters = 0;  // of all, those of the bottlenecks
  model::TokenFlops flops;
  std::vector<StageReport> stages;
  model::Pace pace;
  bool separate_device = false;     // the device has a memory of its own

  std::int64_t plain_parameters() const { return parameters - cut_parameters; }
  /// The stage that needs most of the device.
  const StageReport& largest() const;
  bool fits() const { return !options.device_bytes || largest().needed_bytes <= *options.device_bytes; }
};

/// shapes: the settings are sound (parse_settings has said so)
ModelReport model_report(const RunSettings& settings, const ReportOptions& options);

/// For a terminal; a newline after each line.
std::string report_text(const ModelReport& report);

/// One JSON object (docs/MODEL.md).
std::string report_json(const ModelReport& report);

}  // namespace stagecoach::app
