// Cuts microbatches out of token shards, each from its id alone.
//
// In:      shards, batch sizes, a seed; then an id.
// Out:     int32 [B, S + 1]: inputs are columns 0 … S−1, labels are columns 1 … S.
// Thread:  any; immutable.
// Why:     a microbatch must be the same bytes whoever cuts it, now or after a restart, without a shared table.
//
// The training part is a row of windows of S tokens (and the one after them, the last label). Sequence q of the run
// (microbatch id times B, plus its place) is window permutation(epoch q / W, place q mod W) of the W windows: an epoch
// shows each window once.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/result.h"
#include "data/shards.h"
#include "model/config.h"

namespace stagecoach::data {

/// A seeded bijection of [0, count) for each epoch, computed without a table: a Feistel network over the next even
/// power of two, walked until it lands inside (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002,
/// section 3.3, "cycle-walking").
class WindowPermutation {
 public:
  /// `count` ≥ 1.
  WindowPermutation(std::uint64_t seed, std::uint64_t count);
  /// Where `place` < count goes in `epoch`.
  std::uint64_t at(std::uint64_t epoch, std::uint64_t place) const;

 private:
  std::uint64_t seed_;
  std::uint64_t count_;
  int half_bits_;  // 4 ^ half_bits_ ≥ count_, so a walk takes less than four turns on average
};

/// The id of microbatch `index` of step `step`: M consecutive ones a step, from 0.
base::MicrobatchId microbatch_id(const model::BatchConfig& batch, base::Step step, base::MicrobatchIndex index);

class BatchCutter {
 public:
  /// errors: invalid_argument  the corpus is too small for one training and one validation window of S + 1
  ///         mismatch          the shards' vocabulary is not `model_vocab`
  static base::Result<BatchCutter> make(TokenShards shards, const model::BatchConfig& batch, std::int64_t model_vocab);

  /// A training microbatch.
  ///
  /// shapes: int32 [B, S + 1], row-major, little-endian
  /// errors: corrupt  a shard was damaged after it was built
  base::Result<base::Payload> tokens_of(base::MicrobatchId id) const;

  /// Validation microbatch `index` < V: windows spread evenly over the held-out part, the same at each evaluation.
  ///
  /// shapes, errors: as tokens_of
  base::Result<base::Payload> validation_tokens(std::int64_t index) const;

  std::int64_t train_windows() const { return train_windows_; }
  std::int64_t validation_windows() const { return validation_windows_; }
  const TokenShards& shards() const { return shards_; }

 private:
  BatchCutter(TokenShards shards, const model::BatchConfig& batch);
  template <class StartOf>
  base::Result<base::Payload> cut(StartOf start_of) const;

  TokenShards shards_;
  model::BatchConfig batch_;
  std::int64_t train_windows_;
  std::int64_t validation_windows_;
  WindowPermutation permutation_;
};

}  // namespace stagecoach::data
