#include "app/generate_stream.h"

#include <algorithm>
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

TokenStream::TokenStream(data::Tokenizer& tokenizer, std::span<const std::int32_t> past) : tokenizer_(tokenizer) {
  constexpr std::size_t kPast = 6;  // enough for any tokenizer's idea of what a space depends on
  const auto newest = past.last(std::min(past.size(), kPast));
  shown_.assign(newest.begin(), newest.end());
}

base::Result<std::string> TokenStream::push(std::int32_t token) {
  constexpr std::size_t kHeldMax = 16;  // a character has four bytes; what takes longer never becomes one
  held_.push_back(token);
  auto text = news();
  if (!text || (held_.size() < kHeldMax && (text->empty() || text->ends_with("\xef\xbf\xbd")))) {
    return text ? base::Result<std::string>(std::string()) : text;
  }
  shown_ = std::exchange(held_, {});
  return text;
}

base::Result<std::string> TokenStream::finish() {
  auto text = news();
  held_.clear();
  return text;
}

base::Result<std::string> TokenStream::news() {
  auto before = tokenizer_.decode(shown_);
  if (!before) return before;
  std::vector<std::int32_t> all = shown_;
  all.insert(all.end(), held_.begin(), held_.end());
  auto after = tokenizer_.decode(all);
  if (!after) return after;
  return after->size() > before->size() ? after->substr(before->size()) : std::string();
}

}  // namespace stagecoach::app
