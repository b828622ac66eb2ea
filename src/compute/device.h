// Torch at our border: devices, threads, and exceptions that become errors.
//
// Thread:  compute.
// Why:     everything that torch may throw or set globally passes here once.
#pragma once

#include <exception>
#include <string>

#include "base/result.h"
#include "compute/torch.h"
#include "model/config.h"

namespace stagecoach::compute {

/// "cpu", "cuda", "mps", or "auto": the first of cuda, mps, cpu that is there.
///
/// errors: invalid_argument  no such kind · unavailable  this machine or this torch has none
base::Result<at::Device> find_device(const std::string& name);

/// Makes this thread's kernels use `threads` threads; does nothing where they already do. Comes before a thread's first operator: the
/// first call of all settles what torch and the libraries below it would otherwise choose while several threads are at work.
void use_threads(int threads);

/// "cpu x86-64 AVX512+AMX torch 2.13.0 threads 1 bfloat16".
std::string numerics_class_of(const at::Device& device, int threads, model::FloatKind compute);

/// Memory of an accelerator that nobody uses; 0 where this torch cannot say.
std::int64_t free_device_bytes(const at::Device& device);

/// "torch 2.13.0: cpu, cuda × 2".
std::string describe_devices();

/// Runs `work`, which returns a Result; what torch throws becomes an `internal` error.
template <class Work>
auto guarded(Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const c10::Error& error) {
    return base::Error{base::ErrorCode::internal, std::string("torch: ") + error.what_without_backtrace()};
  } catch (const std::exception& error) {
    return base::Error{base::ErrorCode::internal, std::string("torch: ") + error.what()};
  }
}

}  // namespace stagecoach::compute
