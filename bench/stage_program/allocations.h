// What torch's allocators hand out on this thread, and the most that was out at once.
//
// In:      a lifetime. Out: bytes, of tensors in this machine's memory and of tensors on a device.
// Thread:  the one that made it; allocations of torch's own worker threads are not seen, and are small.
// Why:     a process' size also counts what its C library keeps for later, so that a prediction of tensors needs the allocator's word.
#pragma once

#include <cstdint>
#include <memory>

namespace stagecoach::bench {

class Allocations {
 public:
  Allocations();
  ~Allocations();
  std::int64_t host_peak_bytes() const;
  std::int64_t device_peak_bytes() const;

 private:
  struct Watch;
  std::unique_ptr<Watch> watch_;
};

}  // namespace stagecoach::bench
