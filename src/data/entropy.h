// How predictable a text is from its last tokens alone: the yardstick beside a run's loss.
//
// In:      tokens of a small vocabulary. Out: nats per token.
// Thread:  any; seconds for a gigabyte.
// Why:     a loss below the trigram entropy says that the model learned more than letter statistics.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"
#include "data/shards.h"

namespace stagecoach::data {

/// Empirical entropies, in nats per token.
struct NgramEntropies {
  double unigram = 0;  // H(a)
  double bigram = 0;   // H(b | a)
  double trigram = 0;  // H(c | a b)
};

/// Counts all n-grams of `tokens`, ids in [0, vocab).
///
/// errors: invalid_argument  vocab above 256 (the counts are a dense cube), or fewer than three tokens
base::Result<NgramEntropies> ngram_entropies(std::span<const std::int32_t> tokens, std::int64_t vocab);

/// The same over all tokens of the shards, training and validation.
///
/// errors: as above, and those of TokenShards::copy
base::Result<NgramEntropies> ngram_entropies(const TokenShards& shards);

}  // namespace stagecoach::data
