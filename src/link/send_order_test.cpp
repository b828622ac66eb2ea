#include "link/send_order.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace stagecoach::link {
namespace {

base::Instant at_ms(std::int64_t ms) { return base::Instant::from_ns(ms * 1'000'000); }

// Claim: class first, then the earliest deadline, then first come.
TEST(SendOrder, class_then_deadline_then_first_come) {
  const SendOrder expected[] = {
      {Priority::control, base::Instant::never(), 9}, {Priority::backward, at_ms(5), 7}, {Priority::backward, at_ms(6), 3},
      {Priority::forward, base::Instant::never(), 1}, {Priority::forward, base::Instant::never(), 2}, {Priority::bulk, at_ms(1), 0}};
  const std::set<SendOrder> sorted(std::rbegin(expected), std::rend(expected));
  EXPECT_TRUE(std::equal(sorted.begin(), sorted.end(), std::begin(expected)));
}

// Claim: beside endless urgent traffic bulk gets 5 % of the bytes, to a packet.
TEST(BulkFloor, bulk_gets_one_byte_in_twenty) {
  BulkFloor floor;
  std::uint64_t urgent = 0, bulk = 0;
  while (urgent + bulk < 10'000'000) {
    if (floor.bulk_is_due()) {
      floor.bulk_sent(1452);
      bulk += 1452;
    } else {
      floor.urgent_sent(1452);
      urgent += 1452;
    }
  }
  EXPECT_NEAR(static_cast<double>(bulk) / static_cast<double>(urgent + bulk), 0.05, 0.0005);
}

// Claim: a quiet time of urgent traffic does not save up more than 64 KiB of bulk.
TEST(BulkFloor, saved_up_bulk_is_bounded) {
  BulkFloor floor;
  for (int i = 0; i < 100'000; ++i) floor.urgent_sent(1452);
  std::uint64_t bulk = 0;
  for (; floor.bulk_is_due(); bulk += 1452) floor.bulk_sent(1452);
  EXPECT_LE(bulk, 64u * 1024 + 1452);
}

// Claim: driven exactly at its own deadlines, the bucket lets its rate through, within one per cent, and wakes no oftener than it sends.
TEST(TokenBucket, lets_its_rate_through) {
  TokenBucket bucket(1'000'000);
  base::Instant now = at_ms(100);
  const base::Instant end = now + base::Duration::seconds(10);
  std::uint64_t sent = 0, wakes = 0, sends = 0;
  while (now < end) {
    bucket.advance(now);
    ++wakes;
    for (; bucket.may_send(); ++sends) {
      bucket.sent(1200);
      sent += 1200;
    }
    now = bucket.ready_at();
  }
  EXPECT_NEAR(static_cast<double>(sent), 10e6, 0.01 * 10e6);
  EXPECT_LE(wakes, sends + 1);
}

// Claim: a frame far larger than the burst delays what follows by its whole time, not by less and not by more.
TEST(TokenBucket, a_debt_is_paid_in_full) {
  TokenBucket bucket(1'000'000);
  const base::Instant begin = at_ms(100);
  bucket.advance(begin);
  bucket.sent(3'010'000);  // the burst of 10 ms is 10,000 bytes: 3 s of debt stay
  const base::Instant ready = bucket.ready_at();
  EXPECT_NEAR((ready - begin).seconds_f64(), 3.0, 1e-5);
  bucket.advance(ready);
  EXPECT_TRUE(bucket.may_send());
}

// Claim: without a cap everything may go and nothing is waited for.
TEST(TokenBucket, no_cap_is_no_limit) {
  TokenBucket bucket(0);
  bucket.sent(1u << 30);
  EXPECT_TRUE(bucket.may_send());
  EXPECT_EQ(bucket.ready_at(), base::Instant::never());
}

}  // namespace
}  // namespace stagecoach::link
