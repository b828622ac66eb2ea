#include "link/contention.h"

#include <gtest/gtest.h>

namespace stagecoach::link {
namespace {

base::PeerId key(std::uint8_t first) {
  base::PeerId peer;
  peer.bytes[0] = first;
  return peer;
}

// Claim: of two dials at once exactly one is let go on: the greater key accepts the smaller key's, the smaller key lets the other wait.
TEST(Contention, of_two_dials_that_of_the_smaller_key_goes_first) {
  const Standing smaller{key(1), key(2), true, std::nullopt};
  const Standing greater{key(2), key(1), true, std::nullopt};
  EXPECT_EQ(judge(smaller, {20, 1}), Verdict::wait);
  EXPECT_EQ(judge(greater, {10, 1}), Verdict::accept);
}

// Claim: with nothing else there a dial is accepted, whichever key is smaller.
TEST(Contention, a_lone_dial_is_accepted) {
  EXPECT_EQ(judge({key(1), key(2), false, std::nullopt}, {1, 1}), Verdict::accept);
  EXPECT_EQ(judge({key(2), key(1), false, std::nullopt}, {1, 1}), Verdict::accept);
}

// Claim: a dial made before the peer said its word on the link that is up is a leftover; one made after it replaces the link; so does
// any dial of another start.
TEST(Contention, newer_dials_replace_older_ones_do_not) {
  const Standing here{key(1), key(2), false, Greeting{7, 5}};
  EXPECT_EQ(judge(here, {7, 4}), Verdict::refuse);
  EXPECT_EQ(judge(here, {7, 5}), Verdict::refuse);
  EXPECT_EQ(judge(here, {7, 6}), Verdict::replace);
  EXPECT_EQ(judge(here, {8, 1}), Verdict::replace);
}

}  // namespace
}  // namespace stagecoach::link
