#include "app/train.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "app/local_workers.h"
#include "app/network.h"
#include "app/run_report.h"
#include "app/unsplit.h"
#include "app/view_thread.h"
#include "base/files.h"

namespace stagecoach::app {

using base::Error;
using base::Result;
using world::real::CoordinatorNode;
namespace fs = std::filesystem;

namespace {

/// The coordinator's code for numbers beyond what the sums hold: a resume would only compute them again.
constexpr int kSameAgainCode = 7;

/// How long the last picture may take: a terminal that is held shows it when it is let go, or never.
constexpr base::Duration kViewPatience = base::Duration::milliseconds(500);

// A signal handler has no other way to its run than a static object.
CoordinatorNode* signalled_node = nullptr;
volatile sig_atomic_t stops_asked = 0;

void on_stop_signal(int) {
  stops_asked = stops_asked + 1;
  if (stops_asked > 1) {
    // Twice: now. What is on the disk is complete or does not exist. A terminal that is held (Ctrl-S) must not hold the end.
    pollfd terminal{1, POLLOUT, 0};
    if (::poll(&terminal, 1, 0) == 1)
      [[maybe_unused]] const auto written = ::write(1, TerminalView::kRestoreTerminal.data(), TerminalView::kRestoreTerminal.size());
    ::_exit(130);
  }
  if (signalled_node) signalled_node->request_stop();
}

void catch_signals(CoordinatorNode* node) {
  signalled_node = node;
  struct sigaction action {};
  action.sa_handler = on_stop_signal;
  for (int signal : {SIGINT, SIGTERM}) ::sigaction(signal, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

int complain(const Error& error) {
  std::cerr << "stagecoach: " << error.message << "\n";
  return 1;
}

/// For workers of this machine, whatever others are told.
std::string local_link_of(const CoordinatorNode& node, const link::Identity& identity) {
  link::JoinLink link{identity.peer_id(), node.address().host, node.address().port};
  if (link.host == "0.0.0.0") link.host = "127.0.0.1";
  if (link.host == "::") link.host = "::1";
  return link::to_string(link);
}

std::string join_link_of(const CoordinatorNode& node, const RunFolder& folder, const link::Identity& identity, bool local) {
  link::JoinLink link{identity.peer_id(), node.address().host, node.address().port};
  if (!folder.settings.advertise.empty()) {
    if (const auto told = parse_address(folder.settings.advertise)) link.host = told->host, link.port = told->port ? told->port : link.port;
  } else if (link.host == "0.0.0.0" || link.host == "::") {
    link.host = local ? "127.0.0.1" : public_guess();
  }
  return link::to_string(link);
}

void introduce(const RunFolder& folder, const CoordinatorNode& node, const std::string& link, const TrainOptions& options,
               ViewThread& view) {
  const auto& t = folder.settings.train;
  view.say("run       " + folder.path.string() + (folder.resumed ? " (resumed at step " + std::to_string(node.first_step().value()) + ")" : ""));
  view.say("model     " + model_line(folder) + " in " + std::to_string(folder.split.size()) + " stages x " +
           std::to_string(folder.settings.replicas) + " replicas, " + std::to_string(t.schedule.steps) + " steps of " +
           std::to_string(t.batch.tokens_per_step()) + " tokens");
  if (folder.shards.empty()) view.say("data      none: the run is paced (" + folder.settings.device + "), its losses are hashes");
  else view.say("data      " + folder.shards.string() + (folder.shards_reused ? " (cut before)" : " (cut now)"));
  for (const auto& finding : node.findings()) view.say("note      " + finding);
  if (options.start_workers) {
    view.say("workers   " + std::to_string(folder.split.size() * static_cast<std::size_t>(folder.settings.replicas)) +
             " processes on this machine, over QUIC; logs in " + (folder.path / "workers").string());
  } else {
    view.say("link      " + link);
    view.say("          on each worker's machine: ./stagecoach join " + link);
  }
}

std::string continue_command(const RunFolder& folder, const TrainOptions& options) {
  return std::string("./stagecoach ") + (options.start_workers ? "train" : "coordinate") + " --resume " + shell_word(folder.path.string());
}

int coordinate(const TrainOptions& options, const RunFolder& folder) {
  auto identity = link::Identity::load_or_create(folder.file("coordinator.key").string());
  if (!identity) return complain(identity.error());
  auto log = world::real::Log::open(folder.file("coordinator.log").string(), false);
  if (!log) return complain(log.error());
  auto node_options = coordinator_options(folder, options.start_workers ? kTrainListen : kCoordinateListen);
  if (!node_options) return complain(node_options.error());
  ViewThread view({1, static_cast<std::uint64_t>(folder.settings.print_every), options.plain});
  std::optional<LocalWorkers> workers;
  std::uint64_t first_tokens = 0;
  bool first_shown = false;
  node_options->show = [&](const observe::RunStatus& status) {
    if (!first_shown) first_tokens = status.tokens, first_shown = true;
    view.show(status);
  };
  if (options.start_workers)
    node_options->ended_workers = [&] { return workers ? workers->ended() : std::vector<std::pair<base::PeerId, std::string>>(); };
  auto node = CoordinatorNode::make(*identity, std::move(*node_options), *log);
  if (!node) return complain(node.error());
  const std::string link = join_link_of(**node, folder, *identity, options.start_workers);
  if (auto written = base::replace_text_file(folder.file("link"), link + "\n"); !written) return complain(written.error());
  introduce(folder, **node, link, options, view);
  catch_signals(node->get());
  if (options.start_workers) {
    // Where all of the run stays on this machine, nobody else can reach a worker.
    const char* workers_listen = (*node)->address().host.starts_with("127.") ? "127.0.0.1:0" : "0.0.0.0:0";
    const std::string_view recompute = find_key("compute.recompute")->choices[static_cast<std::size_t>(folder.settings.recompute)];
    auto started = LocalWorkers::start({options.program, folder.path, local_link_of(**node, *identity), folder.settings.device, std::string(recompute), folder.settings.kept_bytes, workers_listen,
                                        folder.split.size() * static_cast<std::size_t>(folder.settings.replicas)});
    if (!started) {
      signalled_node = nullptr;  // the node dies with this scope
      return complain(started.error());
    }
    workers.emplace(std::move(*started));
  }
  const int code = (*node)->run();
  const observe::RunStatus status = (*node)->status();
  view.close(kViewPatience);
  workers.reset();
  // The handler stays: who asks a run to stop in the moment of its end has been answered, and the exit status is the run's.
  signalled_node = nullptr;
  if (code != 0) {
    std::cerr << "stagecoach: " << (*node)->last_words() << "\n";
    if (code != kSameAgainCode) std::cerr << "            continue with: " << continue_command(folder, options) << "\n";
    return code;
  }
  RunSummary summary = summarize(folder, status, status.elapsed_s, status.tokens - first_tokens);
  if (!summary.finished) summary.continue_command = continue_command(folder, options);
  summary.workers_lost = static_cast<std::int64_t>((*node)->workers_lost());
  summary.attempts_voided = (*node)->attempts() > 0 ? static_cast<std::int64_t>((*node)->attempts()) - 1 : 0;
  std::cout << summary_text(summary) << std::flush;
  return 0;
}

}  // namespace

int run_train(const TrainOptions& options) {
  const LoadedSettings loaded = settings_of(options.request);
  if (!loaded.ok()) {
    for (const auto& problem : loaded.problems) std::cerr << "stagecoach: " << problem << "\n";
    return 1;
  }
  auto folder = open_run_folder(options.request, loaded.settings);
  if (!folder) return complain(folder.error());
  if (options.unsplit && folder->shards.empty())
    return complain({base::ErrorCode::invalid_argument, "--unsplit computes, and compute.device is " + folder->settings.device + ": name a real device"});
  return options.unsplit ? run_unsplit(*folder, options.plain) : coordinate(options, *folder);
}

}  // namespace stagecoach::app
