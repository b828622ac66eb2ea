#include "world/real/work_thread.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "base/check.h"
#include "world/real/mailbox.h"

namespace stagecoach::world::real {

Wakeup::Wakeup() : descriptor_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  CHECK(descriptor_ >= 0, "an eventfd can be made at the start of a process");
}

Wakeup::~Wakeup() { ::close(descriptor_); }

void Wakeup::ring() const {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(descriptor_, &one, sizeof one);  // full means it is ringing already
}

void Wakeup::clear() const {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto taken = ::read(descriptor_, &count, sizeof count);
}

std::thread start_quiet_thread(std::function<void()> body) {
  sigset_t quiet, before;
  ::sigemptyset(&quiet);
  ::sigaddset(&quiet, SIGINT);
  ::sigaddset(&quiet, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &quiet, &before);  // before the start: a thread inherits its mask
  std::thread thread(std::move(body));
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

WorkThread::WorkThread(std::string name) : name_(std::move(name)), thread_(start_quiet_thread([this] { run(); })) {}

WorkThread::~WorkThread() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
  }
  ready_.notify_one();
  thread_.join();
}

void WorkThread::post(std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
  }
  ready_.notify_one();
}

void WorkThread::run() {
  ::pthread_setname_np(::pthread_self(), name_.c_str());
  for (;;) {
    std::function<void()> work;
    {
      std::unique_lock lock(mutex_);
      ready_.wait(lock, [this] { return ending_ || !queue_.empty(); });
      if (queue_.empty()) return;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    work();
  }
}

}  // namespace stagecoach::world::real
