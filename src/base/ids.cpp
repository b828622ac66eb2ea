#include "base/ids.h"

namespace stagecoach::base {

std::string Bytes32::hex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (std::uint8_t byte : bytes) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

bool Bytes32::parse_hex(std::string_view text) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  if (text.size() != bytes.size() * 2) return false;
  std::array<std::uint8_t, 32> parsed{};
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::size_t digit = kDigits.find(text[i]);
    if (digit == std::string_view::npos) return false;
    parsed[i / 2] = static_cast<std::uint8_t>(parsed[i / 2] << 4 | digit);
  }
  bytes = parsed;
  return true;
}

}  // namespace stagecoach::base
