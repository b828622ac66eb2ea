// `stagecoach model`: what a model of these settings takes, before anything is bought or started.
//
// In:      a preset's name or a config file, overrides, a device, a link.
// Out:     the report on `out`, problems on `err`, an exit status.
// Thread:  the caller's.
// Why:     the only command that neither computes nor talks.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace stagecoach::app {

struct ModelOptions {
  std::string what;  // a preset's name or a TOML file; empty = the defaults
  std::optional<std::int64_t> stages;
  std::vector<std::string> overrides;
  std::string device;  // "80GB"; empty = no verdict
  std::string uplink = "856Mbps";
  std::string round_trip = "60ms";
  std::string flops = "312T";
  double mfu = 0.4;
  bool json = false;
};

/// Adds the subcommand `model` with its options to `app`; parsing fills `options`.
CLI::App* add_model_command(CLI::App& app, ModelOptions& options);

/// 0 = told, and where a device was named it fits; 3 = it does not fit; 1 = something is wrong with the question.
int run_model(const ModelOptions& options, std::ostream& out, std::ostream& err);

}  // namespace stagecoach::app
