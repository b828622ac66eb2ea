#include "digest/digest.h"

#include <gtest/gtest.h>

namespace stagecoach::digest {
namespace {

// Claim: SHA-256 of "abc" is FIPS 180-2's example, whole or in pieces.
TEST(Digest, sha256_matches_the_standard_example) {
  const char* expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  EXPECT_EQ(sha256("abc").hex(), expected);
  Sha256Stream stream;
  stream.update(base::as_bytes("a"));
  stream.update(base::as_bytes("bc"));
  EXPECT_EQ(stream.finish().hex(), expected);
  stream.update(base::as_bytes("abc"));
  EXPECT_EQ(stream.finish().hex(), expected) << "a finished stream starts anew";
}

// Claim: XXH3-64 of the empty input is the constant of its specification.
TEST(Digest, xxh3_of_nothing_is_the_published_constant) { EXPECT_EQ(xxh3({}), 0x2D06800538D394C2ull); }

}  // namespace
}  // namespace stagecoach::digest
