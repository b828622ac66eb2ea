#include "observe/progress.h"

#include <gtest/gtest.h>

namespace stagecoach::observe {
namespace {

base::Instant at(double seconds) { return base::Instant() + base::Duration::nanoseconds(static_cast<std::int64_t>(seconds * 1e9)); }

// Claim: after few steps the smoothed loss is their weighted mean, not a memory of the first one.
TEST(Progress, the_smoothed_loss_is_a_mean_of_what_was_seen) {
  Progress progress(10, 0, 100);
  RunStatus status;
  progress.fill(status);
  EXPECT_FALSE(status.train_loss_smoothed);
  progress.trained(1, 4.0, at(0));
  progress.fill(status);
  EXPECT_DOUBLE_EQ(*status.train_loss_smoothed, 4.0);
  progress.trained(2, 2.0, at(1));
  progress.fill(status);
  EXPECT_DOUBLE_EQ(*status.train_loss_smoothed, (0.95 * 4.0 + 2.0) / 1.95);
  EXPECT_DOUBLE_EQ(*status.train_loss, 2.0);
}

// Claim: rate and time left are those of the last steps; a start in the middle counts earlier steps' tokens.
TEST(Progress, the_rate_is_that_of_the_last_steps) {
  Progress progress(12, 2, 100);
  progress.trained(3, 1.0, at(0));
  progress.trained(4, 1.0, at(2));
  progress.trained(5, 1.0, at(4));
  progress.evaluated(5, 1.25);
  RunStatus status;
  progress.fill(status);
  EXPECT_EQ(status.tokens, 500u);
  EXPECT_DOUBLE_EQ(status.tokens_per_s, 50.0);
  EXPECT_DOUBLE_EQ(*status.eta_s, 14.0);
  EXPECT_EQ(*status.validation_loss, (LossPoint{5, 1.25}));
  EXPECT_EQ(status.train_history.size(), 3u);
}

}  // namespace
}  // namespace stagecoach::observe
