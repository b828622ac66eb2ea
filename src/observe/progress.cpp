#include "observe/progress.h"

#include <algorithm>

namespace stagecoach::observe {
namespace {
constexpr std::size_t kRecentSteps = 32;  // the rate is that of the last steps
constexpr double kSmoothing = 0.95;
}  // namespace

Progress::Progress(std::uint64_t steps, std::uint64_t done, std::int64_t tokens_per_step)
    : steps_(steps), step_(std::min(done, steps)), tokens_per_step_(tokens_per_step) {}

void Progress::trained(std::uint64_t step, double loss, base::Instant now) {
  step_ = step;
  loss_ = loss;
  weighted_loss_ = kSmoothing * weighted_loss_ + loss;
  weight_ = kSmoothing * weight_ + 1;
  add_point(train_history_, {step, loss});
  recent_.emplace_back(now, step);
  if (recent_.size() > kRecentSteps) recent_.pop_front();
}

void Progress::evaluated(std::uint64_t step, double loss) {
  validation_ = LossPoint{step, loss};
  add_point(validation_history_, *validation_);
}

void Progress::fill(RunStatus& status) const {
  status.step = step_;
  status.steps = steps_;
  status.tokens = step_ * static_cast<std::uint64_t>(tokens_per_step_);
  status.train_loss = loss_;
  status.train_loss_smoothed = weight_ > 0 ? std::optional(weighted_loss_ / weight_) : std::nullopt;
  status.validation_loss = validation_;
  status.train_history = train_history_;
  status.validation_history = validation_history_;
  if (recent_.size() < 2) return;
  const double seconds = (recent_.back().first - recent_.front().first).seconds_f64();
  const auto steps = static_cast<double>(recent_.back().second - recent_.front().second);
  if (seconds > 0) status.tokens_per_s = steps * static_cast<double>(tokens_per_step_) / seconds;
  if (steps > 0) status.eta_s = static_cast<double>(steps_ - step_) * seconds / steps;
}

}  // namespace stagecoach::observe
