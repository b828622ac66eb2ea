#include "worker/tracer.h"

namespace stagecoach::worker {

using base::MicrobatchIndex;
using base::Step;
using observe::trace::Kind;
using observe::trace::Worked;

std::optional<observe::trace::Opened> Tracer::stepped(const Brain& brain, base::StageIndex stage) {
  const Step step(brain.version().value() + 1);
  if (!brain.books().contains(step)) return std::nullopt;
  if (step == step_ && brain.attempt() == attempt_) return std::nullopt;
  if (applying_ && step == step_) return std::nullopt;  // a view while the step is being applied: it is not done again
  const bool after_view = step == step_ || gone_;
  step_ = step, attempt_ = brain.attempt();
  applying_ = gone_ = false;
  return observe::trace::Opened{stage, step, attempt_, after_view};
}

void Tracer::begins(const ComputeRequest& request) {
  // Until the version moves on: then another step opens, and this one cannot again.
  if (std::holds_alternative<Apply>(request) || std::holds_alternative<ApplyNothing>(request)) applying_ = true;
}

std::optional<Worked> Tracer::work(const Brain& brain, const ComputeRequest& request, base::Instant began) const {
  if (const auto* forward = std::get_if<Forward>(&request)) return Worked{Kind::forward, forward->step, forward->attempt, forward->index, began};
  if (const auto* backward = std::get_if<Backward>(&request)) return Worked{Kind::backward, backward->step, backward->attempt, backward->index, began};
  if (const auto* evaluate = std::get_if<Evaluate>(&request)) return Worked{Kind::evaluate, step_, attempt_, evaluated(brain, *evaluate), began};
  return std::nullopt;
}

/// An evaluation does not name its microbatch, but its input is the one that the books hold.
MicrobatchIndex Tracer::evaluated(const Brain& brain, const Evaluate& request) const {
  const auto step = brain.books().find(step_);
  if (step == brain.books().end()) return MicrobatchIndex(0);
  const auto& all = step->second.microbatches;
  auto m = static_cast<std::uint64_t>(step->second.plan.train);
  while (m + 1 < all.size() && (all[m].input.tokens != request.input.tokens || all[m].input.boundary != request.input.boundary)) ++m;
  return MicrobatchIndex(m);
}

std::optional<observe::trace::Arrived> Tracer::arrival(const wire::Message& message) {
  const auto of = [](Kind kind, const wire::Stamps& stamps) { return observe::trace::Arrived{kind, stamps.step, stamps.attempt, stamps.microbatch}; };
  if (const auto* offer = std::get_if<wire::Offer>(&message)) return of(Kind::forward, offer->stamps);
  if (const auto* gradient = std::get_if<wire::Gradient>(&message)) return of(Kind::backward, gradient->stamps);
  return std::nullopt;
}

}  // namespace stagecoach::worker
