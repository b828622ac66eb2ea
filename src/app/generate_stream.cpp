#include "app/generate_stream.h"

#include <utility>

namespace stagecoach::app {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

/// Bytes of the character that `first` begins; 0 where it begins none.
std::size_t size_by_first(unsigned char first) {
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return 2;
  if (first >= 0xe0 && first <= 0xef) return 3;
  if (first >= 0xf0 && first <= 0xf4) return 4;
  return 0;
}

/// Whether `second` may follow `first` (Unicode 15, table 3-7): no overlong forms, no surrogates, nothing beyond
/// U+10FFFF.
bool second_fits(unsigned char first, unsigned char second) {
  if (first == 0xe0) return second >= 0xa0 && second <= 0xbf;
  if (first == 0xed) return second >= 0x80 && second <= 0x9f;
  if (first == 0xf0) return second >= 0x90 && second <= 0xbf;
  if (first == 0xf4) return second >= 0x80 && second <= 0x8f;
  return second >= 0x80 && second <= 0xbf;
}

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) take(static_cast<unsigned char>(byte), out);
  return out;
}

std::string Utf8Stream::finish() {
  expected_ = 0;
  return std::exchange(held_, {}).empty() ? std::string() : std::string(kReplacement);
}

void Utf8Stream::take(unsigned char byte, std::string& out) {
  if (!held_.empty()) {
    const bool fits =
        held_.size() == 1 ? second_fits(static_cast<unsigned char>(held_[0]), byte) : byte >= 0x80 && byte <= 0xbf;
    if (fits) {
      held_ += static_cast<char>(byte);
      if (held_.size() < expected_) return;
      // C1 control characters (U+0080 … U+009F) steer terminals as ESC does.
      const bool control = held_.size() == 2 && held_[0] == '\xc2' && byte < 0xa0;
      out += control ? kReplacement : std::string_view(held_);
      held_.clear();
      return;
    }
    out += kReplacement;
    held_.clear();
  }
  expected_ = size_by_first(byte);
  if (expected_ > 1) {
    held_.assign(1, static_cast<char>(byte));
    return;
  }
  const bool shown = expected_ == 1 && (byte == '\n' || byte == '\t' || (byte >= 0x20 && byte != 0x7f));
  if (shown)
    out += static_cast<char>(byte);
  else
    out += kReplacement;
}

}  // namespace stagecoach::app
