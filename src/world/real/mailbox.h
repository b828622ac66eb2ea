// Mailbox and Wakeup: how the other threads hand results to the loop.
//
// In:      values from any thread. Out: the same values on the loop thread, in the order they were posted; a readable descriptor.
// Thread:  post() any, take() loop.
// Why:     the one place where two threads meet. What can wait here is bounded by what the loop has asked for: every value answers
//          a request, and brains bound their requests.
#pragma once

#include <mutex>
#include <utility>
#include <vector>

namespace stagecoach::world::real {

/// An eventfd that makes poll(2) return.
class Wakeup {
 public:
  Wakeup();
  ~Wakeup();
  Wakeup(const Wakeup&) = delete;
  Wakeup& operator=(const Wakeup&) = delete;

  int descriptor() const { return descriptor_; }
  /// thread: any; also from a signal handler
  void ring() const;
  void clear() const;

 private:
  int descriptor_ = -1;
};

template <class T>
class Mailbox {
 public:
  /// owns: the wakeup outlives the mailbox.
  explicit Mailbox(const Wakeup& wakeup) : wakeup_(wakeup) {}

  void post(T value) {
    {
      std::lock_guard lock(mutex_);
      values_.push_back(std::move(value));
    }
    wakeup_.ring();
  }
  std::vector<T> take() {
    std::lock_guard lock(mutex_);
    return std::exchange(values_, {});
  }

 private:
  const Wakeup& wakeup_;
  std::mutex mutex_;
  std::vector<T> values_;
};

}  // namespace stagecoach::world::real
