// Claims: quantities are read in the units on devices' boxes; bits and bytes, powers of ten and of two are told apart; nonsense is
// refused with an example.
#include "app/quantity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stagecoach::app {
namespace {

TEST(Quantity, bytes_in_both_families) {
  EXPECT_EQ(parse_bytes("80GB").value(), 80'000'000'000);
  EXPECT_EQ(parse_bytes("24GiB").value(), 24ll << 30);
  EXPECT_EQ(parse_bytes("1.5 TB").value(), 1'500'000'000'000);
  EXPECT_EQ(parse_bytes("4096").value(), 4'096);
}

TEST(Quantity, rates_are_bits_or_bytes) {
  EXPECT_DOUBLE_EQ(parse_rate("856Mbps").value(), 107e6);
  EXPECT_DOUBLE_EQ(parse_rate("1Gbit/s").value(), 125e6);
  EXPECT_DOUBLE_EQ(parse_rate("107MB/s").value(), 107e6);
}

TEST(Quantity, times_and_operations) {
  EXPECT_DOUBLE_EQ(parse_seconds("60ms").value(), 0.06);
  EXPECT_DOUBLE_EQ(parse_seconds("0s").value(), 0);
  EXPECT_DOUBLE_EQ(parse_flops("312T").value(), 312e12);
  EXPECT_DOUBLE_EQ(parse_flops("1e9").value(), 1e9);
}

TEST(Quantity, nonsense_is_refused_with_an_example) {
  for (const char* text : {"", "GB", "80XB", "-1GB", "nan", "inf", "1e300TB", "80GB80", "0"}) {
    auto refused = parse_bytes(text);
    ASSERT_FALSE(refused.ok()) << text;
    EXPECT_THAT(refused.error().message, testing::HasSubstr("80GB")) << text;
  }
  EXPECT_FALSE(parse_rate("856").ok()) << "bits or bytes?";
  EXPECT_FALSE(parse_rate("0Mbps").ok());
  EXPECT_FALSE(parse_seconds("60").ok());
  EXPECT_FALSE(parse_flops("312X").ok());
}

}  // namespace
}  // namespace stagecoach::app
