#include "data/corpus.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "data/test_directory.h"

namespace stagecoach::data {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class CorpusTest : public DirectoryTest {};

TEST_F(CorpusTest, TheBuiltinTextIsTheWholeBook) {
  // Claim: one verse a line, 31,102 verses (the King James count), first and last where they belong.
  const auto text = builtin_corpus_text();
  if (!text.ok() && text.error().code == base::ErrorCode::not_found) GTEST_SKIP() << text.error().message;
  ASSERT_TRUE(text.ok()) << text.error().message;
  EXPECT_EQ(std::count(text->begin(), text->end(), '\n'), 31'102);
  EXPECT_THAT(*text, StartsWith("Ge1:1 In the beginning God created the heaven and the earth.\n"));
  EXPECT_TRUE(text->ends_with("The grace of our Lord Jesus Christ be with you all. Amen.\n"));
}

TEST_F(CorpusTest, AMissingProgramNamesThePackage) {
  // Claim: the operator learns what to install and what to do instead.
  const auto text = builtin_corpus_text("no-such-program-of-stagecoach");
  ASSERT_FALSE(text.ok());
  EXPECT_EQ(text.error().code, base::ErrorCode::not_found);
  EXPECT_THAT(text.error().message, HasSubstr("apt-get install bible-kjv"));
  EXPECT_THAT(text.error().message, HasSubstr("text files of your own"));
}

TEST_F(CorpusTest, AProgramThatFailsOrPrintsSomethingElseIsNotACorpus) {
  // Claim: neither a failing program nor a short output is taken for the text.
  EXPECT_EQ(builtin_corpus_text("false").error().code, base::ErrorCode::corrupt);
  EXPECT_EQ(builtin_corpus_text("echo").error().code, base::ErrorCode::corrupt);
}

}  // namespace
}  // namespace stagecoach::data
