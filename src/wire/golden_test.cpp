// Golden frames: tests/golden/frames/<message>.hex holds the bytes of one filled frame of each type.
//
// A difference means that peers of two builds misunderstand each other. If the format is meant to change, raise
// kProtocolVersion, run this program once with STAGECOACH_WRITE_GOLDEN=1 in the environment, and read the difference
// before committing it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "wire/test_frames.h"

namespace stagecoach::wire {
namespace {

std::string to_hex(const base::Bytes& bytes) {
  constexpr std::size_t kBytesPerLine = 16;
  const char* digits = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto byte = std::to_integer<unsigned>(bytes[i]);
    text += digits[byte >> 4];
    text += digits[byte & 15];
    text += (i + 1) % kBytesPerLine == 0 || i + 1 == bytes.size() ? '\n' : ' ';
  }
  return text;
}

std::string path_of(const Message& message) {
  return std::string(STAGECOACH_GOLDEN_DIR) + "/frames/" + name_of(message) + ".hex";
}

// Claim: every message type encodes to the bytes of its golden file.
TEST(Golden, frames_have_the_recorded_bytes) {
  const char* write = std::getenv("STAGECOACH_WRITE_GOLDEN");
  for (const Message& message : test::samples()) {
    const std::string hex = to_hex(encode(message));
    if (write != nullptr && std::string(write) == "1") {
      std::ofstream(path_of(message), std::ios::binary) << hex;
    }
    std::ifstream file(path_of(message), std::ios::binary);
    ASSERT_TRUE(file) << path_of(message)
                      << " is missing: a new message type needs a golden file (see the top of golden_test.cpp)";
    std::stringstream recorded;
    recorded << file.rdbuf();
    EXPECT_EQ(hex, recorded.str()) << "the bytes of " << name_of(message) << " changed";
  }
}

}  // namespace
}  // namespace stagecoach::wire
