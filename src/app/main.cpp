// The program's entry: subcommands and their options; each is one file beside this one.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <filesystem>
#include <iostream>

#include "app/account.h"
#include "app/data_command.h"
#include "app/explain.h"
#include "app/generate.h"
#include "app/join.h"
#include "app/model_command.h"
#include "app/preset_settings.h"
#include "app/simulate.h"
#include "app/status.h"
#include "app/train.h"

namespace {

void add_run_options(CLI::App& command, stagecoach::app::TrainOptions& options) {
  CLI::Option* config = command.add_option("config", options.request.config, "a TOML file; every key has a default (see train --explain)");
  const auto use_preset = [&options](const std::string& name) {
    const stagecoach::model::Preset* preset = stagecoach::model::find_preset(name);
    if (preset == nullptr) throw CLI::ValidationError("--preset", "there is no \"" + name + "\"; there are " + stagecoach::app::preset_names());
    const std::vector<std::string> values = stagecoach::app::preset_overrides(*preset);
    options.request.overrides.insert(options.request.overrides.begin(), values.begin(), values.end());  // --set goes over it
  };
  command.add_option_function<std::string>("--preset", use_preset, "instead of a file: " + stagecoach::app::preset_names() + " (see model)")->excludes(config);
  command.add_option("--set", options.request.overrides, "key=value over the file, as often as needed")->allow_extra_args(false);
  command.add_option("--resume", options.request.resume, "a run's folder: go on from its newest complete checkpoint");
  command.add_flag("--plain", options.plain, "lines instead of a live view");
}

}  // namespace

int main(int argc, char** argv) {
  namespace app = stagecoach::app;
  std::signal(SIGXFSZ, SIG_IGN);  // a file beyond the user's limit is an error with words, as a full disk is
  CLI::App cli{"Pretrains one language model on single machines over ordinary links, bit for bit as one machine would.", "stagecoach"};
  cli.require_subcommand(1);

  app::TrainOptions train;
  bool explain = false;
  CLI::App* train_command = cli.add_subcommand("train", "train on this machine: a coordinator and its workers as local processes");
  add_run_options(*train_command, train);
  train_command->add_flag("--explain", explain, "print every key with its default, unit and meaning");
  train_command->add_flag("--unsplit", train.unsplit, "one process and no network: the reference that a split run equals bit for bit");

  app::TrainOptions coordinate;
  coordinate.start_workers = false;
  CLI::App* coordinate_command = cli.add_subcommand("coordinate", "coordinate a run whose workers join from other machines");
  add_run_options(*coordinate_command, coordinate);

  app::JoinOptions join;
  CLI::App* join_command = cli.add_subcommand("join", "be a worker of a run");
  join_command->add_option("link", join.link, "stagecoach://KEY@HOST:PORT, as the coordinator printed it")->required();
  join_command->add_option("--key", join.key, "this worker's key file [.stagecoach/worker.key]");
  join_command->add_option("--log", join.log, "log file [the terminal]");
  join_command->add_option("--cache", join.cache, "folder for fetched files")->capture_default_str();
  join_command->add_option("--device", join.device, "cpu, cuda, mps, auto, or paced:NAME[@MFU] or paced:FILE (docs/formats/device.md)")->capture_default_str();
  join_command->add_option("--trace", join.trace, "file for what the device did and when: for account (docs/formats/trace.md)");
  join_command->add_option("--recompute", join.recompute, "auto, always or never run a forward again for its backward")
      ->check(CLI::IsMember({"auto", "always", "never"}))->capture_default_str();
  join_command->add_option("--kept-bytes", join.kept_bytes, "most that is kept of forwards where recompute is auto; 0 = half of the free memory")
      ->check(CLI::NonNegativeNumber)->capture_default_str();
  join_command->add_option("--listen", join.listen, "where other workers reach this one")->capture_default_str();
  join_command->add_option("--advertise", join.advertise, "host:port that other workers are told [the address towards the coordinator]");
  join_command->add_option("--die-with-parent", join.parent, "a process id: end when that process, which started this one, ends");

  app::StatusOptions status;
  CLI::App* status_command = cli.add_subcommand("status", "show the live state of a run");
  status_command->add_option("run", status.target, "a run's folder, or its link")->required();
  status_command->add_flag("--json", status.json, "one JSON object (docs/formats/status.md)");

  app::GenerateOptions generate;
  CLI::App* generate_command = app::add_generate_command(cli, generate);

  app::ModelOptions model;
  CLI::App* model_command = app::add_model_command(cli, model);

  app::SimulateOptions simulate;
  CLI::App* simulate_command = app::add_simulate_command(cli, simulate);

  app::AccountOptions account;
  CLI::App* account_command = app::add_account_command(cli, account);

  app::DataOptions data;
  CLI::App* data_command = app::add_data_command(cli, data);

  const std::string word = argc > 1 ? argv[1] : "-";
  const auto commands = cli.get_subcommands({});
  if (!word.starts_with('-') && std::none_of(commands.begin(), commands.end(), [&](const CLI::App* each) { return each->get_name() == word; })) {
    std::cerr << "stagecoach: there is no subcommand \"" << word << "\"; there are";
    for (const CLI::App* each : commands) std::cerr << " " << each->get_name();
    std::cerr << "\n";
    return 1;
  }
  CLI11_PARSE(cli, argc, argv);
  std::error_code error;
  train.program = coordinate.program = std::filesystem::read_symlink("/proc/self/exe", error).string();
  if (explain) {
    std::cout << app::explain();
    return 0;
  }
  if (train_command->parsed()) return app::run_train(train);
  if (coordinate_command->parsed()) return app::run_train(coordinate);
  if (join_command->parsed()) return app::run_join(join);
  if (status_command->parsed()) return app::run_status(status);
  if (data_command->parsed()) return app::run_data(*data_command, data, std::cout, std::cerr);
  if (model_command->parsed()) return app::run_model(model, std::cout, std::cerr);
  if (simulate_command->parsed()) return app::run_simulate(simulate, std::cout, std::cerr);
  if (account_command->parsed()) return app::run_account(account, std::cout, std::cerr);
  if (generate_command->parsed()) return app::run_generate(generate, std::cout, std::cerr);
  return 1;
}
