#include "data/trained_tokenizers.h"

#include <gmock/gmock.h>

#include "data/corpus.h"
#include "data/python_child.h"
#include "data/shard_build.h"
#include "data/shards.h"
#include "data/test_directory.h"
#include "data/test_lines.h"
#include "digest/digest.h"

namespace stagecoach::data {
namespace {

using base::ErrorCode;
using ::testing::AllOf;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

constexpr int kVocab = 400;

/// A small model of the King James text, trained once.
const std::string& model_bytes() {
  static const std::string bytes = [] {
    std::string model;
    const auto text = builtin_corpus_text();
    if (!text.ok()) return model;
    Lines sentences(text->substr(0, 300'000));
    const auto trained = sentencepiece::SentencePieceTrainer::Train(
        std::unordered_map<std::string, std::string>{
            {"vocab_size", std::to_string(kVocab)}, {"model_type", "bpe"}, {"minloglevel", "2"}, {"num_threads", "1"}},
        &sentences, &model);
    EXPECT_TRUE(trained.ok()) << trained.ToString();
    return model;
  }();
  return bytes;
}

class SentencePieceTest : public DirectoryTest {
 protected:
  void SetUp() override {
    DirectoryTest::SetUp();
    if (model_bytes().empty()) GTEST_SKIP() << "the text to train on is not installed: apt-get install bible-kjv";
    file_ = directory_ / "small.model";
    overwrite(file_, model_bytes());
    auto opened = open_tokenizer(file_.string());
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    tokenizer_ = std::move(*opened);
  }
  fs::path file_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(SentencePieceTest, TheModelsTextComesBack) {
  // Claim: the ids decode to the text, lie in the vocabulary, and are those of the library asked directly for each text
  // alone.
  const std::string a = "In the beginning God created the heaven and the earth.",
                    b = "And God said, Let there be light";
  const std::string_view texts[] = {a, "", b};
  const auto encoded = tokenizer_->encode(texts);
  ASSERT_TRUE(encoded.ok());
  ASSERT_EQ(encoded->ends.size(), 3u);
  EXPECT_EQ(encoded->ends[0], encoded->ends[1]);
  const std::span ids(encoded->ids);
  EXPECT_EQ(*tokenizer_->decode(ids.first(encoded->ends[0])), a);
  EXPECT_EQ(*tokenizer_->decode(ids.subspan(encoded->ends[1])), b);
  EXPECT_EQ(*tokenizer_->encode(b), std::vector<std::int32_t>(ids.begin() + encoded->ends[1], ids.end()));
  EXPECT_LT(encoded->ids.size(), a.size() / 1.5);
  EXPECT_EQ(tokenizer_->vocab(), kVocab);
  for (const std::int32_t id : ids) EXPECT_TRUE(id >= 0 && id < kVocab);
  for (const std::int32_t id : {-1, kVocab})
    EXPECT_EQ(tokenizer_->decode(std::vector<std::int32_t>{id}).error().code, ErrorCode::invalid_argument);
}

TEST_F(SentencePieceTest, ItIsKnownByItsFile) {
  // Claim: id, the end of a document and the spelling of tokens come from the model.
  EXPECT_EQ(tokenizer_->id(), (TokenizerId{"sentencepiece", digest::sha256(model_bytes())}));
  EXPECT_EQ(tokenizer_->end_of_document(), 2) << "</s>, by the trainer's defaults";
  EXPECT_EQ(tokenizer_->id_of("</s>"), 2);
  EXPECT_EQ(tokenizer_->id_of("no such piece"), std::nullopt);
  EXPECT_EQ((*tokenizer_->another())->id(), tokenizer_->id());
}

TEST_F(SentencePieceTest, ShardsOfItHoldItsTokensAndItsFile) {
  // Claim: documents are the library's ids with </s> behind them; the model lies beside them; one that is not UTF-8 is
  // broken.
  overwrite(directory_ / "in.jsonl", "{\"text\":\"And God said\"}\n{\"text\":\"Let there be light\"}\n");
  BuildPlan plan;
  plan.inputs = {*input_of((directory_ / "in.jsonl").string(), {})};
  plan.end_of_document = tokenizer_->end_of_document();
  plan.tokenizer_file = file_;
  const auto built = build_in(directory_ / "out", plan, *tokenizer_);
  ASSERT_TRUE(built.ok()) << built.error().message;
  EXPECT_EQ(*base::read_text_file(directory_ / "out" / "tokenizer.model", kTokenizerBytesMax), model_bytes());
  EXPECT_EQ(tokenizer_file_in(directory_ / "out"), directory_ / "out" / "tokenizer.model");
  auto expected = *tokenizer_->encode("And God said");
  expected.push_back(2);
  const auto second = *tokenizer_->encode("Let there be light");
  expected.insert(expected.end(), second.begin(), second.end());
  expected.push_back(2);
  const auto shards = TokenShards::open(directory_ / "out", {.model_vocab = kVocab, .verify_hashes = true});
  ASSERT_TRUE(shards.ok());
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(shards->tokens()));
  ASSERT_TRUE(shards->copy(0, tokens).ok());
  EXPECT_EQ(tokens, expected);
  overwrite(directory_ / "bad.txt", "good and \xff bad");
  plan.inputs = {*input_of((directory_ / "bad.txt").string(), {})};
  EXPECT_THAT(build_in(directory_ / "bad", plan, *tokenizer_).error().message,
              AllOf(HasSubstr("bad.txt (byte 9)"), HasSubstr("not UTF-8")));
}

TEST_F(SentencePieceTest, WhatIsNoModelIsRefused) {
  // Claim: an empty, a damaged and a missing file are errors with words.
  overwrite(directory_ / "empty.model", "");
  overwrite(directory_ / "text.model", "this is a text and not a model at all");
  EXPECT_EQ(open_tokenizer((directory_ / "empty.model").string()).error().code, ErrorCode::corrupt);
  EXPECT_THAT(open_tokenizer((directory_ / "text.model").string()).error().message,
              HasSubstr("not a SentencePiece model"));
  EXPECT_EQ(open_tokenizer((directory_ / "none.model").string()).error().code, ErrorCode::not_found);
}

class PythonTest : public DirectoryTest {};

TEST_F(PythonTest, WithoutPythonTheUserLearnsWhatToDo) {
  // Claim: no interpreter named, one that is not there, and one that is none at all are told apart.
  overwrite(directory_ / "tokenizer.json", "{}");
  const std::string file = (directory_ / "tokenizer.json").string();
  EXPECT_THAT(open_tokenizer(file).error().message, HasSubstr("--python"));
  EXPECT_THAT(open_tokenizer(file, {"/no/such/python"}).error().message,
              AllOf(HasSubstr("/no/such/python"), HasSubstr("--python")));
  EXPECT_EQ(open_tokenizer(file, {"true"}).error().code, ErrorCode::internal);
  EXPECT_THAT(open_tokenizer(file, {"echo"}).error().message, HasSubstr("not an answer"));
  EXPECT_EQ(open_tokenizer((directory_ / "none.json").string(), {"true"}).error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace stagecoach::data
