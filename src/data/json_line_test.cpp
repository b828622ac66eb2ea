#include "data/json_line.h"

#include <gmock/gmock.h>

#include "data/block_encoder.h"
#include "data/shard_manifest.h"

namespace stagecoach::data {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class JsonLineTest : public ::testing::Test {
 protected:
  base::Result<std::string_view> read(std::string line) {
    line_ = std::move(line);
    line_.reserve(line_.size() + JsonLineReader::kPaddingBytes);
    return reader_.text_of(line_);
  }
  std::string complaint(const std::string& line) {
    const auto text = read(line);
    EXPECT_FALSE(text.ok()) << line;
    return text.ok() ? "" : text.error().message;
  }
  std::string line_;
  JsonLineReader reader_{"text"};
};

TEST_F(JsonLineTest, TheTextIsUnescaped) {
  // Claim: every kind of escape of RFC 8259 section 7 becomes its character, wherever the field stands.
  EXPECT_EQ(*read(R"({"id": 7, "text": "a\"b\\c\/d\n\t\r\b\f", "rest": [1, {"text": "no"}]})"), "a\"b\\c/d\n\t\r\b\f");
  EXPECT_EQ(*read(R"({"text":"\u00fc \u20ac \ud83d\ude8b ü"})"), "ü € \xf0\x9f\x9a\x8b ü");
  EXPECT_EQ(*read("  {\"text\":\"\"}  \r"), "");
  EXPECT_EQ(*read(std::string("{\"text\":\"a\\u0000b\"}")), std::string("a\0b", 3));
}

TEST_F(JsonLineTest, BrokenLinesSayWhy) {
  // Claim: what is not JSON, not an object, without the field or with another type there is told apart.
  for (const char* line : {"", "{", "{\"text\": \"a", "{\"text\": \"a\"} x", "{\"text\": \"\\x\"}", "{'text': 'a'}",
                           "{\"text\": \"\x80\"}", "{\"text\": \"\\ud800\"}", "{\"text\": \"a\nb\"}"}) {
    EXPECT_THAT(complaint(line), HasSubstr("is not JSON")) << line;
  }
  EXPECT_THAT(complaint("[1]"), HasSubstr("not an object"));
  EXPECT_THAT(complaint("{\"content\": \"a\", \"id\": 1}"),
              AllOf(HasSubstr("no field \"text\""), HasSubstr("\"content\", \"id\"")));
  EXPECT_THAT(complaint("{}"), HasSubstr("no field at all"));
  EXPECT_THAT(complaint("{\"text\": 3}"), HasSubstr("not a text"));
  EXPECT_THAT(complaint("{\"text\": null}"), HasSubstr("not a text"));
}

TEST_F(JsonLineTest, WhereUtf8EndsIsFound) {
  // Claim: the count of good bytes, for each kind of fault, at every place of a longer text.
  EXPECT_EQ(utf8_bytes("grün"), 5u);
  EXPECT_EQ(utf8_bytes(""), 0u);
  for (const std::string fault : {"\x80", "\xff", "\xc3", "\xe2\x82", "\xc0\xaf", "\xed\xa0\x80"}) {
    for (std::size_t at = 0; at <= 300; at += 7) {
      std::string good;
      while (good.size() < at) good += "aü€\xf0\x9f\x9a\x8b";
      EXPECT_EQ(utf8_bytes(good + fault + "aü€ rest"), good.size());
    }
  }
}

Input input_of_format(InputFormat format) { return {.name = "in", .path = "in", .format = format}; }

TEST_F(JsonLineTest, ABlockOfLinesBecomesDocuments) {
  // Claim: each good line is a document with its mark; blank lines are nothing, empty texts are counted, broken lines
  // are named by number and byte, counted from the block's place.
  BlockEncoder encoder(make_byte_tokenizer(), {"text", 0});
  Block block;
  block.at = {100, 10};
  block.bytes = "{\"text\":\"ab\"}\n\n{\"text\":\"\"}\nbad\n{\"text\":\"c\"}";
  const auto out = encoder.encode(std::move(block), input_of_format(InputFormat::jsonl));
  ASSERT_TRUE(out.ok());
  EXPECT_EQ(base::as_text(out->packed), std::string_view("ab\0c\0", 5));
  EXPECT_THAT(out->starts, ElementsAre(0u, 3u));
  EXPECT_EQ(out->tokens, 5u);
  EXPECT_EQ(out->empty, 1u);
  EXPECT_EQ(out->text_bytes, 3u);
  ASSERT_EQ(out->block.broken.size(), 1u);
  EXPECT_EQ(out->block.broken[0].where, "in line 14 (byte 127)");
}

TEST_F(JsonLineTest, LinesAndRowsBecomeDocuments) {
  // Claim: a line loses its line end, of either kind; a row is what lies between the ends before and of it.
  BlockEncoder encoder(make_byte_tokenizer(), {"text", std::nullopt});
  Block lines;
  lines.bytes = "one\r\ntwo\n\nthree";
  const auto of_lines = encoder.encode(std::move(lines), input_of_format(InputFormat::lines));
  EXPECT_EQ(base::as_text(of_lines->packed), "onetwothree");
  EXPECT_THAT(of_lines->starts, ElementsAre(0u, 3u, 6u));
  EXPECT_EQ(of_lines->empty, 1u);
  Block rows;
  rows.bytes = "abcdef";
  rows.rows = {{2, 0}, {6, 4}};
  EXPECT_THAT(encoder.encode(std::move(rows), input_of_format(InputFormat::parquet))->starts, ElementsAre(0u, 2u));
}

}  // namespace
}  // namespace stagecoach::data
