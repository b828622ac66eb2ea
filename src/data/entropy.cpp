#include "data/entropy.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::int64_t kVocabDenseMax = 256;
constexpr std::int64_t kBlockTokens = 1 << 16;

/// Counts of one, two and three tokens in a row, over a stream that comes in pieces.
class NgramCounter {
 public:
  explicit NgramCounter(std::size_t vocab)
      : vocab_(vocab), one_(vocab), two_(vocab * vocab), three_(vocab * vocab * vocab) {}

  void add(std::span<const std::int32_t> tokens) {
    for (const std::int32_t token : tokens) {
      CHECK(token >= 0 && static_cast<std::size_t>(token) < vocab_, "tokens lie inside their vocabulary");
      const auto c = static_cast<std::size_t>(token);
      ++one_[c];
      if (seen_ >= 1) ++two_[last_ * vocab_ + c];
      if (seen_ >= 2) ++three_[(before_ * vocab_ + last_) * vocab_ + c];
      before_ = last_;
      last_ = c;
      ++seen_;
    }
  }

  NgramEntropies entropies() const {
    const double one = joint(one_), two = joint(two_), three = joint(three_);
    // The chain rule: H(b | a) = H(a b) − H(a).
    return {one, two - one, three - two};
  }

 private:
  static double joint(const std::vector<std::uint64_t>& counts) {
    double total = 0, weighted = 0;
    for (const std::uint64_t count : counts) {
      if (count == 0) continue;
      const auto n = static_cast<double>(count);
      total += n;
      weighted += n * std::log(n);
    }
    return std::log(total) - weighted / total;
  }

  std::size_t vocab_;
  std::vector<std::uint64_t> one_, two_, three_;
  std::size_t last_ = 0, before_ = 0;
  std::uint64_t seen_ = 0;
};

Result<void> check_countable(std::int64_t tokens, std::int64_t vocab) {
  if (vocab > kVocabDenseMax) {
    return Error{ErrorCode::invalid_argument, "n-gram entropies are counted for vocabularies up to " +
                                                  std::to_string(kVocabDenseMax) + ", and this one has " +
                                                  std::to_string(vocab)};
  }
  if (tokens < 3) return Error{ErrorCode::invalid_argument, "n-gram entropies need at least three tokens"};
  return {};
}

}  // namespace

Result<NgramEntropies> ngram_entropies(std::span<const std::int32_t> tokens, std::int64_t vocab) {
  RETURN_IF_ERROR(check_countable(static_cast<std::int64_t>(tokens.size()), vocab));
  NgramCounter counter(static_cast<std::size_t>(vocab));
  counter.add(tokens);
  return counter.entropies();
}

Result<NgramEntropies> ngram_entropies(const TokenShards& shards) {
  RETURN_IF_ERROR(check_countable(shards.tokens(), shards.manifest().vocab));
  NgramCounter counter(static_cast<std::size_t>(shards.manifest().vocab));
  std::vector<std::int32_t> block;
  for (std::int64_t first = 0; first < shards.tokens(); first += kBlockTokens) {
    block.resize(static_cast<std::size_t>(std::min(kBlockTokens, shards.tokens() - first)));
    RETURN_IF_ERROR(shards.copy(first, block));
    counter.add(block);
  }
  return counter.entropies();
}

}  // namespace stagecoach::data
