// How much memory a stage takes: what it keeps from step to step, what one microbatch adds, what the end of a step adds.
//
// In:      a config, a stage's layers, how it is run.
// Out:     parts in bytes, each with the arithmetic it came from, and their peak. The formulas are in docs/MODEL.md.
// Thread:  any; pure.
// Why:     whether a device is large enough must be known before it is bought or asked to try.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"

namespace stagecoach::model {

/// Where a part lies when the device has a memory of its own. On a CPU all of it is one memory.
enum class MemoryPlace : std::uint8_t { device, host };

/// When a part is there. The last two never meet: a step is closed when its microbatches are done.
enum class MemoryPhase : std::uint8_t { always, microbatch, closing };

struct MemoryPart {
  std::string_view name;  // "weights", "moments", …
  std::int64_t bytes = 0;
  MemoryPlace place = MemoryPlace::device;
  MemoryPhase phase = MemoryPhase::always;
  std::string arithmetic;  // "6,486,110,208 × 2"
};

/// How a stage is run, as far as memory is concerned.
struct MemoryOptions {
  std::int64_t replicas = 1;
  int versions_kept = 1;         // weight versions: 1 in exact
  bool separate_device = false;  // a GPU: payloads lie in the host's memory
  bool recompute = true;         // false: what forwards leave stays until their backward
  std::int64_t in_flight = 1;    // forwards without their backward at once, where that is so
};

struct StageMemory {
  std::vector<MemoryPart> parts;

  /// What is needed at once: the parts that are always there, and the larger of the two phases.
  std::int64_t peak() const;
  /// Of the parts at `place` only.
  std::int64_t peak(MemoryPlace place) const;
  /// Of all parts called `name`.
  std::int64_t of(std::string_view name) const;
};

/// shapes: the stage's tensors are those of parameters(config.model, range)
StageMemory stage_memory(const TrainConfig& config, const StageRange& range, const MemoryOptions& options);

/// What one microbatch's forward through layer `layer` leaves for its backward, its input included.
std::int64_t kept_bytes(const TrainConfig& config, std::int64_t layer);

/// "1,234,567".
std::string grouped(std::int64_t number);

}  // namespace stagecoach::model
