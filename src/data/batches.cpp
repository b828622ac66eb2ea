#include "data/batches.h"

#include <algorithm>
#include <bit>
#include <string>
#include <vector>

#include "base/prng.h"

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Payload;
using base::Result;

// Four rounds make a pseudorandom permutation of large domains (Luby, Rackoff 1988); the small halves here need more.
constexpr std::uint64_t kRounds = 8;

/// Windows of S inputs whose last label still lies inside `tokens`.
std::int64_t windows_in(std::int64_t tokens, std::int64_t window) {
  return tokens > window ? (tokens - 1) / window : 0;
}

}  // namespace

Result<BatchCutter> BatchCutter::make(TokenShards shards, const model::BatchConfig& batch, std::int64_t model_vocab) {
  CHECK(batch.sequences > 0 && batch.tokens > 0 && batch.microbatches > 0 && batch.eval_microbatches >= 0,
        "a batch config is checked before data are cut by it");
  const ShardManifest& manifest = shards.manifest();
  if (manifest.vocab != model_vocab) {
    return Error{ErrorCode::mismatch, "the token shards have a vocabulary of " + std::to_string(manifest.vocab) + " (" +
                                          manifest.tokenizer.name + ") and the model one of " +
                                          std::to_string(model_vocab)};
  }
  if (windows_in(manifest.train_tokens, batch.tokens) < 1 || windows_in(manifest.validation_tokens, batch.tokens) < 1) {
    return Error{ErrorCode::invalid_argument,
                 "the corpus is too small: sequences of " + std::to_string(batch.tokens) + " tokens need at least " +
                     std::to_string(batch.tokens + 1) + " tokens to train on and as many held out, and it has " +
                     std::to_string(manifest.train_tokens) + " and " + std::to_string(manifest.validation_tokens) +
                     ": give more text or shorter sequences"};
  }
  return BatchCutter(std::move(shards), batch);
}

Result<Payload> BatchCutter::tokens_of(base::MicrobatchId id) const {
  const auto sequences = static_cast<std::uint64_t>(batch_.sequences);
  const auto windows = static_cast<std::uint64_t>(train_windows_);
  return cut([&](std::uint64_t k) {
    const std::uint64_t sequence = id.value() * sequences + k;
    return static_cast<std::int64_t>(permutation_.at(sequence / windows, sequence % windows)) * batch_.tokens;
  });
}

Result<Payload> BatchCutter::validation_tokens(std::int64_t index) const {
  CHECK(index >= 0 && index < batch_.eval_microbatches, "a validation microbatch is one of the V of the config");
  const std::int64_t sequences = batch_.sequences * batch_.eval_microbatches;
  return cut([&](std::uint64_t k) {
    const std::int64_t sequence = index * batch_.sequences + static_cast<std::int64_t>(k);
    const std::int64_t window = sequence * validation_windows_ / sequences;
    return shards_.manifest().train_tokens + window * batch_.tokens;
  });
}

BatchCutter::BatchCutter(TokenShards shards, const model::BatchConfig& batch)
    : shards_(std::move(shards)),
      batch_(batch),
      train_windows_(windows_in(shards_.manifest().train_tokens, batch.tokens)),
      validation_windows_(windows_in(shards_.manifest().validation_tokens, batch.tokens)),
      permutation_(batch.data_seed, static_cast<std::uint64_t>(train_windows_)) {}

template <class StartOf>
Result<Payload> BatchCutter::cut(StartOf start_of) const {
  std::vector<std::int32_t> row(static_cast<std::size_t>(batch_.tokens + 1));
  base::ByteWriter out;
  for (std::uint64_t k = 0; k < static_cast<std::uint64_t>(batch_.sequences); ++k) {
    RETURN_IF_ERROR(shards_.copy(start_of(k), row));
    for (const std::int32_t token : row) out.u32(static_cast<std::uint32_t>(token));
  }
  return base::make_payload(out.take());
}

base::MicrobatchId microbatch_id(const model::BatchConfig& batch, base::Step step, base::MicrobatchIndex index) {
  CHECK(step.value() >= 1 && index.value() < static_cast<std::uint64_t>(batch.microbatches),
        "steps count from 1 and hold M microbatches");
  return base::MicrobatchId((step.value() - 1) * static_cast<std::uint64_t>(batch.microbatches) + index.value());
}

WindowPermutation::WindowPermutation(std::uint64_t seed, std::uint64_t count)
    : seed_(seed), count_(count), half_bits_(std::max(1, (static_cast<int>(std::bit_width(count - 1)) + 1) / 2)) {
  CHECK(count >= 1, "a permutation has something to permute");
}

std::uint64_t WindowPermutation::at(std::uint64_t epoch, std::uint64_t place) const {
  CHECK(place < count_, "a place lies inside the permutation");
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  const std::uint64_t key = base::mix64(seed_, epoch);
  do {
    std::uint64_t left = place >> half_bits_;
    std::uint64_t right = place & mask;
    for (std::uint64_t round = 0; round < kRounds; ++round) {
      const std::uint64_t next = left ^ (base::mix64(base::mix64(key, round), right) & mask);
      left = right;
      right = next;
    }
    place = left << half_bits_ | right;
  } while (place >= count_);
  return place;
}

}  // namespace stagecoach::data
