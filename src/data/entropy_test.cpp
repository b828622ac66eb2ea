#include "data/entropy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/prng.h"
#include "data/corpus.h"
#include "data/test_directory.h"

namespace stagecoach::data {
namespace {

class EntropyTest : public DirectoryTest {};

TEST_F(EntropyTest, KnownDistributionsHaveTheirEntropies) {
  // Claim: abcabc… is uniform over three letters, and each follows from the one before; a single letter has none at
  // all.
  std::vector<std::int32_t> cycle, constant;
  for (std::int32_t i = 0; i < 3000; ++i) {
    cycle.push_back(i % 3);
    constant.push_back(7);
  }
  const auto of_cycle = ngram_entropies(cycle, 3);
  ASSERT_TRUE(of_cycle.ok());
  EXPECT_NEAR(of_cycle->unigram, std::log(3.0), 1e-6);
  EXPECT_NEAR(of_cycle->bigram, 0, 1e-6);
  EXPECT_NEAR(of_cycle->trigram, 0, 1e-6);
  const auto of_constant = ngram_entropies(constant, 8);
  EXPECT_NEAR(of_constant->unigram, 0, 1e-12);
  EXPECT_NEAR(of_constant->trigram, 0, 1e-12);
}

TEST_F(EntropyTest, ASumOfTwoThatOnlyBothPredictIsSeenAtTheTrigram) {
  // Claim: where c = a xor b of independent bits, one token before says nothing (ln 2) and two say all (0).
  base::Prng prng(3);
  std::vector<std::int32_t> tokens;
  for (int i = 0; i < 100'000; ++i) {
    const auto a = static_cast<std::int32_t>(prng.below(2)), b = static_cast<std::int32_t>(prng.below(2));
    tokens.insert(tokens.end(), {a, b + 2, (a ^ b) + 4});
  }
  const auto entropies = ngram_entropies(tokens, 6);
  ASSERT_TRUE(entropies.ok());
  EXPECT_NEAR(entropies->unigram, std::log(6.0), 1e-3);
  EXPECT_NEAR(entropies->bigram, std::log(2.0), 1e-3);
  EXPECT_NEAR(entropies->trigram, std::log(2.0) * 2 / 3, 1e-3);
}

TEST_F(EntropyTest, TheBuiltinTextHasThePublishedEntropies) {
  // Claim: over the King James text 3.150 / 2.314 / 1.732 nats a byte; all digits below come from a count in Python.
  const auto text = builtin_corpus_text();
  if (!text.ok() && text.error().code == base::ErrorCode::not_found) GTEST_SKIP() << text.error().message;
  const auto built = build_shards(directory_, *text, *make_byte_tokenizer());
  ASSERT_TRUE(built.ok());
  const auto shards = TokenShards::open(built->directory, {.model_vocab = 256});
  ASSERT_TRUE(shards.ok());
  const auto entropies = ngram_entropies(*shards);
  ASSERT_TRUE(entropies.ok());
  EXPECT_NEAR(entropies->unigram, 3.1500681478674037, 1e-9);
  EXPECT_NEAR(entropies->bigram, 2.313657337352926, 1e-9);
  EXPECT_NEAR(entropies->trigram, 1.7324441596356328, 1e-9);
}

TEST_F(EntropyTest, WhatCannotBeCountedIsAnError) {
  // Claim: large vocabularies and two tokens are refused instead of filling the memory or dividing by zero.
  EXPECT_FALSE(ngram_entropies(std::vector<std::int32_t>{1, 2, 3}, 257).ok());
  EXPECT_FALSE(ngram_entropies(std::vector<std::int32_t>{1, 2}, 256).ok());
}

}  // namespace
}  // namespace stagecoach::data
