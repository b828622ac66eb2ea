#include "data/shards.h"

#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bit>
#include <functional>
#include <tuple>

#include "data/document_index.h"
#include "data/test_directory.h"
#include "digest/digest.h"

namespace stagecoach::data {
namespace {

using base::ErrorCode;
using ::testing::HasSubstr;

constexpr std::string_view kText = "the road goes ever on and on";  // 28 bytes

/// Ids from 0 to vocab − 1, one for each byte of the text: makes wide tokens without a trained tokenizer.
class WideTokenizer final : public Tokenizer {
 public:
  explicit WideTokenizer(std::int64_t vocab) : vocab_(vocab) {}
  TokenizerId id() const override { return {"wide", digest::sha256(std::to_string(vocab_))}; }
  std::int64_t vocab() const override { return vocab_; }
  std::optional<std::int32_t> end_of_document() const override { return std::nullopt; }
  bool takes_any_bytes() const override { return true; }
  base::Result<std::unique_ptr<Tokenizer>> another() const override {
    return std::unique_ptr<Tokenizer>(std::make_unique<WideTokenizer>(vocab_));
  }
  using Tokenizer::encode;
  base::Result<Encoded> encode(std::span<const std::string_view> texts) override {
    Encoded out;
    for (const std::string_view text : texts) {
      for (const char c : text)
        out.ids.push_back(static_cast<std::int32_t>(vocab_ - 1 - static_cast<unsigned char>(c)));
      out.ends.push_back(out.ids.size());
    }
    return out;
  }
  base::Result<std::string> decode(std::span<const std::int32_t>) override { return std::string(); }
  std::optional<std::int32_t> id_of(std::string_view) override { return std::nullopt; }

 private:
  std::int64_t vocab_;
};

class ShardsTest : public DirectoryTest {
 protected:
  BuiltShards build(const ShardOptions& options = {.holdout_fraction = 0.25, .tokens_per_shard = 10}) {
    auto built = build_shards(directory_, kText, *make_byte_tokenizer(), options);
    EXPECT_TRUE(built.ok()) << built.error().message;
    return *built;
  }
  /// What open says about the shards of build() after `damage` was done to their folder.
  base::Error error_after(const std::function<void(const std::filesystem::path&)>& damage) {
    const auto built = build();
    damage(built.directory);
    auto opened = TokenShards::open(built.directory, {.model_vocab = 256, .verify_hashes = true});
    EXPECT_FALSE(opened.ok());
    return opened.ok() ? base::Error{} : opened.error();
  }
  static std::string contents(const std::filesystem::path& path) { return *base::read_text_file(path, 1 << 20); }
};

TEST_F(ShardsTest, TheTokensComeBackAcrossShardEdges) {
  // Claim: 28 tokens in shards of 10, 10 and 8 read back from any position to any other.
  auto opened = TokenShards::open(build().directory, {.model_vocab = 256, .verify_hashes = true});
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  EXPECT_EQ(opened->manifest().shards.size(), 3u);
  EXPECT_EQ(opened->manifest().validation_tokens, 7);
  EXPECT_EQ(opened->manifest().train_tokens, 21);
  for (std::size_t first = 0; first < kText.size(); ++first) {
    for (std::size_t last = first; last <= kText.size(); ++last) {
      std::vector<std::int32_t> tokens(last - first);
      ASSERT_TRUE(opened->copy(static_cast<std::int64_t>(first), tokens).ok());
      ASSERT_EQ(*make_byte_tokenizer()->decode(tokens), kText.substr(first, last - first));
    }
  }
}

TEST_F(ShardsTest, WideVocabulariesTakeTwoAndFourBytes) {
  // Claim: 65,536 ids fit two bytes, one more takes four, and both read back.
  const std::pair<std::int64_t, std::int64_t> cases[] = {{256, 1}, {257, 2}, {65'536, 2}, {65'537, 4}};
  for (const auto& [vocab, width] : cases) {
    WideTokenizer tokenizer(vocab);
    auto built = build_shards(directory_, kText, tokenizer, {});
    ASSERT_TRUE(built.ok());
    auto opened = TokenShards::open(built->directory, {.model_vocab = vocab});
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    EXPECT_EQ(opened->manifest().token_bytes, width);
    std::vector<std::int32_t> tokens(kText.size());
    ASSERT_TRUE(opened->copy(0, tokens).ok());
    EXPECT_EQ(tokens, *tokenizer.encode(kText));
  }
}

TEST_F(ShardsTest, TheFilesAreThoseOfTheFormatPage) {
  // Claim: byte for byte the worked example of docs/formats/shards.md, whose hashes come from sha256sum.
  auto built = build_shards(directory_, "stage", *make_byte_tokenizer(), {.holdout_fraction = 0.4});
  ASSERT_TRUE(built.ok());
  const std::string expected = std::string("SCTOKENS\1\0\0\0\1\0\0\0\5\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0", 32) + "stage";
  EXPECT_EQ(contents(built->directory / "shard-00000.tokens"), expected);
  EXPECT_EQ(contents(built->directory / "shard-00000.documents"),
            std::string("SCDOCUMS\1\0\0\0\10\0\0\0", 16) + std::string(24, '\0'));
  EXPECT_EQ(contents(built->directory / "manifest.json"), R"({
  "broken_records": 0,
  "documents": 1,
  "empty_documents": 0,
  "end_of_document": null,
  "format": "stagecoach-shards",
  "holdout_fraction": 0.4,
  "shards": [
    {
      "documents": 1,
      "documents_sha256": "b7b32261d2e8546dd1ce9a51b43097aa111d382d45e55010d81d9a4aaba9faf3",
      "file": "shard-00000.tokens",
      "sha256": "48e3b1ce36cd8fedc5fa5c663e8b43f7c7c43d28e5ff6f9b2d3cc3ce4c4a23e6",
      "tokens": 5
    }
  ],
  "sources": [
    {
      "bytes": 5,
      "format": "text",
      "sha256": "c7ff6dcd94d7161eff5da0585684a8d16fb00090c0f38336d31950819e2f2003"
    }
  ],
  "text_bytes": 5,
  "text_field": "",
  "token_bytes": 1,
  "tokenizer": {
    "name": "byte-256",
    "sha256": "0350a668f02cc962f9eb21f490140d989ed7cd8f7c2858ab47ba2a158b035be4"
  },
  "tokens": 5,
  "tokens_per_shard": 268435456,
  "train_tokens": 3,
  "validation_tokens": 2,
  "version": 2,
  "vocab": 256
}
)");
  auto opened = TokenShards::open(built->directory, {});
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(opened->manifest_hash().hex(), "4c85191d76079e2e31f1d90a623b01c3f27db622dff861b93b4ae601fa292a79");
}

TEST_F(ShardsTest, ShardsWithoutDocumentsAreStillRead) {
  // Claim: version 1 of the manifest, whose worked example this is, is trained on as before; it has no documents to
  // show.
  const auto built = build_shards(directory_, "stage", *make_byte_tokenizer(), {.holdout_fraction = 0.4});
  ASSERT_TRUE(built.ok());
  overwrite(built->directory / "manifest.json", R"({
  "format": "stagecoach-shards",
  "holdout_fraction": 0.4,
  "shards": [
    {
      "file": "shard-00000.tokens",
      "sha256": "48e3b1ce36cd8fedc5fa5c663e8b43f7c7c43d28e5ff6f9b2d3cc3ce4c4a23e6",
      "tokens": 5
    }
  ],
  "source_sha256": "c7ff6dcd94d7161eff5da0585684a8d16fb00090c0f38336d31950819e2f2003",
  "token_bytes": 1,
  "tokenizer": {
    "name": "byte-256",
    "sha256": "0350a668f02cc962f9eb21f490140d989ed7cd8f7c2858ab47ba2a158b035be4"
  },
  "tokens": 5,
  "train_tokens": 3,
  "validation_tokens": 2,
  "version": 1,
  "vocab": 256
}
)");
  const auto opened = TokenShards::open(built->directory, {.model_vocab = 256, .verify_hashes = true});
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  EXPECT_EQ(opened->manifest_hash().hex(), "383b7379250b2dd9de85bbf9b1552673e318936c565980b99037811960120f35");
  EXPECT_EQ(DocumentIndex::open(built->directory, opened->manifest()).error().code, ErrorCode::not_found);
}

TEST_F(ShardsTest, TheSameTextIsNotCutTwice) {
  // Claim: the same inputs reuse the folder untouched, other options or another text make another; nothing unfinished
  // stays.
  const auto first = build();
  const auto written = std::filesystem::last_write_time(first.directory / "manifest.json");
  const auto second = build();
  EXPECT_FALSE(first.reused);
  EXPECT_TRUE(second.reused);
  EXPECT_EQ(first.directory, second.directory);
  EXPECT_EQ(std::filesystem::last_write_time(second.directory / "manifest.json"), written);
  EXPECT_NE(build({.holdout_fraction = 0.5, .tokens_per_shard = 10}).directory, first.directory);
  EXPECT_NE(build_shards(directory_, "another text, another folder", *make_byte_tokenizer(), {})->directory,
            first.directory);
  for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
    EXPECT_NE(entry.path().extension(), ".partial");
  }
}

TEST_F(ShardsTest, OfSeveralBuildersOneBuilds) {
  // Claim: eight processes that need the same shards at once all get them, and exactly one of them wrote.
  constexpr int kBuilders = 8, kBuilt = 10, kReused = 11;
  std::vector<pid_t> children;
  for (int i = 0; i < kBuilders; ++i) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      const auto built = build_shards(directory_, kText, *make_byte_tokenizer(), {.tokens_per_shard = 2});
      const bool whole = built.ok() && TokenShards::open(built->directory, {.verify_hashes = true}).ok();
      ::_exit(!whole ? 1 : built->reused ? kReused : kBuilt);
    }
    children.push_back(child);
  }
  int builders = 0, reusers = 0;
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    builders += WIFEXITED(status) && WEXITSTATUS(status) == kBuilt ? 1 : 0;
    reusers += WIFEXITED(status) && WEXITSTATUS(status) == kReused ? 1 : 0;
  }
  EXPECT_EQ(builders, 1);
  EXPECT_EQ(reusers, kBuilders - 1);
}

TEST_F(ShardsTest, AnUnfinishedBuildIsNotTakenForShards) {
  // Claim: what a killed build left is neither opened nor in the way of the next.
  const auto built = build();
  const auto partial = directory_ / ("." + built.directory.filename().string() + ".partial");
  std::filesystem::rename(built.directory, partial);
  std::filesystem::remove(partial / "manifest.json");
  EXPECT_EQ(TokenShards::open(built.directory, {}).error().code, ErrorCode::not_found);
  EXPECT_EQ(TokenShards::open(partial, {}).error().code, ErrorCode::not_found);
  EXPECT_FALSE(build().reused);
  EXPECT_TRUE(TokenShards::open(built.directory, {.verify_hashes = true}).ok());
  EXPECT_FALSE(std::filesystem::exists(partial));
}

TEST_F(ShardsTest, AnEmptyCorpusIsRefused) {
  // Claim: no text, no shards, and the sentence says so.
  const auto built = build_shards(directory_, "", *make_byte_tokenizer(), {});
  ASSERT_FALSE(built.ok());
  EXPECT_EQ(built.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(built.error().message, HasSubstr("corpus is empty"));
  for (const double fraction : {0.0, 1.0, -0.1, std::bit_cast<double>(0x7ff8000000000000ull)}) {
    EXPECT_EQ(build_shards(directory_, kText, *make_byte_tokenizer(), {.holdout_fraction = fraction}).error().code,
              ErrorCode::invalid_argument);
  }
}

TEST_F(ShardsTest, ATruncatedShardIsNamedWithBothSizes) {
  // Claim: the error names the file, the size found (41) and the size expected (32 + 10).
  const auto error =
      error_after([](const auto& directory) { std::filesystem::resize_file(directory / "shard-00001.tokens", 41); });
  EXPECT_EQ(error.code, ErrorCode::corrupt);
  EXPECT_THAT(error.message, HasSubstr("shard-00001.tokens is truncated"));
  EXPECT_THAT(error.message, HasSubstr("41 bytes"));
  EXPECT_THAT(error.message, HasSubstr("42"));
  // The folder's name is taken, so the next build says how to get rid of it.
  const auto again =
      build_shards(directory_, kText, *make_byte_tokenizer(), {.holdout_fraction = 0.25, .tokens_per_shard = 10});
  EXPECT_THAT(again.error().message, HasSubstr("Remove "));
}

TEST_F(ShardsTest, DamageIsFound) {
  // Claim: a longer file, a foreign header, a changed token and a missing shard are each refused.
  const auto longer = error_after([](const auto& d) { std::filesystem::resize_file(d / "shard-00002.tokens", 41); });
  EXPECT_THAT(longer.message, HasSubstr("is too long"));
  ASSERT_TRUE(base::remove_tree(directory_).ok());
  const auto header = error_after([](const auto& d) {
    std::string text = contents(d / "shard-00000.tokens");
    text[8] = 2;
    overwrite(d / "shard-00000.tokens", text);
  });
  EXPECT_THAT(header.message, HasSubstr("header"));
  ASSERT_TRUE(base::remove_tree(directory_).ok());
  const auto token = error_after([](const auto& d) {
    std::string text = contents(d / "shard-00000.tokens");
    text.back() ^= 1;
    overwrite(d / "shard-00000.tokens", text);
  });
  EXPECT_THAT(token.message, HasSubstr("SHA-256"));
  ASSERT_TRUE(base::remove_tree(directory_).ok());
  const auto missing = error_after([](const auto& d) { std::filesystem::remove(d / "shard-00001.tokens"); });
  EXPECT_EQ(missing.code, ErrorCode::corrupt);
  EXPECT_THAT(missing.message, HasSubstr("shard-00001.tokens is missing"));
}

TEST_F(ShardsTest, AnotherVocabularyIsRefused) {
  // Claim: both vocabularies are named.
  const auto opened = TokenShards::open(build().directory, {.model_vocab = 32'000});
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, ErrorCode::mismatch);
  EXPECT_THAT(opened.error().message, HasSubstr("vocabulary of 256"));
  EXPECT_THAT(opened.error().message, HasSubstr("32000"));
}

TEST_F(ShardsTest, AnIdOutsideTheVocabularyDoesNotReachTheModel) {
  // Claim: with the hashes unread, a damaged two-byte token is still caught when it is cut.
  WideTokenizer tokenizer(300);
  const auto built = build_shards(directory_, kText, tokenizer, {});
  ASSERT_TRUE(built.ok());
  std::string text = contents(built->directory / "shard-00000.tokens");
  text[kShardHeaderBytes + 1] = '\x7f';
  overwrite(built->directory / "shard-00000.tokens", text);
  auto opened = TokenShards::open(built->directory, {});
  ASSERT_TRUE(opened.ok());
  std::vector<std::int32_t> tokens(1);
  EXPECT_EQ(opened->copy(0, tokens).error().code, ErrorCode::corrupt);
  EXPECT_TRUE(opened->copy(1, tokens).ok());
}

TEST_F(ShardsTest, AHostileManifestIsAnError) {
  // Claim: names outside the folder, wrong types, sums that do not add up and future versions are refused before a file
  // is opened.
  const std::string good = contents(build().directory / "manifest.json");
  ASSERT_TRUE(parse_shard_manifest(good).ok());
  EXPECT_EQ(canonical_text(*parse_shard_manifest(good)), good);
  const std::tuple<const char*, const char*, ErrorCode> cases[] = {
      {"shard-00000.tokens", "../../etc/passwd", ErrorCode::corrupt},
      {"\"tokens\": 28", "\"tokens\": 29", ErrorCode::corrupt},
      {"\"train_tokens\": 21", "\"train_tokens\": 22", ErrorCode::corrupt},
      {"\"tokens\": 8\n", "\"tokens\": -8\n", ErrorCode::corrupt},
      {"\"tokens\": 8\n", "\"tokens\": 18446744073709551615\n", ErrorCode::corrupt},
      {"\"vocab\": 256", "\"vocab\": 0", ErrorCode::corrupt},
      {"\"vocab\": 256", "\"vocab\": 65536", ErrorCode::corrupt},
      {"\"vocab\": 256", "\"vocab\": \"256\"", ErrorCode::corrupt},
      {"\"version\": 2", "\"version\": 3", ErrorCode::mismatch},
      {"\"tokens_per_shard\": 10", "\"tokens_per_shard\": 9", ErrorCode::corrupt},
      {"\"documents\": 1,\n  \"empty", "\"documents\": 2,\n  \"empty", ErrorCode::corrupt},
      {"\"end_of_document\": null", "\"end_of_document\": 256", ErrorCode::corrupt},
      {"\"sources\": [", "\"sources\": {", ErrorCode::corrupt},
      {"stagecoach-shards", "other", ErrorCode::corrupt},
      {"\"shards\": [", "\"shards\": {", ErrorCode::corrupt},
  };
  for (const auto& [from, to, code] : cases) {
    std::string bad = good;
    ASSERT_NE(bad.find(from), std::string::npos) << from;
    bad.replace(bad.find(from), std::string(from).size(), to);
    EXPECT_EQ(parse_shard_manifest(bad).error().code, code) << to;
  }
}

}  // namespace
}  // namespace stagecoach::data
