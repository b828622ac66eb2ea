// What a peer may send that is not a frame: every damage is refused with its code, memory is taken only for what came.
//
// This program counts what operator new hands out, because "does not allocate" is otherwise a belief.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "base/prng.h"
#include "wire/test_frames.h"

namespace {
std::atomic<std::size_t> allocated_bytes{0};

void* counted_allocation(std::size_t bytes) {
  allocated_bytes += bytes;
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) std::abort();
  return memory;
}
}  // namespace

void* operator new(std::size_t bytes) { return counted_allocation(bytes); }
void* operator new[](std::size_t bytes) { return counted_allocation(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace stagecoach::wire {
namespace {

using base::Bytes;
using base::ErrorCode;
using test::Ruler;

/// decode(), with the bound on memory that holds for any bytes whatever: what was asked for while decoding, growth of
/// lists included, stays within 16 bytes for each that arrived (a list's struct is larger than its bytes; none of ours
/// is 4 times, and doubling asks for 4 times the final size) and one error sentence.
base::Result<Message> decode_counted(std::span<const std::byte> frame) {
  const std::size_t before = allocated_bytes;
  auto result = decode(frame);
  EXPECT_LE(allocated_bytes - before, 16 * frame.size() + 2048) << "memory for bytes that never came";
  return result;
}

void expect_refused(std::span<const std::byte> frame, const std::string& what, ErrorCode code = ErrorCode::corrupt) {
  const auto result = decode_counted(frame);
  ASSERT_FALSE(result.ok()) << what << " was accepted as " << name_of(*result);
  EXPECT_EQ(result.error().code, code) << what << ": " << result.error().message;
  EXPECT_FALSE(result.error().message.empty()) << what;
}

// Claim: a frame that was cut short anywhere is refused, as it came and also under a right length and hash.
TEST(Hostile, every_truncation_is_refused) {
  for (const Message& message : test::samples()) {
    const Bytes frame = encode(message);
    for (std::size_t size = 0; size < frame.size(); ++size) {
      const std::string what = name_of(message) + (" cut to " + std::to_string(size));
      Bytes cut(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(size));
      expect_refused(cut, what);
      if (size < kFrameHeaderBytes) continue;
      test::seal(cut);
      expect_refused(cut, what + " and sealed");
    }
  }
}

// Claim: a byte too many is refused, as it came and also when length and hash count it in.
TEST(Hostile, trailing_bytes_are_refused) {
  for (const Message& message : test::samples()) {
    Bytes frame = encode(message);
    frame.push_back(std::byte{0});
    expect_refused(frame, std::string(name_of(message)) + " with a trailing byte");
    test::seal(frame);
    expect_refused(frame, std::string(name_of(message)) + " with a sealed trailing byte");
  }
}

// Claim: a single changed bit is noticed wherever it is; in the version byte it reads as another version.
TEST(Hostile, every_single_bit_flip_is_refused) {
  for (const Message& message : test::samples()) {
    Bytes frame = encode(message);
    for (std::size_t bit = 0; bit < frame.size() * 8; ++bit) {
      const auto mask = static_cast<std::byte>(1u << (bit % 8));
      frame[bit / 8] ^= mask;
      expect_refused(frame, std::string(name_of(message)) + " with bit " + std::to_string(bit) + " flipped",
                     bit / 8 == test::kVersionAt ? ErrorCode::mismatch : ErrorCode::corrupt);
      frame[bit / 8] ^= mask;
    }
  }
}

/// Refused with each value of the header byte `at` that `legal` does not name, under a right hash.
template <class Legal>
void expect_byte_refused(const Message& message, std::size_t at, ErrorCode code, Legal legal) {
  for (int value = 0; value < 256; ++value) {
    if (legal(value)) continue;
    Bytes frame = encode(message);
    frame[at] = static_cast<std::byte>(value);
    test::seal(frame);
    expect_refused(
        frame, std::string(name_of(message)) + ": byte " + std::to_string(at) + " = " + std::to_string(value), code);
  }
}

// Claim: under a right hash, another magic, class or reserved byte is corrupt, and another version is a mismatch that
// names both.
TEST(Hostile, wrong_header_bytes_are_refused) {
  for (const Message& message : test::samples()) {
    const Bytes frame = encode(message);
    for (std::size_t at = 0; at < 4; ++at) {
      const int right = std::to_integer<int>(frame[at]);
      expect_byte_refused(message, at, ErrorCode::corrupt, [&](int value) { return value == right; });
    }
    expect_byte_refused(message, test::kVersionAt, ErrorCode::mismatch,
                        [](int value) { return value == kProtocolVersion; });
    const int priority = static_cast<int>(priority_of(message));
    expect_byte_refused(message, test::kClassAt, ErrorCode::corrupt, [&](int value) { return value == priority; });
    expect_byte_refused(message, test::kReservedAt, ErrorCode::corrupt, [](int value) { return value == 0; });
  }
  Bytes newer = encode(Commit{});
  newer[test::kVersionAt] = std::byte{9};
  const auto result = decode(newer);
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.error().message.find("version 9"), std::string::npos) << result.error().message;
  EXPECT_NE(result.error().message.find("speak 1"), std::string::npos) << result.error().message;
}

// Claim: a number that is no message's is refused; the reserved ones are refused by name.
TEST(Hostile, unknown_and_reserved_types_are_refused) {
  std::array<bool, 256> known{};
  test::for_each_type([&](auto index) {
    known[static_cast<std::size_t>(Traits<std::variant_alternative_t<index(), Message>>::type)] = true;
  });
  for (const Message& message : {Message(Commit{}), Message(Accepted{}), Message(Offer{})}) {
    expect_byte_refused(message, test::kTypeAt, ErrorCode::corrupt,
                        [&](int value) { return known[static_cast<std::size_t>(value)]; });
  }
  const std::pair<MessageType, const char*> reserved[] = {
      {MessageType::fence, "fence"}, {MessageType::report, "report"}, {MessageType::sync, "sync"}};
  for (const auto& [type, name] : reserved) {
    Bytes frame = encode(Commit{});
    frame[test::kTypeAt] = static_cast<std::byte>(type);
    test::seal(frame);
    const auto result = decode(frame);
    ASSERT_FALSE(result.ok()) << name;
    EXPECT_NE(result.error().message.find(name), std::string::npos) << result.error().message;
  }
}

// Claim: a header whose length is not the frame's is refused before the hash is looked at, let alone memory taken for
// it.
TEST(Hostile, wrong_length_is_refused) {
  for (const Message& message : test::samples()) {
    const Bytes frame = encode(message);
    const std::uint64_t right = frame.size() - kFrameHeaderBytes;
    for (const std::uint64_t length : {right + 1, right - 1, right + kFrameHeaderBytes, std::uint64_t{0xffffffff}}) {
      Bytes wrong = frame;
      test::put(wrong, test::kLengthAt, length, 4);
      test::rehash(wrong);
      expect_refused(wrong, name_of(message) + (" announcing " + std::to_string(length)));
    }
  }
}

// Claim: a control message with anything in the place of the stamps is refused: it would have two encodings.
TEST(Hostile, stamps_on_a_message_without_stamps_are_refused) {
  for (const Message& message : test::samples()) {
    if (stamps_of(message) != nullptr) continue;
    for (std::size_t at = test::kStampsAt; at < test::kHashAt; ++at) {
      Bytes frame = encode(message);
      frame[at] = std::byte{1};
      test::seal(frame);
      expect_refused(frame, name_of(message) + (" with a stamp at " + std::to_string(at)));
    }
  }
}

// Claim: a flag other than 0 and 1 and an enumerator beyond the last are refused: they would have two encodings, or no
// meaning.
TEST(Hostile, flags_and_enumerations_out_of_range_are_refused) {
  std::size_t tried = 0;
  for (const Message& message : test::samples()) {
    const Bytes frame = encode(message);
    for (const Ruler::Choice& choice : test::visited(message, Ruler{}).choices) {
      for (int value = choice.largest + 1; value < 256; ++value, ++tried) {
        Bytes wrong = frame;
        wrong[choice.at] = static_cast<std::byte>(value);
        test::seal(wrong);
        expect_refused(wrong,
                       name_of(message) + (": byte " + std::to_string(choice.at) + " = " + std::to_string(value)));
      }
    }
  }
  EXPECT_GT(tried, 0u);
  StateChunk chunk;
  chunk.dtype = 4;  // one beyond base::DType::i32
  expect_refused(encode(chunk), "a tensor of an unknown dtype");
}

// Claim: of an announced count or length, only what has arrived is believed: 2^32 − 1, anywhere in a body, is refused
// where it is a length and costs no memory wherever it is.
TEST(Hostile, announced_lengths_take_no_memory) {
  for (const Message& message : test::samples()) {
    const Bytes frame = encode(message);
    for (const Ruler::Length& length : test::visited(message, Ruler{}).lengths) {
      for (const std::uint64_t count :
           {std::uint64_t{0xffffffff}, std::uint64_t{0x80000000}, std::uint64_t{length.limit}}) {
        Bytes wrong = frame;
        test::put(wrong, length.at, count, 4);
        test::seal(wrong);
        const std::size_t before = allocated_bytes;
        expect_refused(wrong,
                       name_of(message) + (": " + std::to_string(count) + " elements at " + std::to_string(length.at)));
        EXPECT_LE(allocated_bytes - before, 64 * 1024u);
      }
    }
    for (std::size_t at = kFrameHeaderBytes; at + 4 <= frame.size(); ++at) {
      Bytes wrong = frame;
      test::put(wrong, at, 0xffffffff, 4);
      test::seal(wrong);
      (void)decode_counted(wrong);
    }
  }
}

/// `frame` with one element more in `length`: a copy of the last one.
Bytes with_one_more(const Bytes& frame, const Ruler::Length& length) {
  const auto part = [&](std::size_t from, std::size_t to) { return std::span(frame).subspan(from, to - from); };
  Bytes longer;
  longer.reserve(frame.size() + length.end - length.last_begin);
  for (const auto bytes : {part(0, length.end), part(length.last_begin, length.end), part(length.end, frame.size())}) {
    longer.insert(longer.end(), bytes.begin(), bytes.end());
  }
  test::put(longer, length.at, length.count + 1, 4);
  test::seal(longer);
  return longer;
}

// Claim: every text, list and payload may hold exactly as much as its bound, and with one element more, all of them
// present and well formed, the frame is refused. (Payloads of tensors: with STAGECOACH_LONG only.)
TEST(Hostile, every_bound_holds_to_the_element) {
  std::size_t bounds = 0;
  test::for_each_type([&](auto index) {
    const auto small = test::visited(test::filled<index()>(), Ruler{}).lengths;
    for (std::size_t field = 0; field < small.size(); ++field, ++bounds) {
      // Frames of hundreds of megabytes take seconds: the long dose has them, the bound is one line of the reader for all.
      if (small[field].limit > (8u << 20) && std::getenv("STAGECOACH_LONG") == nullptr) continue;
      Message message = test::filled<index()>(field);
      const Ruler::Length length = test::visited(message, Ruler{}).lengths.at(field);
      ASSERT_EQ(length.count, length.limit);
      const std::string what =
          name_of(message) + (": field " + std::to_string(field) + " of " + std::to_string(length.limit));
      const Bytes frame = encode(message);
      message = Message(StatusRequest{});
      {
        const auto full = decode_counted(frame);
        ASSERT_TRUE(full.ok()) << what << ": " << full.error().message;
        EXPECT_TRUE(encode(*full) == frame) << what;
      }
      expect_refused(with_one_more(frame, length), what + " and one more");
    }
    // The same edit below the bound gives a good frame, so that what was refused above is the bound and not the edit.
    for (const Ruler::Length& length : test::visited(test::filled<index()>(), Ruler{}).lengths) {
      if (length.count == length.limit) continue;
      const auto result = decode_counted(with_one_more(encode(test::filled<index()>()), length));
      EXPECT_TRUE(result.ok()) << name_of(test::filled<index()>()) << " at " << length.at;
    }
  });
  EXPECT_GT(bounds, 30u);
}

/// Damages one to four places of the frame after the magic, in the ways that find decoders' mistakes, and seals it
/// again.
void mutate(Bytes& frame, base::Prng& random) {
  constexpr std::uint64_t kWords[] = {0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff};
  for (std::uint64_t edits = 1 + random.below(4); edits > 0; --edits) {
    const std::size_t at = test::kTypeAt + random.below(frame.size() - test::kTypeAt);
    switch (random.below(4)) {
      case 0:
        frame[at] ^= static_cast<std::byte>(1u << random.below(8));
        break;
      case 1:
        test::put(frame, at, kWords[random.below(std::size(kWords))], std::min<std::size_t>(4, frame.size() - at));
        break;
      case 2:
        frame.insert(frame.begin() + static_cast<std::ptrdiff_t>(std::max(at, kFrameHeaderBytes)), random.below(9),
                     std::byte{1});
        break;
      case 3:
        frame.resize(std::max(kFrameHeaderBytes, frame.size() - random.below(9)));
        break;
    }
  }
  test::seal(frame);
}

// Claim: whatever decodes encodes to the very bytes that came, also for frames that nobody would write.
TEST(Hostile, mutated_frames_are_refused_or_canonical) {
  constexpr int kTriesPerType = 4000;
  base::Prng random(20240607);
  std::size_t accepted = 0, tried = 0;
  for (const Message& message : test::samples()) {
    const Bytes frame = encode(message);
    for (int i = 0; i < kTriesPerType; ++i, ++tried) {
      Bytes mutant = frame;
      mutate(mutant, random);
      const auto result = decode_counted(mutant);
      if (!result.ok()) continue;
      ++accepted;
      ASSERT_EQ(encode(*result), mutant) << name_of(message) << ", try " << i;
    }
  }
  EXPECT_GT(accepted, tried / 100) << "too few mutants got as far as a body";
  EXPECT_LT(accepted, tried);
}

}  // namespace
}  // namespace stagecoach::wire
