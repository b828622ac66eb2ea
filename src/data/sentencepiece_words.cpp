// The model's file is a protocol buffer: fields of (number, kind) and a value. Only the few that matter here are read.
#include "data/sentencepiece_words.h"

#include <algorithm>
#include <array>

namespace stagecoach::data {
namespace {

constexpr std::string_view kSpace = "\xe2\x96\x81";  // U+2581, which stands for a space in pieces
constexpr std::size_t kWordBytesMax = 48;
constexpr std::size_t kWordsMax = 1 << 17;

/// One field of a message: a number, or bytes.
struct Field {
  std::uint64_t number = 0;
  std::uint64_t value = 0;
  std::string_view bytes;
};

/// Takes a message apart. A damaged one ends early and says so.
class Fields {
 public:
  explicit Fields(std::string_view message) : rest_(message) {}
  bool damaged() const { return damaged_; }

  std::optional<Field> next() {
    if (rest_.empty() || damaged_) return std::nullopt;
    const std::uint64_t key = varint();
    Field field{key >> 3, 0, {}};
    switch (key & 7) {
      case 0: field.value = varint(); break;
      case 1: field.bytes = take(8); break;
      case 2: field.bytes = take(varint()); break;
      case 5: field.bytes = take(4); break;
      default: damaged_ = true;
    }
    return damaged_ ? std::nullopt : std::optional(field);
  }

 private:
  std::uint64_t varint() {
    std::uint64_t out = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const std::string_view byte = take(1);
      if (byte.empty()) return 0;
      const auto bits = static_cast<unsigned char>(byte[0]);
      out |= static_cast<std::uint64_t>(bits & 0x7f) << shift;
      if (bits < 0x80) return out;
    }
    damaged_ = true;
    return 0;
  }
  std::string_view take(std::uint64_t count) {
    if (count > rest_.size()) {
      damaged_ = true;
      return {};
    }
    const std::string_view out = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return out;
  }
  std::string_view rest_;
  bool damaged_ = false;
};

bool trains_by_pairs(std::string_view trainer_spec) {
  constexpr std::uint64_t kModelType = 3, kBytePair = 2, kSpaceBehind = 24;
  std::uint64_t type = 1, behind = 0;
  Fields fields(trainer_spec);
  while (const auto field = fields.next()) {
    if (field->number == kModelType) type = field->value;
    if (field->number == kSpaceBehind) behind = field->value;
  }
  return !fields.damaged() && type == kBytePair && behind == 0;
}

/// None of these normalizations has a rule for characters on both sides of a space.
bool normalizes_word_by_word(std::string_view normalizer_spec) {
  constexpr std::uint64_t kName = 1, kPrefix = 3, kEscape = 5, kOwnRules = 6;
  constexpr std::array<std::string_view, 5> kKnown = {"identity", "nfkc", "nfkc_cf", "nmt_nfkc", "nmt_nfkc_cf"};
  std::string_view name;
  std::uint64_t prefix = 1, escape = 1;
  bool own_rules = false;
  Fields fields(normalizer_spec);
  while (const auto field = fields.next()) {
    if (field->number == kName) name = field->bytes;
    if (field->number == kPrefix) prefix = field->value;
    if (field->number == kEscape) escape = field->value;
    if (field->number == kOwnRules) own_rules = !field->bytes.empty();
  }
  return !fields.damaged() && prefix == 1 && escape == 1 && !own_rules && std::find(kKnown.begin(), kKnown.end(), name) != kKnown.end();
}

struct Piece {
  std::string_view text;
  std::uint64_t type = 1;
};

Piece piece_of(std::string_view message) {
  Piece piece;
  Fields fields(message);
  while (const auto field = fields.next()) {
    if (field->number == 1) piece.text = field->bytes;
    if (field->number == 3) piece.type = field->value;
  }
  return piece;
}

/// True where it may match what lies on both sides of a single space.
bool reaches_over_a_space(const Piece& piece) {
  constexpr std::uint64_t kUserDefined = 4;
  if (piece.type == kUserDefined) return piece.text.find(' ') != std::string_view::npos || piece.text.find(kSpace) != std::string_view::npos;
  std::size_t leading = 0;
  while (piece.text.substr(leading).starts_with(kSpace)) leading += kSpace.size();
  return piece.text.find(kSpace, leading) != std::string_view::npos;
}

bool printable(char c) { return c > ' ' && c < '\x7f'; }

}  // namespace

bool falls_apart_at_spaces(std::string_view model_file) {
  bool pairs = false, word_by_word = false, knows_space = false;
  Fields fields(model_file);
  while (const auto field = fields.next()) {
    if (field->number == 1) {
      const Piece piece = piece_of(field->bytes);
      if (reaches_over_a_space(piece)) return false;
      if (piece.text == kSpace && piece.type == 1) knows_space = true;
    }
    if (field->number == 2) pairs = trains_by_pairs(field->bytes);
    if (field->number == 3) word_by_word = normalizes_word_by_word(field->bytes);
  }
  return !fields.damaged() && pairs && word_by_word && knows_space;
}

std::size_t chunk_end(std::string_view text, std::size_t first) {
  for (std::size_t at = text.find(' ', first); at != std::string_view::npos; at = text.find(' ', at + 1)) {
    if (at > first && at + 1 < text.size() && printable(text[at - 1]) && printable(text[at + 1])) return at;
  }
  return text.size();
}

std::optional<std::span<const int>> WordIds::find(std::string_view word) const {
  if (word.size() > kWordBytesMax) return std::nullopt;
  const auto found = places_.find(word);
  if (found == places_.end()) return std::nullopt;
  return std::span(ids_).subspan(found->second.first, found->second.count);
}

void WordIds::put(std::string_view word, std::span<const int> ids) {
  if (word.size() > kWordBytesMax) return;
  if (places_.size() >= kWordsMax) {
    places_.clear();
    ids_.clear();
  }
  places_[std::string(word)] = {static_cast<std::uint32_t>(ids_.size()), static_cast<std::uint32_t>(ids.size())};
  ids_.insert(ids_.end(), ids.begin(), ids.end());
}

}  // namespace stagecoach::data
