// Claims: a paced device is named with or without its share, or read from a file; what is neither is refused with what there is; a
// device that is written reads back.
#include "app/device_choice.h"

#include <gmock/gmock.h>

#include <unistd.h>

#include <cstdio>
#include <filesystem>

namespace stagecoach::app {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

class DeviceFile {
 public:
  explicit DeviceFile(const std::string& text) : path_(std::filesystem::temp_directory_path() / ("device-" + std::to_string(::getpid()) + ".toml")) {
    std::FILE* file = std::fopen(path_.c_str(), "w");
    std::fputs(text.c_str(), file);
    std::fclose(file);
  }
  ~DeviceFile() { std::filesystem::remove(path_); }
  std::string name() const { return "paced:" + path_.string(); }

 private:
  std::filesystem::path path_;
};

TEST(DeviceChoice, NamesAndShares) {
  for (const char* real : {"auto", "cpu", "cuda", "mps"}) {
    const auto none = paced_device(real);
    ASSERT_TRUE(none.ok()) << real;
    EXPECT_FALSE(none->has_value());
  }
  const auto a100 = paced_device("paced:a100");
  ASSERT_TRUE(a100.ok());
  EXPECT_EQ((*a100)->speed.flops_per_s, 312e12);
  EXPECT_EQ((*a100)->speed.mfu, 0.4);
  EXPECT_EQ(paced_device("paced:h100@0.38").value()->speed.mfu, 0.38);
}

TEST(DeviceChoice, NonsenseIsRefusedWithWhatThereIs) {
  for (const char* words : {"gpu", "paced:", "paced:a100@", "paced:a100@2", "paced:a100@x", "paced:a200"}) {
    const auto refused = paced_device(words);
    ASSERT_FALSE(refused.ok()) << words;
    EXPECT_THAT(refused.error().message, AnyOf(HasSubstr("paced:NAME"), HasSubstr("a100, h100, rtx4090"))) << words;
  }
}

TEST(DeviceChoice, AWrittenDeviceReadsBack) {
  world::real::PacedDevice::Options measured;
  measured.speed.forward = {base::Duration::microseconds(1500), base::Duration::milliseconds(20)};
  measured.speed.backward = {base::Duration::milliseconds(60)};
  measured.speed.memory_bytes_per_s = 1.5e12;
  measured.slowdown = 5;
  measured.bulk_scale = 0.001;
  const DeviceFile file(device_text(measured));
  const auto read = paced_device(file.name());
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ((*read)->speed.forward, measured.speed.forward);
  EXPECT_EQ((*read)->speed.backward, measured.speed.backward);
  EXPECT_EQ((*read)->speed.memory_bytes_per_s, 1.5e12);
  EXPECT_EQ((*read)->slowdown, 5);
  EXPECT_EQ((*read)->bulk_scale, 0.001);
}

TEST(DeviceChoice, AFileNamesItsFaultyLine) {
  const DeviceFile file("flops = \"312T\"\nmuf = 0.4\n");
  const auto refused = paced_device(file.name());
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr(".toml:2"));
  EXPECT_THAT(refused.error().message, HasSubstr("muf"));
}

}  // namespace
}  // namespace stagecoach::app
