// See device.h.
#include "compute/device.h"

#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <torch/version.h>

#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 13
#include <c10/core/CachingDeviceAllocator.h>
#endif

namespace stagecoach::compute {
namespace {

int cuda_devices() { return at::hasCUDA() ? static_cast<int>(at::detail::getCUDAHooks().deviceCount()) : 0; }

std::string torch_version() {
  return std::to_string(TORCH_VERSION_MAJOR) + "." + std::to_string(TORCH_VERSION_MINOR) + "." +
         std::to_string(TORCH_VERSION_PATCH);
}

constexpr const char* architecture() {
#if defined(__x86_64__)
  return "x86-64";
#elif defined(__aarch64__)
  return "aarch64";
#else
  return "other";
#endif
}

/// Calls the functions of MKL's vector math that torch's operators go through here once, on this thread alone. MKL chooses among its
/// kernels at a function's first call, and where two threads are in that call, one can be given the kernel of lowest accuracy, eleven
/// bits, for its part (PyTorch issue 188792: oneMKL 2024.2, which torch's wheels contain): two runs that should be equal are not.
void settle_vector_math() {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const at::Tensor one = at::ones({1}, type);
    static_cast<void>(at::exp(one));
    static_cast<void>(at::log(one));
    static_cast<void>(at::sqrt(one));
  }
}

/// What multiplies bfloat16 here: torch's capability does not tell, and each sums in another order.
std::string bfloat16_unit() {
#if defined(__x86_64__) && defined(__GNUC__)
  if (__builtin_cpu_supports("amx-bf16")) return "+AMX";
  if (__builtin_cpu_supports("avx512bf16")) return "+BF16";
#endif
  return "";
}

}  // namespace

base::Result<at::Device> find_device(const std::string& name) {
  const bool any = name == "auto";
  const auto missing = [&name] {
    return base::Error{base::ErrorCode::unavailable,
                       "there is no " + name + " device here (" + describe_devices() + "): use device auto or cpu"};
  };
  if (name == "cuda" || any) {
    if (cuda_devices() > 0) return at::Device(at::kCUDA, 0);
    if (!any) return missing();
  }
  if (name == "mps" || any) {
    if (at::hasMPS()) return at::Device(at::kMPS, 0);
    if (!any) return missing();
  }
  if (name == "cpu" || any) return at::Device(at::kCPU);
  return base::Error{base::ErrorCode::invalid_argument, "a device is cpu, cuda, mps or auto, not \"" + name + "\""};
}

void use_threads(int threads) {
  // OpenMP's setting belongs to the calling thread, so each thread that comes here is remembered by itself.
  thread_local int set_threads = 0;
  if (set_threads == threads) return;
  static const bool prepared = [] {
    try {
      at::set_num_interop_threads(1);
    } catch (const c10::Error&) {
      // Its pool has started already, in a program that uses torch for other things too: nothing here runs on it.
    }
    settle_vector_math();
    return true;
  }();
  static_cast<void>(prepared);
  at::set_num_threads(threads);
  set_threads = threads;
}

std::string numerics_class_of(const at::Device& device, int threads, model::FloatKind compute) {
  std::string text = device.is_cpu() ? std::string("cpu ") + architecture() + " " + at::get_cpu_capability()
                                     : std::string(device.is_cuda() ? "cuda" : "mps");
  if (device.is_cpu() && compute == model::FloatKind::bfloat16) text += bfloat16_unit();
  return text + " torch " + torch_version() + " threads " + std::to_string(threads) +
         (compute == model::FloatKind::float32 ? " float32" : " bfloat16");
}

std::int64_t free_device_bytes(const at::Device& device) {
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 13
  if (device.is_cuda()) {
    return static_cast<std::int64_t>(c10::getDeviceAllocator(device.type())->getMemoryInfo(device.index()).first);
  }
#endif
  static_cast<void>(device);
  return 0;
}

std::string describe_devices() {
  std::string text = "torch " + torch_version() + ": cpu";
  if (const int count = cuda_devices(); count > 0) text += ", cuda × " + std::to_string(count);
  if (at::hasMPS()) text += ", mps";
  return text;
}

}  // namespace stagecoach::compute
