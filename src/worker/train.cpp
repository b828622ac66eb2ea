// The life of a microbatch at one worker: offers, compute, gradients (DESIGN §4).
#include <algorithm>

#include "worker/brain.h"

namespace stagecoach::worker {

using base::MicrobatchIndex;
using base::PeerId;
using base::Step;
using wire::TroubleKind;

namespace {
constexpr std::size_t kParkedMax = 16384;  // frames of all peers together
constexpr std::uint64_t kParkedBytesMax = 512u << 20;  // … and their tensors, unless a step of the model itself is larger

std::uint64_t bytes_of(const wire::Message& message) {
  const auto bytes = [](const base::Payload& payload) -> std::uint64_t { return payload ? payload->size() : 0; };
  if (const auto* offer = std::get_if<wire::Offer>(&message)) return bytes(offer->tokens) + bytes(offer->boundary);
  if (const auto* gradient = std::get_if<wire::Gradient>(&message)) return bytes(gradient->boundary_gradient);
  if (const auto* part = std::get_if<wire::Part>(&message)) return bytes(part->sums);
  if (const auto* sum = std::get_if<wire::Sum>(&message)) return bytes(sum->sums);
  return 0;
}
}  // namespace

void Brain::on_data(const PeerId& from, wire::Message message) {
  const wire::Stamps* stamps = wire::stamps_of(message);
  if (!stamps) {
    effects_.push_back(wire::CloseLink{from, std::string(wire::name_of(message)) + " is not for a worker"});
    return;
  }
  if (phase_ != Phase::in_view) return park(from, std::move(message));
  if (stale(*stamps)) return;
  const auto stage = stage_of(from);
  if (!stage) return;  // left with an earlier view, or a stranger: what it says may not even take room
  const bool newer = stamps->attempt > attempt_ || stamps->from_view > views_.at(*stage).number ||
                     stamps->to_view > views_.at(stage_).number;
  if (newer) return park(from, std::move(message));
  if (stamps->stage.value() != *stage) {
    effects_.push_back(wire::CloseLink{from, "a frame in the name of another stage"});
    return;
  }
  const Step committed(applying_ ? applying_->step : Step(version_.value()));
  if (stamps->step <= committed) return;  // the step is over; whoever sent it learns of the commit
  if (!books_.contains(stamps->step) || applying_) return park(from, std::move(message));
  accept_data(from, message);
}

bool Brain::stale(const wire::Stamps& stamps) const {
  if (stamps.attempt < attempt_ || stamps.to_view < views_.at(stage_).number) return true;
  const auto* view = view_of(stamps.stage.value());
  return view && stamps.from_view < view->number;
}

bool Brain::fits(const wire::Message& message) const {
  const auto bytes = [](const base::Payload& payload) { return payload ? payload->size() : 0; };
  if (const auto* offer = std::get_if<wire::Offer>(&message))
    return bytes(offer->tokens) == ready_.token_bytes && bytes(offer->boundary) == ready_.input_bytes;
  if (const auto* gradient = std::get_if<wire::Gradient>(&message)) return bytes(gradient->boundary_gradient) == ready_.output_bytes;
  const auto slice = static_cast<std::uint64_t>(std::min(ready_.shard_bytes_max, ready_.elements * ready_.element_bytes) + 8);
  if (const auto* part = std::get_if<wire::Part>(&message)) return bytes(part->sums) <= slice;
  if (const auto* sum = std::get_if<wire::Sum>(&message)) return bytes(sum->sums) <= slice;
  return true;
}

void Brain::park(const PeerId& from, wire::Message message) {
  // An honest neighbour is at most one step and one view ahead, and its tensors have the model's sizes: bounds on both are a bound
  // on memory. Nobody sends anything before we are ready, because no view holds us before.
  const auto step_size = static_cast<std::size_t>(config_.batch.microbatches + config_.batch.eval_microbatches);
  const auto from_it = std::count_if(parked_.begin(), parked_.end(), [&](const auto& entry) { return entry.first == from; });
  const bool early = phase_ == Phase::joining || phase_ == Phase::preparing;
  const std::uint64_t bytes_max =
      std::max<std::uint64_t>(kParkedBytesMax, 2 * step_size * (ready_.token_bytes + ready_.input_bytes + ready_.output_bytes));
  const bool crowded = static_cast<std::size_t>(from_it) >= 2 * step_size + 64 || parked_.size() >= kParkedMax ||
                       parked_bytes_ + bytes_of(message) > bytes_max;
  if (early || crowded || !fits(message)) {
    effects_.push_back(wire::CloseLink{from, early ? "data before this worker is in a view"
                                             : crowded ? "sends far ahead of the view and step that it was told of"
                                                       : "a tensor of the wrong length"});
    return;
  }
  parked_bytes_ += bytes_of(message);
  parked_.emplace_back(from, std::move(message));
}

void Brain::unpark() {
  auto waiting = std::exchange(parked_, {});
  parked_bytes_ = 0;
  for (auto& [from, message] : waiting) on_data(from, std::move(message));
}

bool Brain::in_plan(const wire::Stamps& stamps) const {
  const auto& plan = books_.at(stamps.step).plan;
  return stamps.microbatch.value() < static_cast<std::uint64_t>(plan.total());
}

void Brain::accept_data(const PeerId& from, wire::Message& message) {
  const std::uint64_t stage = *stage_of(from);
  const bool above = stage + 1 == stage_, below = stage == stage_ + 1, same = stage == stage_;
  if (!in_plan(*wire::stamps_of(message)) && !same) {
    effects_.push_back(wire::CloseLink{from, "names a microbatch beyond the step's plan"});
    return;
  }
  if (auto* offer = std::get_if<wire::Offer>(&message); offer && above) return on_offer(from, *offer);
  if (auto* accepted = std::get_if<wire::Accepted>(&message); accepted && below) return on_accepted(from, *accepted);
  if (auto* released = std::get_if<wire::Released>(&message); released && below) return on_released(from, *released);
  if (auto* gradient = std::get_if<wire::Gradient>(&message); gradient && below) return on_gradient(from, *gradient);
  if (auto* bits = std::get_if<wire::Bits>(&message); bits && same) return on_bits(from, *bits);
  if (auto* part = std::get_if<wire::Part>(&message); part && same) {
    const Step step = part->stamps.step;
    return run_actions(step, books_.at(step).reduce->part_from(from, part->shard, std::move(part->sums)));
  }
  if (auto* sum = std::get_if<wire::Sum>(&message); sum && same) {
    const Step step = sum->stamps.step;
    return run_actions(step, books_.at(step).reduce->sum_from(from, sum->shard, std::move(sum->sums)));
  }
  effects_.push_back(wire::CloseLink{from, std::string(wire::name_of(message)) + " does not come from that stage"});
}

void Brain::take_lease(const wire::Lease& lease) {
  if (!head()) return note("a lease came to a stage that is not the head");
  if (lease.step.value() <= version_.value()) return;
  if (!books_.contains(lease.step) || applying_) {
    leases_.push_back(lease);
    return;
  }
  const auto total = static_cast<std::uint64_t>(books_.at(lease.step).plan.total());
  for (const auto& range : lease.ranges)
    for (std::uint64_t m = range.first.value(); m < std::min(range.first.value() + range.count, total); ++m)
      own_at_head(lease.step, MicrobatchIndex(m));
}

void Brain::own_at_head(Step step, MicrobatchIndex m) {
  StepBooks& books = books_.at(step);
  Microbatch& mb = books.microbatches[m.value()];
  if (mb.owned) return;
  mb.owned = true;
  const auto train = static_cast<std::uint64_t>(books.plan.train);
  mb.input.data = m.value() < train
                      ? DataRef{false, (step.value() - 1) * static_cast<std::uint64_t>(config_.batch.microbatches) + m.value()}
                      : DataRef{true, m.value() - train};
  if (tail()) queue_backward(step, m);
  else queue_forward(step, m);
}

void Brain::on_offer(const PeerId& from, wire::Offer& offer) {
  const Step step = offer.stamps.step;
  const MicrobatchIndex m = offer.stamps.microbatch;
  Microbatch& mb = books_.at(step).microbatches[m.value()];
  if (!offer.tokens || offer.tokens->size() != ready_.token_bytes || !offer.boundary ||
      offer.boundary->size() != ready_.input_bytes) {
    effects_.push_back(wire::CloseLink{from, "an offer whose tensors have the wrong length"});
    return;
  }
  if (mb.owned && (mb.up.partner != from || !base::same_bytes(mb.input.boundary, offer.boundary)))
    return trouble(TroubleKind::broken_books, from,
                   "microbatch " + std::to_string(m.value()) + " was offered twice, by two owners or with two tensors");
  wire::Accepted accepted{stamps(stage_ - 1, step, m)};
  accepted.stamps.number = offer.stamps.number;
  send(from, accepted);
  if (mb.owned) return;
  mb.owned = true;
  mb.input.tokens = std::move(offer.tokens);
  mb.input.boundary = std::move(offer.boundary);
  mb.up = {from, offer.stamps.number};
  if (tail()) queue_backward(step, m);
  else queue_forward(step, m);
}

void Brain::queue_forward(Step step, MicrobatchIndex m) {
  books_.at(step).microbatches[m.value()].forward = Work::queued;
  forward_ready_.emplace(step, m);
}

void Brain::queue_backward(Step step, MicrobatchIndex m) {
  books_.at(step).microbatches[m.value()].backward = Work::queued;
  backward_ready_.emplace(step, m);
}

void Brain::forward_done(Step step, MicrobatchIndex m, ComputeResult& result) {
  Microbatch& mb = books_.at(step).microbatches[m.value()];
  if (result.tokens) mb.input.tokens = std::move(result.tokens);
  mb.output = std::move(result.payload);
  mb.forward = Work::done;
  try_offer(step, m);
}

std::optional<PeerId> Brain::choose_owner(MicrobatchIndex m) const {
  const auto* below = view_of(stage_ + 1);
  if (!below) return std::nullopt;
  // The member with the fewest of our microbatches still unanswered: who is faster answers sooner and is named more often. Ties go
  // round by microbatch, so that equal members share from the first one on.
  std::optional<PeerId> best;
  std::uint64_t fewest = 0;
  for (std::size_t i = 0; i < below->members.size(); ++i) {
    const PeerId& peer = below->members[(i + m.value()) % below->members.size()].peer;
    if (!is_up(peer)) continue;
    const auto it = outstanding_.find(peer);
    const std::uint64_t unanswered = it == outstanding_.end() ? 0 : it->second;
    if (!best || unanswered < fewest) best = peer, fewest = unanswered;
  }
  return best;
}

void Brain::try_offer(Step step, MicrobatchIndex m) {
  Microbatch& mb = books_.at(step).microbatches[m.value()];
  if (tail() || mb.forward != Work::done || mb.down.named) return;
  const auto owner = choose_owner(m);
  if (!owner) return;  // no link below is up yet: LinkIsUp tries again
  mb.down = {owner, mb.down.number + 1, false};
  ++outstanding_[*owner];
  wire::Offer offer{stamps(stage_ + 1, step, m), mb.input.tokens, mb.output};
  offer.stamps.number = mb.down.number;
  send(*owner, std::move(offer));
}

void Brain::try_offers() {
  for (auto& [step, books] : books_)
    for (std::uint64_t m = 0; m < books.microbatches.size(); ++m) try_offer(step, MicrobatchIndex(m));
}

void Brain::on_accepted(const PeerId& from, const wire::Accepted& accepted) {
  const Step step = accepted.stamps.step;
  const MicrobatchIndex m = accepted.stamps.microbatch;
  Microbatch& mb = books_.at(step).microbatches[m.value()];
  if (mb.down.named != from || mb.down.number != accepted.stamps.number || mb.down.held) return;
  mb.down.held = true;
  if (evaluates(step, m) && outstanding_[from] > 0) --outstanding_[from];  // nothing more comes back
}

void Brain::on_released(const PeerId& from, const wire::Released& released) {
  const Step step = released.stamps.step;
  const MicrobatchIndex m = released.stamps.microbatch;
  Microbatch& mb = books_.at(step).microbatches[m.value()];
  // Only the named owner's word about that very number opens the microbatch again (B1).
  if (mb.down.named != from || mb.down.number != released.stamps.number || mb.output_gradient) return;
  if (outstanding_[from] > 0) --outstanding_[from];
  mb.down.named.reset();
  mb.down.held = false;
  try_offer(step, m);
}

void Brain::on_gradient(const PeerId& from, wire::Gradient& gradient) {
  const Step step = gradient.stamps.step;
  const MicrobatchIndex m = gradient.stamps.microbatch;
  Microbatch& mb = books_.at(step).microbatches[m.value()];
  if (mb.down.named != from || evaluates(step, m)) return;
  if (!gradient.boundary_gradient || gradient.boundary_gradient->size() != ready_.output_bytes) {
    effects_.push_back(wire::CloseLink{from, "a gradient of the wrong length"});
    return;
  }
  if (mb.output_gradient) {
    if (!base::same_bytes(mb.output_gradient, gradient.boundary_gradient))
      trouble(TroubleKind::broken_books, from, "two different gradients for microbatch " + std::to_string(m.value()));
    return;
  }
  mb.output_gradient = std::move(gradient.boundary_gradient);
  mb.down.held = true;
  if (outstanding_[from] > 0) --outstanding_[from];
  queue_backward(step, m);
}

void Brain::backward_done(Step step, MicrobatchIndex m, ComputeResult& result) {
  StepBooks& books = books_.at(step);
  Microbatch& mb = books.microbatches[m.value()];
  mb.backward = Work::done;
  mb.loss_sum = result.loss_sum;
  mb.input_gradient = std::move(result.payload);
  books.accumulated.set(m.value());
  if (!head() && !evaluates(step, m)) {
    wire::Gradient gradient{stamps(stage_ - 1, step, m), mb.input_gradient};
    gradient.stamps.number = mb.up.number;
    send(*mb.up.partner, std::move(gradient));
  }
  if (accumulates_again(mb)) queue_backward(step, m);
  if (idle_in(books)) publish_bits(step);
}

bool Brain::idle_in(const StepBooks& books) const {
  const auto counted = window_->closes_at(books.plan, tail());
  for (std::uint64_t m = 0; m < counted; ++m)
    if (books.microbatches[m].owned && books.microbatches[m].backward != Work::done) return false;
  return true;
}

}  // namespace stagecoach::worker
