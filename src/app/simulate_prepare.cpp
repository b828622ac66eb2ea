// What the lab needs to run a scenario: settings and paced devices, as files.
#include <system_error>

#include "app/device_choice.h"
#include "app/explain.h"
#include "app/simulate.h"
#include "base/files.h"

namespace stagecoach::app {

using base::Error;
using base::ErrorCode;
using base::Result;
namespace fs = std::filesystem;

Result<void> prepare_scenario(const Scenario& scenario, const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder / "devices", error);
  if (error) return Error{ErrorCode::io_error, "the folder " + folder.string() + " cannot be made: " + error.message()};
  RunSettings settings = scenario.settings;
  std::size_t paced = 0;
  for (const ScenarioHost& host : scenario.workers) {
    if (!is_paced(host.device)) continue;
    const fs::path path = folder / "devices" / (host.name + ".toml");
    RETURN_IF_ERROR(base::replace_text_file(path, device_text({*scenario.device_of(host), host.slowdown, scenario.bulk_scale})));
    if (++paced == 1) settings.device = std::string(kPacedPrefix) + fs::absolute(path).string();
  }
  if (paced > 0 && paced < scenario.workers.size())
    return Error{ErrorCode::invalid_argument, std::to_string(paced) + " of " + std::to_string(scenario.workers.size()) +
                                                  " hosts are paced: a run's devices are paced all or none"};
  return base::replace_text_file(folder / "config.toml", to_toml(settings));
}

}  // namespace stagecoach::app
