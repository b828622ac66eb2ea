// Claim: a word comes back from the bytes that stood for it on the road, and from no others.
#include "world/paced/tensors.h"

#include <gtest/gtest.h>

namespace stagecoach::world::paced {
namespace {

base::Payload word_of(std::uint64_t value) {
  base::ByteWriter out;
  out.u64(value);
  return base::make_payload(out.take());
}

TEST(PacedTensors, AWordComesBackFromAnyLength) {
  for (const std::size_t bytes : {8u, 9u, 15u, 16u, 4096u, 4097u}) {
    const auto tensor = unfolded(word_of(0x1234'5678'9abc'def1), bytes);
    ASSERT_EQ(tensor->size(), bytes);
    const auto word = folded(tensor, bytes);
    ASSERT_TRUE(word.ok()) << bytes;
    EXPECT_TRUE(base::same_bytes(*word, word_of(0x1234'5678'9abc'def1)));
  }
}

TEST(PacedTensors, OneChangedByteIsSeen) {
  constexpr std::size_t kBytes = 1003;
  const auto tensor = unfolded(word_of(77), kBytes);
  for (const std::size_t at : {0u, 8u, 500u, 1002u}) {
    base::Bytes other = *tensor;
    other[at] ^= std::byte{1};
    const auto word = folded(base::make_payload(std::move(other)), kBytes);
    ASSERT_FALSE(word.ok()) << at;
    EXPECT_EQ(word.error().code, base::ErrorCode::corrupt);
  }
  EXPECT_FALSE(folded(tensor, kBytes + 1).ok());
  EXPECT_FALSE(folded(nullptr, kBytes).ok());
}

TEST(PacedTensors, MessagesCrossAtTheSizesOfBothEnds) {
  const TensorSizes above{40, 0, 100}, below{40, 100, 0};
  wire::Message offer = wire::Offer{{}, word_of(1), word_of(2)};
  unfold(offer, above);
  EXPECT_EQ(std::get<wire::Offer>(offer).tokens->size(), 40u);
  EXPECT_EQ(std::get<wire::Offer>(offer).boundary->size(), 100u);
  ASSERT_TRUE(fold(offer, below).ok());
  EXPECT_TRUE(base::same_bytes(std::get<wire::Offer>(offer).boundary, word_of(2)));
  wire::Message gradient = wire::Gradient{{}, word_of(3)};
  unfold(gradient, below);
  EXPECT_EQ(std::get<wire::Gradient>(gradient).boundary_gradient->size(), 100u);
  ASSERT_TRUE(fold(gradient, above).ok());
  EXPECT_TRUE(base::same_bytes(std::get<wire::Gradient>(gradient).boundary_gradient, word_of(3)));
  wire::Message small = wire::Offer{{}, word_of(1), word_of(2)};
  EXPECT_FALSE(fold(small, below).ok()) << "a device that sends words alone is no paced one";
}

}  // namespace
}  // namespace stagecoach::world::paced
