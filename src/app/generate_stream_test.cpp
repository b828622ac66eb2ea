#include "app/generate_stream.h"

#include <gtest/gtest.h>

#include "base/prng.h"

namespace stagecoach::app {
namespace {

const std::string kReplacement = "\xef\xbf\xbd";

// Claim: a character appears when its last byte has come, whatever its length.
TEST(Utf8Stream, characters_appear_whole) {
  for (const std::string character : {"a", "ü", "中", "🐎"}) {
    Utf8Stream stream;
    for (std::size_t i = 0; i + 1 < character.size(); ++i) EXPECT_EQ(stream.push(character.substr(i, 1)), "");
    EXPECT_EQ(stream.push(character.substr(character.size() - 1)), character);
    EXPECT_EQ(stream.finish(), "");
  }
}

// Claim: valid text passes unchanged in any split.
TEST(Utf8Stream, valid_text_passes_in_any_split) {
  const std::string text = "In the beginning\n\tGöd 創 🌍 \xf4\x8f\xbf\xbf \xed\x9f\xbf";
  for (std::size_t split = 0; split <= text.size(); ++split) {
    Utf8Stream stream;
    std::string out = stream.push(text.substr(0, split));
    out += stream.push(text.substr(split));
    out += stream.finish();
    EXPECT_EQ(out, text);
  }
}

// Claim: bytes that cannot become a character are replaced, and what follows them is not swallowed.
TEST(Utf8Stream, broken_bytes_are_replaced) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("\xc3"
                        "a"),
            kReplacement + "a");
  EXPECT_EQ(stream.push("\x80"), kReplacement);
  EXPECT_EQ(stream.push("\xc0\xaf"), kReplacement + kReplacement) << "overlong";
  EXPECT_EQ(stream.push("\xed\xa0\x80"), kReplacement + kReplacement + kReplacement) << "surrogate";
  EXPECT_EQ(stream.push("\xe4\xb8"), "");
  EXPECT_EQ(stream.finish(), kReplacement);
  EXPECT_EQ(stream.push("b"), "b") << "a finished stream starts anew";
}

// Claim: control characters never reach the terminal, newline and tab do, C1 in its two-byte form included.
TEST(Utf8Stream, controls_are_replaced) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("\x1b[2J\r\n\t\x7f"), kReplacement + "[2J" + kReplacement + "\n\t" + kReplacement);
  EXPECT_EQ(stream.push("\xc2\x9b"
                        "1m"),
            kReplacement + "1m");
}

// Claim: random bytes give text that passes through a second stream unchanged: it is valid and free of controls.
TEST(Utf8Stream, any_bytes_become_valid_text) {
  base::Prng prng(11);
  for (int round = 0; round < 500; ++round) {
    std::string bytes(64, '\0');
    for (char& byte : bytes) byte = static_cast<char>(prng.next());
    Utf8Stream first;
    std::string text = first.push(bytes);
    text += first.finish();
    Utf8Stream second;
    EXPECT_EQ(second.push(text), text);
    EXPECT_EQ(second.finish(), "");
  }
}

}  // namespace
}  // namespace stagecoach::app
