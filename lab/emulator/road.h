// Fifo, Road: what one direction between two hosts does to a wire packet.
//
// In:      the time at which a packet arrives, its size, a seeded generator.
// Out:     when it leaves, or why it does not.
// Thread:  any; pure, no clock.
// Why:     these few rules are the whole model of the internet that the lab claims; they are tested without a packet.
#pragma once

#include <cstdint>
#include <optional>

#include "base/prng.h"
#include "base/time.h"

namespace stagecoach::lab {

/// A link of a fixed rate with a queue that drops at its tail. Nothing is stored: it knows when its last bit will have left.
class Fifo {
 public:
  struct Settings {
    std::uint64_t bits_per_s = 0;   // 0 = no limit
    std::uint64_t queue_bytes = 0;  // that may wait; 0 = what the rate carries in 100 ms
  };
  void set(const Settings& settings) { settings_ = settings; }
  const Settings& settings() const { return settings_; }
  bool limits() const { return settings_.bits_per_s != 0; }

  /// When the last bit of a packet of `bytes` that comes at `at` has left; nothing where the queue is full. An empty queue takes any
  /// packet.
  std::optional<base::Instant> enter(base::Instant at, std::size_t bytes);

 private:
  std::uint64_t queue_bytes() const;
  Settings settings_;
  base::Instant free_at_;
  std::uint64_t remainder_ = 0;  // of the division by the rate, so that no rounding adds up
};

enum class Drop : std::uint8_t { none, cut, loss, burst };

/// One ordered pair of hosts: rate, loss, delay. Packets come in the order of time.
class Road {
 public:
  struct Settings {
    Fifo::Settings rate;
    base::Duration delay;
    base::Duration jitter;        // adds 0 to twice this, bell-shaped around it
    bool keep_order = true;       // jitter lets none overtake
    double loss = 0;              // of each packet by itself
    double burst_loss = 0;        // of packets, in bursts (Gilbert, 1960: good and bad state, all lost in the bad one)
    double burst_length = 5;      // packets, mean
    double reorder = 0;           // of packets that are held back, so that later ones overtake
    base::Duration reorder_by = base::Duration::milliseconds(2);
    double duplicate = 0;         // of packets that come twice
    bool cut = false;             // nothing passes
  };
  void set(const Settings& settings);
  const Settings& settings() const { return settings_; }
  Fifo& fifo() { return fifo_; }

  /// Whether a packet is lost on the way, and how.
  Drop lose(base::Prng& dice);
  /// How much jitter the packets of one arrival have.
  base::Duration draw_jitter(base::Prng& dice) const;
  /// When a packet that leaves the queue at `at` reaches the other end.
  base::Instant reach(base::Instant at, base::Duration jitter, base::Prng& dice);
  bool draw_duplicate(base::Prng& dice) const { return settings_.duplicate > 0 && dice.unit() < settings_.duplicate; }

 private:
  Settings settings_;
  Fifo fifo_;
  bool bad_ = false;
  base::Instant last_;
};

}  // namespace stagecoach::lab
