#include "app/local_workers.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string_view>

#include "base/files.h"
#include "link/identity.h"

extern char** environ;

namespace stagecoach::app {

using base::Error;
using base::ErrorCode;
using base::Result;
namespace fs = std::filesystem;

namespace {

/// What a worker printed as the reason of its end; empty where it had no time to.
std::string last_words(const fs::path& output) {
  std::ifstream file(output);
  std::string line, last;
  while (std::getline(file, line))
    if (!line.empty()) last = line;
  constexpr std::string_view kName = "stagecoach: ";
  return last.starts_with(kName) ? last.substr(kName.size()) : last;
}

std::string describe(int status, const fs::path& output) {
  if (WIFSIGNALED(status)) return std::string("its process was ended by signal ") + std::to_string(WTERMSIG(status)) + " (" + ::strsignal(WTERMSIG(status)) + ")";
  const std::string last = last_words(output);
  return "its process ended with status " + std::to_string(WEXITSTATUS(status)) + (last.empty() ? "" : ": " + last);
}

Result<pid_t> spawn(const std::vector<std::string>& arguments, const fs::path& output) {
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&files, 1, output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  ::posix_spawn_file_actions_adddup2(&files, 1, 2);
  // A group of its own: Ctrl-C in the terminal is for the run, which then tells the workers what to do.
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  ::posix_spawnattr_setpgroup(&attributes, 0);
  std::vector<char*> argv;
  for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int failed = ::posix_spawn(&pid, argv[0], &files, &attributes, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&files);
  ::posix_spawnattr_destroy(&attributes);
  if (failed != 0) return Error{ErrorCode::io_error, "a worker process cannot be started: " + std::string(std::strerror(failed))};
  return pid;
}

}  // namespace

Result<LocalWorkers> LocalWorkers::start(const Options& options) {
  // Whoever started us may have left this ignored: the kernel would then forget how workers ended.
  ::signal(SIGCHLD, SIG_DFL);
  LocalWorkers workers;
  // Each alone would take half of what it finds free: together more than there is.
  const std::int64_t kept_bytes =
      options.kept_bytes > 0 ? options.kept_bytes
                             : base::free_memory_bytes() / 2 / static_cast<std::int64_t>(std::max<std::size_t>(options.count, 1));
  for (std::size_t i = 0; i < options.count; ++i) {
    std::string number = std::to_string(i);
    if (number.size() < 2) number.insert(0, "0");
    const fs::path folder = options.run_dir / "workers" / number;
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) return Error{ErrorCode::io_error, "the folder " + folder.string() + " cannot be made: " + error.message()};
    auto identity = link::Identity::load_or_create((folder / "key").string());
    if (!identity) return identity.error();
    auto pid = spawn({options.program, "join", options.link, "--key", (folder / "key").string(), "--log", (folder / "log").string(),
                      "--cache", (options.run_dir / "cache").string(), "--device", options.device, "--recompute", options.recompute,
                      "--kept-bytes", std::to_string(kept_bytes), "--listen", options.listen,
                      "--die-with-parent", std::to_string(::getpid())},
                     folder / "output");
    if (!pid) return pid.error();
    workers.running_.push_back({identity->peer_id(), *pid, folder / "output"});
  }
  return workers;
}

std::vector<std::pair<base::PeerId, std::string>> LocalWorkers::ended() {
  std::vector<std::pair<base::PeerId, std::string>> ended;
  std::erase_if(running_, [&](const Process& process) {
    int status = 0;
    const pid_t waited = ::waitpid(process.pid, &status, WNOHANG);
    if (waited == 0 || (waited < 0 && errno == EINTR)) return false;
    if (waited == process.pid) ended.emplace_back(process.peer, describe(status, process.output));
    else ended.emplace_back(process.peer, "its process is gone and how it ended is not known");
    return true;
  });
  return ended;
}

LocalWorkers::~LocalWorkers() {
  for (int i = 0; i < 40 && !running_.empty(); ++i) {
    if (!ended().empty()) continue;
    const timespec moment{0, 50'000'000};
    ::nanosleep(&moment, nullptr);
  }
  for (const Process& process : running_) {
    ::kill(process.pid, SIGKILL);
    ::waitpid(process.pid, nullptr, 0);
  }
}

}  // namespace stagecoach::app
