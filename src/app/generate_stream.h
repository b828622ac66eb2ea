// Text from a model, token by token, made safe to show as it comes.
//
// In:      tokens one by one, or bytes in any split. Out: bytes as soon as they are sure; whole UTF-8 characters.
// Thread:  any, one object per text.
// Why:     a token's text depends on those before it (spaces) and on those after it (half characters), a model may
// write
//          anything, and a terminal must get neither half a character nor a control sequence.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "data/tokenizer.h"

namespace stagecoach::app {

class Utf8Stream {
 public:
  /// The characters that `bytes` complete. What can no longer become a character, and control characters except newline
  /// and tab, become U+FFFD.
  std::string push(std::string_view bytes);
  /// What is still held back: an unfinished character, as U+FFFD. The stream starts anew.
  std::string finish();

 private:
  void take(unsigned char byte, std::string& out);

  std::string held_;
  std::size_t expected_ = 0;  // bytes of the character that held_ begins
};

/// Decodes a text that grows by single tokens: what two readings of its newest tokens, without and with the last one,
/// differ in. (The way of Hugging Face's text-generation-inference: it needs nothing of a tokenizer but `decode`.)
class TokenStream {
 public:
  /// `past`: the tokens that were shown already; `tokenizer` must outlive the stream.
  TokenStream(data::Tokenizer& tokenizer, std::span<const std::int32_t> past);
  /// The bytes that `token` adds; empty while a character is not whole.
  ///
  /// errors: those of Tokenizer::decode
  base::Result<std::string> push(std::int32_t token);
  /// What is still held back.
  base::Result<std::string> finish();

 private:
  base::Result<std::string> news();

  data::Tokenizer& tokenizer_;
  std::vector<std::int32_t> shown_;  // the newest tokens whose text is out
  std::vector<std::int32_t> held_;   // those after them
};

}  // namespace stagecoach::app
