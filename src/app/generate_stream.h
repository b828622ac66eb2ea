// Text from a model, byte by byte, made safe to show as it comes.
//
// In:      bytes in any split. Out: whole UTF-8 characters.
// Thread:  any, one object per text.
// Why:     a byte-level model ends in the middle of a character and may write anything: a terminal must get neither
// half a
//          character nor a control sequence.
#pragma once

#include <string>
#include <string_view>

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

}  // namespace stagecoach::app
