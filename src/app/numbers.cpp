#include "app/numbers.h"

#include <filesystem>
#include <fstream>
#include <string>

namespace stagecoach::app {
namespace {

/// Below this width the tiles of AMX are mostly empty, and converting costs what multiplying saves.
constexpr std::int64_t kAmxDimLeast = 256;

bool has_nvidia_gpu() {
  std::error_code error;
  return std::filesystem::exists("/proc/driver/nvidia/version", error);
}

/// The processor's flags, as Linux lists them. Torch would know too, but costs the coordinator a fifth of a second.
bool has_amx() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("flags")) return line.find(" amx_bf16") != std::string::npos;
  }
  return false;
}

}  // namespace

void settle_numbers(RunSettings& settings) {
  if (settings.numbers != NumbersChoice::automatic) return;
  const bool gpu = settings.device == "cuda" || (settings.device == "auto" && has_nvidia_gpu());
  const bool cpu = settings.device == "cpu" || (settings.device == "auto" && !gpu);
  const bool faster = gpu || (cpu && settings.train.model.dim >= kAmxDimLeast && has_amx());
  settings.numbers = faster ? NumbersChoice::bfloat16 : NumbersChoice::float32;
  settings.train.numbers.compute = faster ? model::FloatKind::bfloat16 : model::FloatKind::float32;
}

}  // namespace stagecoach::app
