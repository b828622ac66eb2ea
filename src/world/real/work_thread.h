// WorkThread: one thread that does what it is given, in order: the compute thread of a device, the disk thread of a process.
//
// In:      closures. Out: whatever they post into a mailbox.
// Thread:  post() loop; the closures run on the thread.
// Why:     device work and disk writes wait; the loop never does.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace stagecoach::world::real {

/// A thread on which SIGINT and SIGTERM do not land: they are for the main thread, which may be waiting for them.
std::thread start_quiet_thread(std::function<void()> body);

class WorkThread {
 public:
  /// `name` is what tools show: at most 15 characters.
  explicit WorkThread(std::string name);
  /// Finishes what was given, then ends.
  ~WorkThread();
  WorkThread(const WorkThread&) = delete;
  WorkThread& operator=(const WorkThread&) = delete;

  /// Whoever posts bounds how much waits: brains do (a device two deep, one write at a time).
  void post(std::function<void()> work);

 private:
  void run();

  std::string name_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> queue_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace stagecoach::world::real
