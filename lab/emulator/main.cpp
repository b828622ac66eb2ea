// lab_emulator: joins network namespaces through an internet of one's choice. lab/README.md says how to ask for one.
//
// In:      --plan FILE [--control PATH] [--seed N]; standard input. Out: "ready" on standard output once all devices are there.
// Exit:    0 when its standard input ends or a signal asks for it; 1 where it could not begin, with the reason.
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>

#include "base/files.h"
#include "lab/emulator/emulator.h"

namespace stagecoach::lab {
namespace {

constexpr std::size_t kPlanBytesMax = 4u << 20;
constexpr int kNiceMost = -20;
constexpr int kKeptMemoryBytes = 512 << 20;

int refuse(const std::string& why) {
  std::fprintf(stderr, "lab_emulator: %s\n", why.c_str());
  return 1;
}

constexpr const char* kUsage = "usage: lab_emulator --plan FILE [--control PATH] [--seed N]";

/// Packets that are due come before whatever else this machine computes: without it a busy neighbour is milliseconds of delay.
void come_first() {
  ::prctl(PR_SET_TIMERSLACK, 1);
  sched_param lowest{};
  lowest.sched_priority = 1;
  if (::sched_setscheduler(0, SCHED_RR, &lowest) != 0) ::setpriority(PRIO_PROCESS, 0, kNiceMost);
}

/// A descriptor that turns readable when a signal asks to stop or whoever started us is gone.
int stop_descriptor() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, number);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  const int descriptor = ::signalfd(-1, &signals, SFD_CLOEXEC);
  std::thread([] {
    char byte = 0;
    while (::read(STDIN_FILENO, &byte, 1) > 0) {
    }
    ::kill(::getpid(), SIGTERM);
  }).detach();
  return descriptor;
}

int run(int count, char** words) {
  std::string plan_path;
  Emulator::Options options;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string key = words[i];
    const std::string value = words[i + 1];
    if (key == "--plan") {
      plan_path = value;
    } else if (key == "--control") {
      options.control_path = value;
    } else if (key == "--seed") {
      const auto [end, status] = std::from_chars(value.data(), value.data() + value.size(), options.seed);
      if (status != std::errc() || *end != '\0') return refuse("--seed " + value + ": expected a whole number");
    } else {
      return refuse("unknown option " + key + "; " + kUsage);
    }
  }
  if (count % 2 == 0 || plan_path.empty()) return refuse(kUsage);
  const auto plan = base::read_text_file(plan_path, kPlanBytesMax);
  if (!plan.ok()) return refuse(plan.error().message);

  come_first();
  // Packets come and go at gigabytes a second: giving memory back to the kernel between them costs more than carrying them.
  ::mallopt(M_TRIM_THRESHOLD, kKeptMemoryBytes);
  ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
  const int stop = stop_descriptor();
  auto emulator = Emulator::start(plan.value(), options);
  if (!emulator.ok()) return refuse(emulator.error().message);
  std::puts("ready");
  std::fflush(stdout);
  (*emulator)->run(stop);
  return 0;
}

}  // namespace
}  // namespace stagecoach::lab

int main(int count, char** words) { return stagecoach::lab::run(count, words); }
