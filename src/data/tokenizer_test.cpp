#include "data/tokenizer.h"

#include <gtest/gtest.h>

namespace stagecoach::data {
namespace {

TEST(ByteTokenizerTest, EveryByteIsItsOwnToken) {
  // Claim: all 256 bytes, zero and those above 127 included, become their value and come back.
  std::string text;
  for (int i = 0; i < 256; ++i) text.push_back(static_cast<char>(i));
  const auto tokenizer = make_byte_tokenizer();
  const auto tokens = *tokenizer->encode(text);
  ASSERT_EQ(tokens.size(), 256u);
  for (std::int32_t i = 0; i < 256; ++i) EXPECT_EQ(tokens[static_cast<std::size_t>(i)], i);
  EXPECT_EQ(*tokenizer->decode(tokens), text);
  EXPECT_EQ(tokenizer->vocab(), 256);
}

TEST(ByteTokenizerTest, ATokenOfAnotherVocabularyIsRefused) {
  // Claim: ids outside [0, 256) are an error, not a truncated byte.
  const auto tokenizer = make_byte_tokenizer();
  for (const std::int32_t token : {-1, 256}) {
    EXPECT_EQ(tokenizer->decode(std::vector<std::int32_t>{65, token}).error().code, base::ErrorCode::invalid_argument);
  }
}

TEST(TokenizerTest, TheNameOpensTheTokenizerOfThatId) {
  // Claim: what id() says is what open_tokenizer takes, and an unknown name is told which there are.
  const auto opened = open_tokenizer("byte-256");
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(opened.value()->id(), make_byte_tokenizer()->id());
  // printf byte-256 | sha256sum
  EXPECT_EQ(opened.value()->id().hash.hex(), "0350a668f02cc962f9eb21f490140d989ed7cd8f7c2858ab47ba2a158b035be4");
  const auto unknown = open_tokenizer("words");
  ASSERT_FALSE(unknown.ok());
  EXPECT_NE(unknown.error().message.find("byte-256"), std::string::npos);
}

}  // namespace
}  // namespace stagecoach::data
