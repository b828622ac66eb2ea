#include "data/batches.h"

#include <gmock/gmock.h>

#include <array>
#include <cstring>
#include <set>
#include <utility>

#include "base/prng.h"
#include "data/test_directory.h"

namespace stagecoach::data {
namespace {

using base::ErrorCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::uint64_t> whole(std::uint64_t seed, std::uint64_t count, std::uint64_t epoch) {
  const WindowPermutation permutation(seed, count);
  std::vector<std::uint64_t> places;
  for (std::uint64_t place = 0; place < count; ++place) places.push_back(permutation.at(epoch, place));
  return places;
}

TEST(WindowPermutationTest, AgreesWithAnIndependentImplementation) {
  // Claim: the numbers of a second implementation, written in Python from docs/formats/shards.md: data order is part of
  // the format.
  EXPECT_THAT(whole(1, 10, 0), ElementsAre(9, 2, 7, 3, 0, 6, 5, 1, 4, 8));
  EXPECT_THAT(whole(1, 10, 1), ElementsAre(3, 9, 2, 6, 0, 1, 4, 8, 5, 7));
  EXPECT_THAT(whole(7, 10, 0), ElementsAre(7, 9, 6, 4, 0, 3, 2, 1, 5, 8));
  const WindowPermutation permutation(1, 32'690);
  EXPECT_THAT((std::vector{permutation.at(3, 0), permutation.at(3, 1), permutation.at(3, 2), permutation.at(3, 3)}),
              ElementsAre(18'380, 23'130, 23'184, 25'346));
}

TEST(WindowPermutationTest, EachPlaceIsTakenOnce) {
  // Claim: a bijection of [0, count) for every count up to 300, round powers of four, and random large ones, seeds and
  // epochs.
  base::Prng prng(1);
  std::vector<std::uint64_t> counts;
  for (std::uint64_t count = 1; count <= 300; ++count) counts.push_back(count);
  for (const std::uint64_t count : {1023, 1024, 1025, 4095, 4096, 4097, 65'537}) counts.push_back(count);
  for (int i = 0; i < 10; ++i) counts.push_back(1 + prng.below(50'000));
  for (const std::uint64_t count : counts) {
    std::vector<bool> taken(count);
    for (const std::uint64_t place : whole(prng.next(), count, prng.below(1000))) {
      ASSERT_LT(place, count);
      ASSERT_FALSE(taken[place]) << "count " << count;
      taken[place] = true;
    }
  }
}

TEST(WindowPermutationTest, PlacesAreSpreadEvenlyOverEpochs) {
  // Claim: over 20,000 epochs each of 100 places is first about equally often. Chi-square with 99 degrees of freedom
  // has mean 99 and standard deviation 14: six of those are allowed.
  std::vector<double> counts(100);
  const WindowPermutation permutation(5, 100);
  for (std::uint64_t epoch = 0; epoch < 20'000; ++epoch) counts[permutation.at(epoch, 0)] += 1;
  double chi_square = 0;
  for (const double count : counts) chi_square += (count - 200) * (count - 200) / 200;
  EXPECT_LT(chi_square, 99 + 6 * 14.1);
  EXPECT_GT(chi_square, 99 - 6 * 14.1);
}

class BatchesTest : public DirectoryTest {
 protected:
  /// Shards of `count` tokens, the i-th being i mod 251: a prime, so that neighbouring windows differ.
  TokenShards shards(std::size_t count, double holdout_fraction) {
    std::string text;
    for (std::size_t i = 0; i < count; ++i) text.push_back(static_cast<char>(i % 251));
    auto built = build_shards(directory_, text, *make_byte_tokenizer(),
                              {.holdout_fraction = holdout_fraction, .tokens_per_shard = 61});
    CHECK(built.ok(), "the test's text makes shards");
    auto opened = TokenShards::open(built->directory, {.model_vocab = 256});
    CHECK(opened.ok(), "the test's shards open");
    return std::move(opened).value();
  }
  static std::vector<std::int32_t> row(const base::Payload& payload, std::int64_t sequence, std::int64_t tokens) {
    std::vector<std::int32_t> values(static_cast<std::size_t>(tokens + 1));
    std::memcpy(values.data(), payload->data() + static_cast<std::size_t>(sequence * (tokens + 1)) * 4,
                values.size() * 4);
    return values;
  }
};

TEST_F(BatchesTest, AMicrobatchIsWhatItsIdSays) {
  // Claim: of 200 tokens 160 are trained on, 19 windows of 8; the first tokens of the sequences are those of the Python
  // implementation, across the end of the first epoch too, and each row is nine tokens in a row.
  const auto cutter = BatchCutter::make(shards(200, 0.2), {.sequences = 2, .tokens = 8}, 256);
  ASSERT_TRUE(cutter.ok());
  EXPECT_EQ(cutter->train_windows(), 19);
  EXPECT_EQ(cutter->validation_windows(), 4);
  const std::pair<std::uint64_t, std::array<std::int32_t, 2>> expected[] = {
      {0, {112, 88}}, {1, {120, 80}}, {9, {8, 56}}, {10, {88, 24}}};
  for (const auto& [id, starts] : expected) {
    auto payload = cutter->tokens_of(base::MicrobatchId(id));
    ASSERT_TRUE(payload.ok());
    ASSERT_EQ((*payload)->size(), 2u * 9 * 4);
    for (std::int64_t k = 0; k < 2; ++k) {
      const auto tokens = row(*payload, k, 8);
      for (std::int32_t i = 0; i < 9; ++i) {
        EXPECT_EQ(tokens[static_cast<std::size_t>(i)], starts[static_cast<std::size_t>(k)] + i);
      }
    }
  }
}

TEST_F(BatchesTest, TwoCuttersCutTheSameBytesAndAnotherSeedOthers) {
  // Claim: determinism from (shards, config, id); the seed matters.
  const model::BatchConfig batch{.sequences = 2, .tokens = 8};
  model::BatchConfig other = batch;
  other.data_seed = 2;
  const auto a = BatchCutter::make(shards(2000, 0.1), batch, 256);
  const auto b = BatchCutter::make(shards(2000, 0.1), batch, 256);
  const auto c = BatchCutter::make(shards(2000, 0.1), other, 256);
  int different = 0;
  for (std::uint64_t id = 0; id < 100; ++id) {
    const auto payload = *a->tokens_of(base::MicrobatchId(id));
    EXPECT_TRUE(base::same_bytes(payload, *b->tokens_of(base::MicrobatchId(id))));
    different += base::same_bytes(payload, *c->tokens_of(base::MicrobatchId(id))) ? 0 : 1;
  }
  EXPECT_GT(different, 90);
}

TEST_F(BatchesTest, AnEpochShowsEachTrainingTokenOnceAndNoHeldOutOne) {
  // Claim: the inputs of one epoch are the first W·S tokens, each once, and no token or label lies in the held-out
  // part. Tokens are told apart by their value: 250 of them, all below 251.
  const std::int64_t tokens = 7;
  const auto cutter =
      BatchCutter::make(shards(250, 0.2), {.sequences = 1, .tokens = tokens, .eval_microbatches = 3}, 256);
  ASSERT_TRUE(cutter.ok());
  ASSERT_EQ(cutter->train_windows(), 28);  // (200 − 1) / 7
  for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
    std::multiset<std::int32_t> inputs;
    for (std::uint64_t i = 0; i < 28; ++i) {
      auto values = row(*cutter->tokens_of(base::MicrobatchId(epoch * 28 + i)), 0, tokens);
      EXPECT_LT(values.back(), 200);
      values.pop_back();
      inputs.insert(values.begin(), values.end());
    }
    EXPECT_EQ(inputs.size(), 196u);
    EXPECT_EQ(std::set(inputs.begin(), inputs.end()).size(), 196u);
    EXPECT_EQ(*inputs.rbegin(), 195);
  }
  // (50 − 1) / 7 = 7 windows from token 200 on; three of them evenly spread: 0, 2, 4.
  for (std::int64_t index = 0; index < 3; ++index) {
    EXPECT_EQ(row(*cutter->validation_tokens(index), 0, tokens).front(), 200 + 2 * index * tokens);
  }
}

TEST_F(BatchesTest, ATooSmallCorpusIsRefused) {
  // Claim: one window in each part is enough (9 and 9 tokens for S = 8), one token less in either is not, and the
  // numbers are named.
  const model::BatchConfig batch{.sequences = 1, .tokens = 8, .eval_microbatches = 1};
  EXPECT_TRUE(BatchCutter::make(shards(18, 0.5), batch, 256).ok());
  const auto small = BatchCutter::make(shards(17, 0.5), batch, 256);  // 9 and 8
  ASSERT_FALSE(small.ok());
  EXPECT_EQ(small.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(small.error().message, HasSubstr("at least 9 tokens to train on"));
  EXPECT_THAT(small.error().message, HasSubstr("9 and 8"));
  EXPECT_EQ(BatchCutter::make(shards(20, 0.6), batch, 256).error().code, ErrorCode::invalid_argument);  // 8 and 12
}

TEST_F(BatchesTest, AnotherVocabularyIsRefused) {
  // Claim: a model of another vocabulary never gets these tokens.
  EXPECT_EQ(BatchCutter::make(shards(200, 0.2), {.tokens = 8}, 512).error().code, ErrorCode::mismatch);
}

TEST(MicrobatchIdTest, IdsRunOnFromStepToStep) {
  // Claim: step 1 begins at 0 and step 3 of M = 8 at 16.
  const model::BatchConfig batch{.microbatches = 8};
  EXPECT_EQ(microbatch_id(batch, base::Step(1), base::MicrobatchIndex(0)).value(), 0u);
  EXPECT_EQ(microbatch_id(batch, base::Step(3), base::MicrobatchIndex(7)).value(), 23u);
}

}  // namespace
}  // namespace stagecoach::data
