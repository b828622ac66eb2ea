#include "wire/codec.h"

#include <gtest/gtest.h>

#include <set>

#include "wire/test_frames.h"

namespace stagecoach::wire {
namespace {

using test::Lister;
using test::Ruler;

/// Stands for any field in a braced list.
struct Anything {
  template <class T>
  operator T() const;  // NOLINT: it must convert silently, and is never called
};

/// How many fields the struct T has.
template <class T, class... Fields>
constexpr std::size_t field_count() {
  if constexpr (requires { T{Fields{}..., Anything{}}; })
    return field_count<T, Fields..., Anything>();
  else
    return sizeof...(Fields);
}

// Claim: fields() of every message names every field of its struct, so that none stays behind when the message travels.
TEST(Codec, fields_names_every_field) {
  test::for_each_type([](auto index) {
    using M = std::variant_alternative_t<index(), Message>;
    const std::size_t travels = test::visited(Message(M{}), Lister{}).own_fields + (Traits<M>::stamped ? 1 : 0);
    EXPECT_EQ(travels, field_count<M>()) << Traits<M>::text;
  });
  EXPECT_EQ(field_count<Stamps>(), 9u)
      << "a new stamp needs a place in the header, in Filler and in docs/formats/frames.md";
}

// Claim: the numbers and names of the messages are all different, and none is one of the three that are reserved.
TEST(Codec, numbers_and_names_are_unique) {
  std::set<int> numbers{static_cast<int>(MessageType::fence), static_cast<int>(MessageType::report),
                        static_cast<int>(MessageType::sync)};
  std::set<std::string> names;
  test::for_each_type([&](auto index) {
    using M = std::variant_alternative_t<index(), Message>;
    EXPECT_TRUE(numbers.insert(static_cast<int>(Traits<M>::type)).second) << Traits<M>::text;
    EXPECT_TRUE(names.insert(Traits<M>::text).second) << Traits<M>::text;
  });
  EXPECT_EQ(numbers.size(), 27u);
}

void expect_round_trip(const Message& message) {
  SCOPED_TRACE(name_of(message));
  const base::Bytes frame = encode(message);
  const auto decoded = decode(frame);
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  ASSERT_EQ(decoded->index(), message.index());
  EXPECT_EQ(test::visited(*decoded, Lister{}).values, test::visited(message, Lister{}).values);
  if (const Stamps* stamps = stamps_of(message)) {
    EXPECT_TRUE(*stamps_of(*decoded) == *stamps);
  }
  EXPECT_EQ(encode(*decoded), frame);
}

// Claim: what is encoded decodes to the same values in every field, and those encode to the same bytes.
TEST(Codec, every_message_round_trips) {
  for (const Message& message : test::samples()) expect_round_trip(message);
  for (const Message& message : test::empty_samples()) expect_round_trip(message);
}

// Claim: the sample that the round trip carries has no two equal numbers, so that it would notice fields that changed
// places.
TEST(Codec, samples_hold_distinct_values) {
  for (const Message& message : test::samples()) {
    std::set<std::string> seen;
    for (const std::string& value : test::visited(message, Lister{}).values) {
      const bool small = value == "1" || value == "3" || value.starts_with("list of ");  // bools, enumerations, counts
      EXPECT_TRUE(seen.insert(value).second || small) << name_of(message) << ": " << value;
    }
  }
}

// Claim: no payload and a payload of no bytes are two different things, and stay so.
TEST(Codec, none_and_empty_payloads_differ) {
  ObjectChunk chunk;
  const base::Bytes none = encode(chunk);
  chunk.bytes = base::make_payload({});
  const base::Bytes empty = encode(chunk);
  EXPECT_EQ(empty.size(), none.size() + 4);
  const auto decoded_none = decode(none), decoded_empty = decode(empty);
  ASSERT_TRUE(decoded_none.ok() && decoded_empty.ok());
  EXPECT_EQ(std::get<ObjectChunk>(*decoded_none).bytes, nullptr);
  ASSERT_NE(std::get<ObjectChunk>(*decoded_empty).bytes, nullptr);
  EXPECT_TRUE(std::get<ObjectChunk>(*decoded_empty).bytes->empty());
}

// Claim: a double travels as its 64 bits: infinities, the sign of zero and a NaN's payload arrive as they were sent.
TEST(Codec, doubles_keep_their_bits) {
  for (const std::uint64_t bits :
       {0x8000000000000000u, 0x7ff0000000000000u, 0xfff8000000001234u, 0x7ff0000000000001u, 1ul}) {
    Commit commit;
    std::memcpy(&commit.global_norm, &bits, sizeof bits);
    const auto decoded = decode(encode(commit));
    ASSERT_TRUE(decoded.ok());
    EXPECT_EQ(std::memcmp(&std::get<Commit>(*decoded).global_norm, &bits, sizeof bits), 0);
  }
}

// Claim: a frame is a header of 80 bytes and a body of exactly the bytes that docs/formats/frames.md adds up to; the
// header's fields lie at the offsets given there.
TEST(Codec, layout_is_the_documented_one) {
  for (const Message& message : test::samples()) {
    SCOPED_TRACE(name_of(message));
    const base::Bytes frame = encode(message);
    EXPECT_EQ(frame.size(), test::visited(message, Ruler{}).at);
    base::ByteReader in(frame);
    EXPECT_EQ(base::as_text(in.raw(4)), "SC01");
    EXPECT_EQ(in.u8(), 1);
    in.u8();  // the type: the golden files hold it
    EXPECT_EQ(in.u8(), static_cast<int>(priority_of(message)));
    EXPECT_EQ(in.u8(), 0);
    EXPECT_EQ(in.u32(), frame.size() - 80);
    const Stamps none;
    const Stamps& stamps = stamps_of(message) ? *stamps_of(message) : none;
    EXPECT_EQ(in.u32(), stamps.tokens);
    EXPECT_EQ(in.u32(), stamps.stage.value());
    EXPECT_EQ(in.u32(), stamps.number);
    EXPECT_EQ(in.u64(), stamps.step.value());
    EXPECT_EQ(in.u64(), stamps.attempt.value());
    EXPECT_EQ(in.u64(), stamps.from_view.value());
    EXPECT_EQ(in.u64(), stamps.to_view.value());
    EXPECT_EQ(in.u64(), stamps.microbatch.value());
    EXPECT_EQ(in.u64(), stamps.version.value());
    EXPECT_EQ(frame.size() - in.remaining(), test::kHashAt);
    base::Bytes sealed = frame;
    test::seal(sealed);
    EXPECT_EQ(sealed, frame) << "length and hash are the documented ones";
  }
}

}  // namespace
}  // namespace stagecoach::wire
