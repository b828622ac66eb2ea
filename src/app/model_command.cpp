// See model_command.h.
#include "app/model_command.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <iostream>

#include "app/model_report.h"
#include "app/preset_settings.h"
#include "app/quantity.h"

namespace stagecoach::app {
namespace {

constexpr int kDoesNotFit = 3;

/// Takes what was parsed, or notes the problem with the option's name before it.
template <class Value, class Target>
void take(base::Result<Value> parsed, const char* option, Target& target, std::vector<std::string>& problems) {
  if (parsed) target = *parsed;
  else problems.push_back(std::string(option) + ": " + parsed.error().message);
}

ReportOptions report_options(const ModelOptions& options, std::vector<std::string>& problems) {
  ReportOptions out;
  if (!options.device.empty()) take(parse_bytes(options.device), "--device", out.device_bytes, problems);
  take(parse_rate(options.uplink), "--uplink", out.assumptions.uplink_bytes_per_s, problems);
  take(parse_seconds(options.round_trip), "--rtt", out.assumptions.round_trip_s, problems);
  take(parse_flops(options.flops), "--flops", out.assumptions.device_flops_per_s, problems);
  out.assumptions.mfu = options.mfu;
  if (!(options.mfu > 0 && options.mfu <= 1)) problems.push_back("--mfu: expected a share above 0 and up to 1, such as 0.4");
  return out;
}

/// The settings that the words mean: a preset's, a file's, or the defaults, then the user's own.
LoadedSettings settings_of(const ModelOptions& options, ReportOptions& report) {
  std::vector<std::string> overrides;
  std::error_code error;
  report.preset = model::find_preset(options.what);
  report.title = report.preset != nullptr ? std::string(report.preset->name) : options.what.empty() ? "the defaults" : options.what;
  if (report.preset != nullptr) {
    if (options.stages && (*options.stages < 1 || *options.stages > report.preset->layers)) {
      return {{}, {"--stages: " + report.title + " has " + std::to_string(report.preset->layers) + " layers and so from 1 to " +
                   std::to_string(report.preset->layers) + " stages, not " + std::to_string(*options.stages)}};
    }
    overrides = preset_overrides(*report.preset, options.stages);
  } else if (!options.what.empty() && !std::filesystem::exists(options.what, error)) {
    return {{}, {options.what + " is neither a preset nor a file. The presets: " + preset_names()}};
  } else if (options.stages) {
    overrides.push_back("layout.stages=" + std::to_string(*options.stages));
  }
  overrides.insert(overrides.end(), options.overrides.begin(), options.overrides.end());
  const bool file = report.preset == nullptr && !options.what.empty();
  return load_settings(file ? std::optional(options.what) : std::nullopt, overrides);
}

}  // namespace

CLI::App* add_model_command(CLI::App& app, ModelOptions& options) {
  CLI::App* command = app.add_subcommand("model", "tell what a model takes: parameters, memory, operations, bytes between stages");
  command->add_option("what", options.what, "a preset (" + preset_names() + ") or a TOML file [the defaults]");
  command->add_option("--stages", options.stages, "pieces the layers are cut into; a preset's cuts then lie at their edges");
  command->add_option("--set", options.overrides, "key=value over preset or file, as often as needed")->allow_extra_args(false);
  command->add_option("--device", options.device, "a worker's memory, such as 80GB or 24GiB: say whether each stage fits");
  command->add_option("--uplink", options.uplink, "a worker's sending rate")->capture_default_str();
  command->add_option("--rtt", options.round_trip, "round trip between neighbouring stages")->capture_default_str();
  command->add_option("--flops", options.flops, "a device's dense peak, operations a second")->capture_default_str();
  command->add_option("--mfu", options.mfu, "of that peak, what training reaches with forwards computed twice")->capture_default_str();
  command->add_flag("--json", options.json, "one JSON object (docs/MODEL.md)");
  return command;
}

int run_model(const ModelOptions& options, std::ostream& out, std::ostream& err) {
  std::vector<std::string> problems;
  ReportOptions asked = report_options(options, problems);
  LoadedSettings loaded = settings_of(options, asked);
  problems.insert(problems.end(), loaded.problems.begin(), loaded.problems.end());
  if (!problems.empty()) {
    for (const std::string& problem : problems) err << "stagecoach: " << problem << "\n";
    return 1;
  }
  asked.assumptions.recompute = loaded.settings.recompute != compute::Recompute::never;
  const ModelReport report = model_report(loaded.settings, asked);
  out << (options.json ? report_json(report) : report_text(report));
  return report.fits() ? 0 : kDoesNotFit;
}

}  // namespace stagecoach::app
