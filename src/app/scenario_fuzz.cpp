// Feeds any bytes to the reader of scenarios: it answers with a scenario or with problems, and what it accepts is fit to be planned.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "app/scenario.h"
#include "base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace stagecoach;
  const auto loaded = app::parse_scenario(std::string_view(reinterpret_cast<const char*>(data), size), "fuzz.toml");
  if (!loaded.ok()) return 0;
  const app::Scenario& scenario = loaded.scenario;
  CHECK(scenario.round_trips.size() == scenario.sites.size(), "each site has its row of round trips");
  CHECK(scenario.workers.size() == static_cast<std::size_t>(scenario.settings.stages * scenario.settings.replicas), "each place has a host");
  for (const auto& host : scenario.workers) CHECK(host.site < scenario.sites.size(), "a host stands at a site that there is");
  for (const auto& event : scenario.events) CHECK(!event.host || *event.host <= scenario.workers.size(), "an event strikes a host that there is");
  return 0;
}
