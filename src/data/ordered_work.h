// One producer, many workers, one consumer, and results in the order in which the work was produced.
//
// In:      three functions. Out: the first error, in that order.
// Thread:  run() consumes on the caller's thread, produces on one of its own and works on one for each worker.
// Why:     everything that depends on the number of threads is here, and what comes out does not.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/result.h"

namespace stagecoach::data {

template <class In, class Out>
class OrderedWork {
 public:
  using Produce = std::function<base::Result<std::optional<In>>()>;  // nothing = the end
  using Work = std::function<base::Result<Out>(In)>;
  using Consume = std::function<base::Result<void>(Out)>;

  /// Runs until the end or the first error: that of the earliest piece, whoever met another one before.
  /// At most two pieces a worker, and two more, are between producer and consumer.
  static base::Result<void> run(const Produce& produce, std::vector<Work> workers, const Consume& consume) {
    CHECK(!workers.empty(), "somebody works");
    OrderedWork self(2 * workers.size() + 2);
    std::vector<std::thread> threads;
    threads.emplace_back([&] { self.produce_all(produce); });
    for (Work& work : workers) threads.emplace_back([&self, &work] { self.work_on(work); });
    const base::Result<void> result = self.consume_all(consume);
    self.stop();
    for (std::thread& thread : threads) thread.join();
    return result;
  }

 private:
  explicit OrderedWork(std::size_t between_max) : between_max_(between_max) {}

  void produce_all(const Produce& produce) {
    for (std::uint64_t number = 0;; ++number) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return stopped_ || number - consumed_ < between_max_; });
        if (stopped_) return;
      }
      auto piece = produce();
      const std::lock_guard lock(mutex_);
      const bool more = piece.ok() && piece->has_value();
      if (more) {
        waiting_.emplace_back(number, std::move(**piece));
      } else {
        end_ = number;
        if (!piece) end_error_ = piece.error();
      }
      changed_.notify_all();
      if (!more) return;
    }
  }

  void work_on(const Work& work) {
    while (true) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopped_ || end_ || !waiting_.empty(); });
      if (stopped_ || waiting_.empty()) return;
      auto [number, piece] = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      auto result = work(std::move(piece));
      lock.lock();
      done_.emplace(number, std::move(result));
      changed_.notify_all();
    }
  }

  base::Result<void> consume_all(const Consume& consume) {
    while (true) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return done_.contains(consumed_) || end_ == consumed_; });
      if (!done_.contains(consumed_)) return end_error_ ? base::Result<void>(*end_error_) : base::Result<void>();
      auto result = std::move(done_.extract(consumed_).mapped());
      lock.unlock();
      if (!result) return result.error();
      RETURN_IF_ERROR(consume(std::move(*result)));
      lock.lock();
      ++consumed_;
      changed_.notify_all();
    }
  }

  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }

  const std::size_t between_max_;
  std::mutex mutex_;  // all below
  std::condition_variable changed_;
  std::deque<std::pair<std::uint64_t, In>> waiting_;
  std::map<std::uint64_t, base::Result<Out>> done_;
  std::uint64_t consumed_ = 0;
  std::optional<std::uint64_t> end_;  // how many pieces there are
  std::optional<base::Error> end_error_;
  bool stopped_ = false;
};

}  // namespace stagecoach::data
