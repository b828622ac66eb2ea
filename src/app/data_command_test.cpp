#include "app/data_command.h"

#include <gmock/gmock.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <sstream>

#include "app/data_progress.h"
#include "app/generate_stream.h"
#include "data/test_directory.h"

namespace stagecoach::app {
namespace {

namespace fs = std::filesystem;
using base::Duration;
using base::Instant;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class DataCommand : public data::DirectoryTest {
 protected:
  /// Runs `stagecoach data …`; returns the status, with both outputs in text_ and problems_.
  int run(std::vector<std::string> words) {
    CLI::App app;
    DataOptions options;
    CLI::App* command = add_data_command(app, options);
    std::reverse(words.begin(), words.end());
    words.push_back("data");
    app.parse(words);
    std::ostringstream out, err;
    const int status = run_data(*command, options, out, err);
    text_ = out.str(), problems_ = err.str();
    return status;
  }
  std::string path(const char* name) const { return (directory_ / name).string(); }

  std::string text_, problems_;
};

// Claim: what was built is shown and verified: counts, lengths by nearest rank, the documents' beginnings, one document
// by its number.
TEST_F(DataCommand, builds_inspects_and_verifies) {
  overwrite(directory_ / "in.jsonl", "{\"text\":\"hello\"}\n{\"text\":\"\"}\n{\"text\":\"a longer\\ntext\"}\n");
  ASSERT_EQ(run({"build", path("in.jsonl"), "--tokenizer", "byte", "--out", path("out")}), 0) << problems_;
  EXPECT_THAT(text_, AllOf(HasSubstr("20 tokens of 2 documents in 1 shards"), HasSubstr("1 empty documents"),
                           HasSubstr("--set data.shards=" + path("out") + " --set model.vocab=256")));
  ASSERT_EQ(run({"inspect", path("out")}), 0) << problems_;
  EXPECT_THAT(text_,
              AllOf(HasSubstr("mean 10"), HasSubstr("half 6"), HasSubstr("all 14"), HasSubstr("document 0: hello\n"),
                    HasSubstr("document 1: a longer text\n"), HasSubstr("0.90 bytes a token")));
  ASSERT_EQ(run({"inspect", path("out"), "--document", "1"}), 0) << problems_;
  EXPECT_THAT(text_, HasSubstr("document 1: tokens 6 to 19 (14)\na longer\ntext\n"));
  EXPECT_EQ(run({"inspect", path("out"), "--document", "2"}), 1);
  EXPECT_THAT(problems_, HasSubstr("expected 0 to 1, got 2"));
  ASSERT_EQ(run({"verify", path("out")}), 0) << problems_;
  EXPECT_THAT(text_, HasSubstr("is whole"));
  ASSERT_EQ(run({"build", path("in.jsonl"), "--tokenizer", "byte", "--out", path("out")}), 0);
  EXPECT_THAT(text_, HasSubstr("nothing to do"));
  overwrite(directory_ / "out" / "shard-00000.tokens", "torn");
  EXPECT_EQ(run({"verify", path("out")}), 1);
  EXPECT_THAT(problems_, HasSubstr("shard-00000.tokens has 4 bytes"));
}

// Claim: each wrong word of the command line ends with a sentence that names it and with nothing made.
TEST_F(DataCommand, wrong_words_are_named) {
  overwrite(directory_ / "in.txt", "text");
  const auto complaint = [&](std::vector<std::string> words) {
    words.insert(words.begin(), "build");
    words.insert(words.end(), {"--out", path("out")});
    EXPECT_EQ(run(words), 1);
    EXPECT_FALSE(fs::exists(directory_ / "out"));
    return problems_;
  };
  const std::string in = path("in.txt");
  EXPECT_THAT(complaint({in, "--tokenizer", "words"}), AllOf(HasSubstr("\"words\""), HasSubstr("byte")));
  EXPECT_THAT(complaint({path("none.txt"), "--tokenizer", "byte"}), HasSubstr("none.txt"));
  EXPECT_THAT(complaint({in, "--tokenizer", "byte", "--holdout", "1"}), HasSubstr("held-out"));
  EXPECT_THAT(complaint({in, "--tokenizer", "byte", "--shard-tokens", "0"}), HasSubstr("at least one token"));
  EXPECT_THAT(complaint({in, "--tokenizer", "byte", "--threads", "-1"}), HasSubstr("threads"));
  EXPECT_THAT(complaint({in, "--tokenizer", "byte", "--end-of-document", "<x>"}), HasSubstr("\"<x>\""));
  EXPECT_THROW(run({"build", in, "--tokenizer", "byte", "--out", path("out"), "--skip-broken", "--refuse-broken"}),
               CLI::Error);
  EXPECT_EQ(run({"verify", path("nowhere")}), 1);
  EXPECT_THAT(problems_, HasSubstr("no token shards"));
}

// Claim: a broken line ends the build or is named and left out; the end's mark may be chosen.
TEST_F(DataCommand, broken_lines) {
  overwrite(directory_ / "in.jsonl", "{\"text\":\"a\"}\noops\n{\"text\":\"b\"}\n");
  EXPECT_EQ(run({"build", path("in.jsonl"), "--tokenizer", "byte", "--out", path("out")}), 1);
  EXPECT_THAT(problems_, HasSubstr("in.jsonl line 2 (byte 13) is not JSON"));
  ASSERT_EQ(
      run({"build", path("in.jsonl"), "--tokenizer", "byte", "--out", path("out"), "--skip-broken", "--threads", "1"}),
      0);
  EXPECT_THAT(problems_, HasSubstr("left out: " + path("in.jsonl") + " line 2"));
  EXPECT_THAT(text_, HasSubstr("1 broken records"));
  ASSERT_EQ(run({"build", path("in.jsonl"), "--tokenizer", "byte", "--out", path("none"), "--skip-broken",
                 "--end-of-document", "none"}),
            0);
  EXPECT_THAT(text_, HasSubstr("2 tokens of 2 documents"));
}

// Claim: rates and times left follow from the bytes read in this time, and a log gets a line every ten seconds, a
// terminal five a second.
TEST(DataProgressText, rates_and_times) {
  const auto at = [](std::int64_t ms) { return Instant() + Duration::milliseconds(ms); };
  data::BuildProgress progress{
      .read_bytes = 100'000'000, .total_bytes = 1'000'000'000, .text_bytes = 300'000'000, .tokens = 1};
  DataProgress log({.terminal = false}, at(0));
  EXPECT_THAT(log.show(progress, at(0)), IsEmpty());
  progress.read_bytes = 400'000'000, progress.text_bytes = 1'300'000'000, progress.tokens = 1'234'567;
  EXPECT_THAT(log.show(progress, at(9'999)), IsEmpty());
  EXPECT_EQ(log.show(progress, at(10'000)),
            " 40 %  400 MB of 1.00 GB  100 MB/s of text  1,234,567 tokens  20 s left\n");
  EXPECT_THAT(log.show(progress, at(19'000)), IsEmpty());
  EXPECT_THAT(log.clear(), IsEmpty());
  DataProgress terminal({.terminal = true, .columns = 100}, at(0));
  EXPECT_THAT(terminal.show(progress, at(100)), IsEmpty());
  const std::string bar = terminal.show(progress, at(200));
  EXPECT_THAT(bar, AllOf(HasSubstr("\r\033[K[#########               ]  40 %"), Not(HasSubstr("\n"))));
  EXPECT_LE(bar.size(), 4u + 99);
  EXPECT_EQ(terminal.clear(), "\r\033[K");
}

// Claim: numbers for people, at their edges.
TEST(DataProgressText, numbers) {
  EXPECT_EQ(exact_text(7), "7");
  EXPECT_EQ(exact_text(-123456), "-123,456");
  EXPECT_EQ(exact_text(1234567), "1,234,567");
}

/// Decodes as trained tokenizers do: words with a space in front that the first one loses, and bytes of characters.
class Words final : public data::Tokenizer {
 public:
  data::TokenizerId id() const override { return {"words", {}}; }
  std::int64_t vocab() const override { return 256; }
  std::optional<std::int32_t> end_of_document() const override { return 9; }
  bool takes_any_bytes() const override { return true; }
  base::Result<std::unique_ptr<data::Tokenizer>> another() const override { return base::Error{}; }
  base::Result<data::Encoded> encode(std::span<const std::string_view>) override { return data::Encoded{}; }
  base::Result<std::string> decode(std::span<const std::int32_t> tokens) override {
    std::string text;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] < 9) {
        text += std::string(text.empty() ? "" : " ") + static_cast<char>('a' + tokens[i]);
      } else if (tokens[i] == 10) {  // ü, whose two bytes are two tokens
        text += i + 1 < tokens.size() && tokens[i + 1] == 11 ? "\xc3\xbc" : "\xef\xbf\xbd";
      } else if (tokens[i] == 11 && (i == 0 || tokens[i - 1] != 10)) {
        text += "\xef\xbf\xbd";
      }
    }
    return text;
  }
  std::optional<std::int32_t> id_of(std::string_view) override { return std::nullopt; }
};

// Claim: the pieces put together are the text decoded at once: spaces between words stay, half characters wait for
// their rest.
TEST(TokenStreamText, pieces_are_the_whole) {
  Words words;
  const std::vector<std::int32_t> past = {0, 1};
  TokenStream stream(words, past);
  std::string text = "a b";
  for (const std::int32_t token : {2, 10, 11, 3, 11}) text += *stream.push(token);
  EXPECT_EQ(text, "a b c\xc3\xbc d");
  text += *stream.finish();
  EXPECT_EQ(text, "a b c\xc3\xbc d\xef\xbf\xbd");
}

}  // namespace
}  // namespace stagecoach::app
