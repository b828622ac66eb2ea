#include "app/join.h"

#include <signal.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>

#include "app/device_choice.h"
#include "app/generate.h"
#include "app/network.h"
#include "app/settings.h"
#include "base/files.h"
#include "world/real/worker_node.h"

namespace stagecoach::app {

using world::real::WorkerNode;

namespace {

WorkerNode* signalled_node = nullptr;

void on_leave_signal(int) {
  if (signalled_node) signalled_node->request_leave();
}

int complain(const base::Error& error) {
  std::cerr << "stagecoach: " << error.message << "\n";
  return 1;
}

/// The key for this process alone: of two workers with one key, each would end the other's link again and again.
///
/// errors: unavailable  another worker has it, and still has it after the time that a killed one may need to end
base::Result<base::FileLock> lock_of(const std::filesystem::path& key) {
  constexpr int kTries = 50;
  for (int i = 1;; ++i) {
    auto lock = base::FileLock::take(key, {});
    if (lock || lock.error().code != base::ErrorCode::unavailable) return lock;
    if (i == kTries)
      return base::Error{base::ErrorCode::unavailable, "the key " + key.string() + " is in use by another worker on this machine: give "
                                                           "this one a key of its own, --key FILE"};
    const timespec moment{0, 100'000'000};
    ::nanosleep(&moment, nullptr);
  }
}

}  // namespace

int run_join(const JoinOptions& options) {
  if (options.parent != 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != options.parent) return 1;  // it was gone before that; in a container process 1 may well be the parent
  }
  auto link = link::parse_join_link(options.link);
  if (!link) return complain(link.error());
  auto host = resolve(link->host);
  if (!host) return complain(host.error());
  link->host = *host;
  auto bind = parse_address(options.listen);
  if (!bind) return complain(bind.error().within("--listen"));

  const std::filesystem::path key = options.key.empty() ? ".stagecoach/worker.key" : options.key;
  std::error_code error;
  if (key.has_parent_path()) std::filesystem::create_directories(key.parent_path(), error);
  auto identity = link::Identity::load_or_create(key.string());
  if (!identity) return complain(identity.error());
  auto key_lock = lock_of(key);
  if (!key_lock) return complain(key_lock.error());
  auto log = world::real::Log::open(options.log, false);
  if (!log) return complain(log.error());

  WorkerNode::Options node_options;
  node_options.join = *link;
  node_options.bind = *bind;
  if (!options.advertise.empty()) {
    auto advertised = parse_address(options.advertise);
    if (!advertised) return complain(advertised.error().within("--advertise"));
    node_options.advertise = *advertised;
  } else if (bind->host == "0.0.0.0" || bind->host == "::") {
    node_options.advertise = link::Address{local_address_towards(link->host, link->port), 0};
  }
  node_options.cache = options.cache;
  const compute::Recompute recompute = options.recompute == "always"  ? compute::Recompute::always
                                       : options.recompute == "never" ? compute::Recompute::never
                                                                      : compute::Recompute::automatic;
  auto paced = paced_device(options.device);
  if (!paced) return complain(paced.error().within("--device"));
  node_options.paced = std::move(*paced);
  if (node_options.paced) node_options.paced->recompute = recompute != compute::Recompute::never;
  node_options.trace = options.trace;
  node_options.device = {library_beside_program(), options.device, recompute, options.kept_bytes};
  auto node = WorkerNode::make(*identity, std::move(node_options), *log);
  if (!node) return complain(node.error());
  signalled_node = node->get();
  struct sigaction action {};
  action.sa_handler = on_leave_signal;
  for (int signal : {SIGINT, SIGTERM}) ::sigaction(signal, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  const int code = (*node)->run();
  signalled_node = nullptr;
  (code == 0 ? std::cout : std::cerr) << "stagecoach: " << (*node)->last_words() << std::endl;
  // A compute thread that hangs in its device cannot be joined: nothing is left to write, so the process ends under it.
  std::cout.flush();
  std::cerr.flush();
  ::_exit(code);
}

}  // namespace stagecoach::app
