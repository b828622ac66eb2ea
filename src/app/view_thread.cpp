#include "app/view_thread.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "world/real/work_thread.h"

namespace stagecoach::app {

struct ViewThread::Shared {
  explicit Shared(TerminalView::Options options) : view(options), live(view.live()) {}

  TerminalView view;  // the thread's
  const bool live;

  std::mutex mutex;  // of all below
  std::condition_variable changed;
  std::deque<std::string> lines;
  std::size_t lines_dropped = 0;
  std::optional<observe::RunStatus> newest;
  bool ending = false;
  bool ended = false;
};

ViewThread::ViewThread(TerminalView::Options options)
    : shared_(std::make_shared<Shared>(options)),
      plain_(options.print_every),
      thread_(world::real::start_quiet_thread([shared = shared_] { run(*shared); })) {}

ViewThread::~ViewThread() { close(base::Duration()); }

void ViewThread::show(const observe::RunStatus& status) {
  if (!shared_->live) {
    for (std::string& line : plain_.lines(status)) say(std::move(line));
    return;
  }
  {
    std::lock_guard lock(shared_->mutex);
    shared_->newest = status;
  }
  shared_->changed.notify_all();
}

void ViewThread::say(std::string line) {
  {
    std::lock_guard lock(shared_->mutex);
    shared_->lines.push_back(std::move(line));
    if (shared_->lines.size() > kLinesMax) {
      shared_->lines.pop_front();
      ++shared_->lines_dropped;
    }
  }
  shared_->changed.notify_all();
}

void ViewThread::close(base::Duration patience) {
  if (!thread_.joinable()) return;
  std::unique_lock lock(shared_->mutex);
  shared_->ending = true;
  shared_->changed.notify_all();
  const bool ended = shared_->changed.wait_for(lock, std::chrono::nanoseconds(patience.ns()), [this] { return shared_->ended; });
  lock.unlock();
  if (ended) thread_.join();
  else thread_.detach();
}

void ViewThread::run(Shared& shared) {
  std::unique_lock lock(shared.mutex);
  for (;;) {
    shared.changed.wait(lock, [&] { return shared.ending || !shared.lines.empty() || shared.newest; });
    auto lines = std::exchange(shared.lines, {});
    const std::size_t dropped = std::exchange(shared.lines_dropped, 0);
    const auto status = std::exchange(shared.newest, std::nullopt);
    const bool last = lines.empty() && dropped == 0 && !status;
    lock.unlock();
    if (dropped > 0) shared.view.say("… " + std::to_string(dropped) + " lines were not shown: nobody read them in time");
    for (const std::string& line : lines) shared.view.say(line);
    if (status) shared.view.show(*status);
    if (last) shared.view.close();
    lock.lock();
    if (!last) continue;
    shared.ended = true;
    shared.changed.notify_all();
    return;
  }
}

}  // namespace stagecoach::app
