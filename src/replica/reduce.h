// Reduce: one exact, sharded sum of a stage's gradient over its replicas (PROTOCOL B4).
//
// In:      bitmaps, contributions and sums of the members of one view; slices read from our own accumulator.
// Out:     actions for the worker to carry out, in order; in the end the whole sum, shard by shard.
// Thread:  loop. A pure state machine: it never sees a tensor's numbers, only their bytes.
// Why:     it is named by (step, attempt, view) and reads accumulators without writing them, so that it can be thrown away at any
//          moment and begun anew.
//
// The flat gradient is cut into shards; shard k belongs to member k mod R. Every member reads all shards of its accumulator, sends
// each to its owner, the owner adds R contributions and sends the sum to all (reduce-scatter and all-gather). One member alone
// moves nothing: its accumulator is the group's sum.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "replica/bitmap.h"

namespace stagecoach::replica {

/// A shard's slice [first, last) of the flat gradient.
struct Slice {
  std::int64_t first = 0;
  std::int64_t last = 0;
};

/// Shards are at most this long on the wire, so that a reduce never delays a boundary tensor by more than one of them.
inline constexpr std::int64_t kShardBytesMax = 16 << 20;
/// A member owns so many shards at least where none of them would be shorter than that: sums of the first ones travel while parts of the
/// last ones do, so that a line is not idle until the slowest part is here. Shorter ones cost more frames than they save waiting.
inline constexpr std::int64_t kRoundsMin = 4;
inline constexpr std::int64_t kShardBytesMin = 64 << 10;

/// How many shards R members use for sums of so many bytes: a multiple of R.
std::uint64_t shard_count(std::int64_t bytes, std::uint64_t members, std::int64_t shard_bytes_max = kShardBytesMax);
Slice slice_of(std::int64_t elements, std::uint64_t shards, base::ShardIndex shard);

// What the worker must do next.
struct ReadShard { base::ShardIndex shard; Slice slice; };                       // from its accumulator, then shard_read()
struct SendPart { base::PeerId to; base::ShardIndex shard; base::Payload sums; };
struct AddParts { base::ShardIndex shard; std::vector<base::Payload> parts; };   // in this order, then parts_added()
struct SendSum { base::PeerId to; base::ShardIndex shard; base::Payload sums; };
struct Whole {};                                                                 // sums() is complete, or we are alone()
struct Broken { std::string text; };                                             // the books do not add up: attempt + 1
using Action = std::variant<ReadShard, SendPart, AddParts, SendSum, Whole, Broken>;
using Actions = std::vector<Action>;

class Reduce {
 public:
  struct Options {
    std::vector<base::PeerId> members;  // in view order
    base::PeerId self;
    std::int64_t elements = 0;          // 0 = nothing to sum: whole as soon as the bitmaps are complete
    std::int64_t element_bytes = 8;     // of numbers.sums
    std::int64_t shard_bytes_max = kShardBytesMax;
    std::uint64_t bits = 0;             // of a bitmap
    std::uint64_t required = 0;         // the bitmaps are complete when their union has this many bits
  };
  explicit Reduce(Options options);

  /// The bitmap of `member` (ourselves included), which only grows. The reduce starts when those of all members are here, disjoint
  /// and complete.
  Actions bits_from(const base::PeerId& member, const Bitmap& bits);
  Actions shard_read(base::ShardIndex shard, base::Payload sums);
  Actions part_from(const base::PeerId& member, base::ShardIndex shard, base::Payload sums);
  Actions parts_added(base::ShardIndex shard, base::Payload sums);
  Actions sum_from(const base::PeerId& member, base::ShardIndex shard, base::Payload sums);

  bool started() const { return started_; }
  bool whole() const { return whole_; }
  std::uint64_t shards() const { return shards_; }
  /// Contributions and sums that are here: what grows while a reduce moves.
  std::uint64_t taken() const;
  Slice slice(base::ShardIndex shard) const { return slice_of(options_.elements, shards_, shard); }
  /// True for a group of one: its accumulator is the sum, nothing is read, and sums() stays empty.
  bool alone() const { return options_.members.size() == 1; }
  /// The sums by shard; complete when whole().
  const std::map<base::ShardIndex, base::Payload>& sums() const { return sums_; }
  /// Members whose bitmap is not here yet or whose bits are missing, for `status`.
  std::string waiting_for() const;

 private:
  const base::PeerId& owner(base::ShardIndex shard) const;
  bool is_member(const base::PeerId& peer) const;
  Actions start();
  void contribute(const base::PeerId& member, base::ShardIndex shard, base::Payload sums, Actions& out);
  void keep_sum(base::ShardIndex shard, base::Payload sums, Actions& out);

  Options options_;
  std::uint64_t shards_ = 0;
  std::map<base::PeerId, Bitmap> bitmaps_;
  std::map<base::ShardIndex, std::map<base::PeerId, base::Payload>> parts_;
  std::map<base::ShardIndex, base::Payload> sums_;
  bool started_ = false;
  bool whole_ = false;
};

}  // namespace stagecoach::replica
