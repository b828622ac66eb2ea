#include "world/paced/tensors.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "world/paced/provenance.h"

namespace stagecoach::world::paced {

using base::Payload;

static_assert(std::endian::native == std::endian::little, "tensors travel as they lie in memory");

Payload unfolded(const Payload& word, std::size_t bytes) {
  CHECK(word && word->size() == kProvenanceBytes && bytes >= kProvenanceBytes, "a tensor stands for one word");
  std::uint64_t value = 0;
  std::memcpy(&value, word->data(), sizeof value);
  base::Bytes out(bytes);
  const std::size_t words = bytes / 8;
  for (std::size_t i = 0; i < words; ++i) {
    const std::uint64_t each = value * multiplier(i);
    std::memcpy(out.data() + 8 * i, &each, sizeof each);
  }
  const std::uint64_t last = value * multiplier(words);
  std::memcpy(out.data() + 8 * words, &last, bytes % 8);
  return base::make_payload(std::move(out));
}

base::Result<Payload> folded(const Payload& tensor, std::size_t bytes) {
  const auto bad = [](const std::string& text) { return base::Error{base::ErrorCode::corrupt, text}; };
  if (!tensor || tensor->size() != bytes || bytes < kProvenanceBytes)
    return bad("a paced tensor of " + std::to_string(tensor ? tensor->size() : 0) + " bytes instead of " + std::to_string(bytes));
  const Payload word = base::make_payload(base::Bytes(tensor->begin(), tensor->begin() + kProvenanceBytes));
  if (!base::same_bytes(unfolded(word, bytes), tensor)) return bad("a tensor whose bytes are not those of a paced device: does its sender compute?");
  return word;
}

void unfold(wire::Message& message, const TensorSizes& sizes) {
  if (auto* offer = std::get_if<wire::Offer>(&message)) {
    offer->tokens = unfolded(offer->tokens, sizes.tokens);
    offer->boundary = unfolded(offer->boundary, sizes.output);
  } else if (auto* gradient = std::get_if<wire::Gradient>(&message)) {
    gradient->boundary_gradient = unfolded(gradient->boundary_gradient, sizes.input);
  }
}

base::Result<void> fold(wire::Message& message, const TensorSizes& sizes) {
  const auto replace = [](Payload& payload, std::size_t bytes) -> base::Result<void> {
    auto word = folded(payload, bytes);
    if (!word) return word.error();
    payload = std::move(*word);
    return {};
  };
  if (auto* offer = std::get_if<wire::Offer>(&message)) {
    RETURN_IF_ERROR(replace(offer->tokens, sizes.tokens));
    return replace(offer->boundary, sizes.input);
  }
  if (auto* gradient = std::get_if<wire::Gradient>(&message)) return replace(gradient->boundary_gradient, sizes.output);
  return {};
}

}  // namespace stagecoach::world::paced
