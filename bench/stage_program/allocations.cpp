// See allocations.h. The hook is the one that torch's own profiler uses.
#include "allocations.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <atomic>

namespace stagecoach::bench {
namespace {

class Reporter final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, std::int64_t bytes, std::size_t, std::size_t, c10::Device device) override {
    Count& count = device.is_cpu() ? host : this->device;
    const std::int64_t now = count.now += bytes;
    count.peak = std::max<std::int64_t>(count.peak, now);
  }
  bool memoryProfilingEnabled() const override { return true; }

  struct Count {
    std::atomic<std::int64_t> now{0}, peak{0};
  };
  Count host, device;
};

}  // namespace

struct Allocations::Watch {
  std::shared_ptr<Reporter> reporter = std::make_shared<Reporter>();
  c10::DebugInfoGuard guard{c10::DebugInfoKind::PROFILER_STATE, reporter};
};

Allocations::Allocations() : watch_(std::make_unique<Watch>()) {}
Allocations::~Allocations() = default;
std::int64_t Allocations::host_peak_bytes() const { return watch_->reporter->host.peak; }
std::int64_t Allocations::device_peak_bytes() const { return watch_->reporter->device.peak; }

}  // namespace stagecoach::bench
