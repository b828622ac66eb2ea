// Claim: ids by chunks are the library's own for the whole text, for every kind of model; and what does not fall apart is left whole.
#include "data/sentencepiece_words.h"

#include <sentencepiece_processor.h>

#include "base/prng.h"
#include "data/test_directory.h"
#include "data/test_lines.h"
#include "data/tokenizer.h"

namespace stagecoach::data {
namespace {

/// Words of a small language, some of them again and again.
std::string training_text() {
  base::Prng prng(3);
  std::string text;
  for (int line = 0; line < 400; ++line) {
    for (int word = 0; word < 12; ++word) {
      const std::uint64_t which = prng.below(prng.below(300) + 1);
      base::Prng letters(which);
      for (std::uint64_t i = 0; i < 2 + which % 7; ++i) text += static_cast<char>('a' + letters.below(9));
      if (which % 11 == 0) text += "\xc3\xa9";
      text += which % 13 == 0 ? ", " : " ";
    }
    text += "abc de\n";
  }
  return text;
}

using Settings = std::unordered_map<std::string, std::string>;

std::string trained(Settings settings) {
  settings.insert({{"vocab_size", "340"}, {"model_type", "bpe"}, {"minloglevel", "2"}, {"num_threads", "1"}, {"hard_vocab_limit", "false"}});
  Lines lines(training_text());
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &lines, &model);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return model;
}

/// Texts of spaces of all kinds, marks, unknown characters and words.
std::string odd_text(std::uint64_t seed) {
  static const std::vector<std::string> parts = {
      " ", " ", " ", " ", " ", "  ", "   ", "\n", "\t", "\r\n", "\xc2\xa0", "\xe3\x80\x80", "\xe2\x96\x81", "\xe2\x80\x8b", "\xcc\x81", "\xc3\xa9",
      "e\xcc\x81", "\xef\xac\x81", "\xe2\x84\xa2", "\xf0\x9f\x98\x80", "\x01", "\x7f", "<s>", "</s>", "<unk>", "<sep>", "A", "B", "Z", "0", "12", ".", ",", "-",
      "abc", "de", "fgh", "ii", "a", "b", "cab", "bad", "\xc2\xbd", "\xe4\xb8\xad\xe6\x96\x87", "<new word>", "<x y>"};
  base::Prng prng(seed);
  std::string text;
  for (std::uint64_t n = prng.below(60); n-- > 0;) text += parts[prng.below(parts.size())];
  return text;
}

struct Model {
  const char* name;
  Settings settings;
  bool falls_apart;
};

class Words : public DirectoryTest {};

TEST_F(Words, the_ids_of_chunks_are_those_of_the_whole_text) {
  const std::vector<Model> models = {
      {"plain", {}, true},
      {"identity with bytes", {{"normalization_rule_name", "identity"}, {"byte_fallback", "true"}, {"remove_extra_whitespaces", "false"}, {"vocab_size", "500"}}, true},
      {"folded", {{"normalization_rule_name", "nmt_nfkc_cf"}}, true},
      {"a symbol of its own", {{"user_defined_symbols", "<sep>"}}, true},
      {"a symbol with a space", {{"user_defined_symbols", "<x y>"}}, false},
      {"pieces over spaces", {{"split_by_whitespace", "false"}}, false},
      {"space behind", {{"treat_whitespace_as_suffix", "true"}}, false},
      {"no space before", {{"add_dummy_prefix", "false"}}, false},
      {"unigram", {{"model_type", "unigram"}, {"vocab_size", "120"}}, false},
      {"characters", {{"model_type", "char"}}, false},
  };
  for (const Model& model : models) {
    const std::string bytes = trained(model.settings);
    EXPECT_EQ(falls_apart_at_spaces(bytes), model.falls_apart) << model.name;
    const auto file = directory_ / "one.model";
    overwrite(file, bytes);
    auto ours = open_tokenizer(file.string());
    ASSERT_TRUE(ours.ok()) << ours.error().message;
    sentencepiece::SentencePieceProcessor library;
    ASSERT_TRUE(library.LoadFromSerializedProto(bytes).ok());
    for (std::uint64_t seed = 0; seed < 1'000; ++seed) {
      const std::string text = odd_text(seed);
      std::vector<int> expected;
      ASSERT_TRUE(library.Encode(text, &expected).ok());
      ASSERT_EQ(*(*ours)->encode(text), std::vector<std::int32_t>(expected.begin(), expected.end())) << model.name << " seed " << seed << ": \"" << text << '"';
    }
  }
}

TEST(WordChunks, end_at_single_spaces_between_printable_characters) {
  const std::string text = "a bc  d \xc3\xa9 e f ";
  std::vector<std::string> chunks;
  for (std::size_t first = 0; first < text.size();) {
    const std::size_t last = chunk_end(text, first);
    chunks.push_back(text.substr(first, last - first));
    first = last + 1;
  }
  EXPECT_EQ(chunks, (std::vector<std::string>{"a", "bc  d \xc3\xa9 e", "f "}));
}

TEST(WordChunks, a_damaged_model_does_not_fall_apart) {
  const std::string model = trained({});
  EXPECT_FALSE(falls_apart_at_spaces(""));
  for (std::size_t length = 1; length < model.size(); length += 37) static_cast<void>(falls_apart_at_spaces(model.substr(0, length)));
  EXPECT_FALSE(falls_apart_at_spaces(model.substr(0, model.size() - 1)));
  base::Prng prng(1);
  for (int i = 0; i < 500; ++i) {  // whatever it says, it ends and reads nothing outside
    std::string other = model;
    for (int flips = 0; flips < 4; ++flips) other[prng.below(other.size())] = static_cast<char>(prng.below(256));
    static_cast<void>(falls_apart_at_spaces(other));
  }
  EXPECT_FALSE(falls_apart_at_spaces("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"));
}

TEST(WordChunks, memory_is_bounded_and_follows_the_texts) {
  WordIds words;
  const std::vector<int> ids = {1, 2, 3};
  for (int i = 0; i < 140'000; ++i) words.put("word" + std::to_string(i), ids);
  EXPECT_FALSE(words.find("word0"));
  ASSERT_TRUE(words.find("word139999"));
  EXPECT_EQ(words.find("word139999")->size(), 3u);
  words.put(std::string(1'000, 'x'), ids);
  EXPECT_FALSE(words.find(std::string(1'000, 'x')));
}

}  // namespace
}  // namespace stagecoach::data
