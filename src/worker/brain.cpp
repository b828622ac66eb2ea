#include "worker/brain.h"

#include <algorithm>

namespace stagecoach::worker {

using base::Duration;
using base::Instant;
using base::MicrobatchIndex;
using base::PeerId;
using base::ShardIndex;
using base::Step;

namespace {
/// Requests on the device at once: one running and one behind it, so that the device never waits for the loop.
constexpr std::size_t kDeviceDepth = 2;
/// Requests that outlive an attempt: all others belong to open steps and are void with it.
bool outlives_attempt(const ComputeRequest& request) {
  return std::holds_alternative<Apply>(request) || std::holds_alternative<ApplyNothing>(request) ||
         std::holds_alternative<VoidAttemptsBefore>(request) || std::holds_alternative<ExportState>(request);
}
template <class T>
constexpr std::size_t kind_of() {
  return ComputeRequest(T{}).index();
}
}  // namespace

Brain::Brain(Options options) : options_(std::move(options)), window_(std::make_unique<ExactWindow>()) {}

Effects Brain::start(Instant now) {
  now_ = now;
  give_up_at_ = now + Duration::seconds(60);
  dial_coordinator();
  return std::exchange(effects_, {});
}

Effects Brain::step(Event event, Instant now) {
  now_ = std::max(now, now_);
  if (phase_ == Phase::ended) return {};
  if (auto* up = std::get_if<wire::LinkIsUp>(&event)) on_link_up(*up);
  else if (auto* down = std::get_if<wire::LinkIsDown>(&event)) on_link_down(*down);
  else if (auto* prepared = std::get_if<PrepareDone>(&event)) on_prepare_done(*prepared);
  else if (auto* done = std::get_if<ComputeDone>(&event)) on_compute_done(*done);
  else if (auto* tick = std::get_if<Tick>(&event)) on_tick(*tick);
  else if (std::holds_alternative<LeaveRequested>(event)) {
    effects_.push_back(wire::CloseLink{options_.coordinator, "the worker leaves: its user asked for it"});
    exit(0, "left the run");
  } else {
    auto& arrived = std::get<wire::MessageArrived>(event);
    if (arrived.peer == options_.coordinator) on_coordinator_message(arrived.message);
    else on_data(arrived.peer, std::move(arrived.message));
  }
  dispatch_compute();
  return std::exchange(effects_, {});
}

Instant Brain::next_deadline() const {
  if (phase_ == Phase::ended) return Instant::never();
  return std::min({redial_at_, give_up_at_, links_due_, redial_members_at_, troubles_due_, telemetry_due_, outgoing_due_});
}

void Brain::on_tick(const Tick& tick) {
  bytes_sent_ = tick.bytes_sent;
  bytes_received_ = tick.bytes_received;
  if (now_ >= give_up_at_) {
    const bool known = phase_ != Phase::joining;
    return exit(known ? 3 : 1, known ? "the coordinator has been silent for a minute: the run has ended or its machine is down. Join "
                                       "again with the same link when it is back"
                                     : "the coordinator does not answer at " + options_.coordinator_addresses.front().host + ":" +
                                           std::to_string(options_.coordinator_addresses.front().port) +
                                           ": is it running, is the link right, does UDP get through?");
  }
  if (now_ >= redial_at_) dial_coordinator();
  if (now_ >= links_due_) {
    for (const auto& [stage, view] : views_)
      for (const auto& member : view.members)
        if (member.peer != options_.self && !is_up(member.peer))
          trouble(wire::TroubleKind::unreachable, member.peer, "no link came up within the time for dialling");
    dial_members();
  }
  if (now_ >= redial_members_at_) dial_members();
  if (now_ >= troubles_due_) send_troubles();
  if (now_ >= outgoing_due_) send_state(tick.queued_bytes);
  if (now_ >= telemetry_due_) {
    send_telemetry();
    close_strangers();
  }
}

void Brain::issue(ComputeRequest request, Step step, MicrobatchIndex m, ShardIndex shard) {
  const base::OpId op(next_op_++);
  pending_[op] = Pending{step, m, shard, request.index()};
  if (on_device_++ == 0) device_since_ = now_;
  effects_.push_back(Compute{op, std::move(request)});
}

void Brain::urgent(ComputeRequest request, Step step, ShardIndex shard) {
  const std::size_t kind = request.index();
  urgent_.emplace_back(std::move(request), Pending{step, {}, shard, kind});
}

void Brain::dispatch_compute() {
  while (on_device_ < kDeviceDepth && phase_ != Phase::ended) {
    if (!urgent_.empty()) {
      auto [request, about] = std::move(urgent_.front());
      urgent_.pop_front();
      issue(std::move(request), about.step, about.m, about.shard);
      continue;
    }
    // Backward work first: it frees custody upstream and is what a step waits for (DESIGN §4.3).
    auto& ready = backward_ready_.empty() ? forward_ready_ : backward_ready_;
    if (ready.empty()) return;
    const bool backward = &ready == &backward_ready_;
    const auto [step, m] = *ready.begin();
    ready.erase(ready.begin());
    const Microbatch& mb = books_.at(step).microbatches[m.value()];
    const base::WeightVersion version = window_->version_for(step, m);
    if (!backward) issue(Forward{version, step, attempt_, m, !evaluates(step, m), mb.input}, step, m, {});
    else if (evaluates(step, m)) issue(Evaluate{version, mb.input}, step, m, {});
    else issue(Backward{version, step, attempt_, m, mb.input, mb.output_gradient}, step, m, {});
  }
}

void Brain::drop_open_work() {
  std::erase_if(urgent_, [](const auto& entry) { return !outlives_attempt(entry.first); });
  std::erase_if(pending_, [](const auto& entry) {
    const std::size_t kind = entry.second.kind;
    return kind != kind_of<Apply>() && kind != kind_of<ApplyNothing>() && kind != kind_of<VoidAttemptsBefore>() &&
           kind != kind_of<ExportState>();
  });
  backward_ready_.clear();
  forward_ready_.clear();
}

void Brain::on_compute_done(ComputeDone& done) {
  CHECK(on_device_ > 0, "a completion belongs to a request");
  --on_device_;
  device_since_ = now_;
  busy_ns_ += static_cast<std::uint64_t>(done.took.ns());
  service_max_ns_ = std::max(service_max_ns_, static_cast<std::uint64_t>(done.took.ns()));
  const auto it = pending_.find(done.op);
  if (it == pending_.end()) return;  // of an attempt that is void: dropped, whatever it says
  const Pending about = it->second;
  pending_.erase(it);
  if (done.error) {
    const bool numbers = done.error->code == base::ErrorCode::not_finite || done.error->code == base::ErrorCode::out_of_range;
    return trouble(numbers ? wire::TroubleKind::bad_numbers : wire::TroubleKind::device_failed, PeerId{},
                   "step " + std::to_string(about.step.value()) + ": " + done.error->message);
  }
  if (about.kind == kind_of<Forward>()) forward_done(about.step, about.m, done.result);
  else if (about.kind == kind_of<Backward>() || about.kind == kind_of<Evaluate>()) backward_done(about.step, about.m, done.result);
  else if (about.kind == kind_of<ReadSum>())
    run_actions(about.step, books_.at(about.step).reduce->shard_read(about.shard, std::move(done.result.payload)));
  else if (about.kind == kind_of<AddParts>())
    run_actions(about.step, books_.at(about.step).reduce->parts_added(about.shard, std::move(done.result.payload)));
  else if (about.kind == kind_of<WriteReduced>()) on_reduced_written(about.step, done.result);
  else if (about.kind == kind_of<Apply>() || about.kind == kind_of<ApplyNothing>()) applied(about.step);
  else if (about.kind == kind_of<ExportState>()) {
    outgoing_ = Outgoing{base::WeightVersion(about.step.value()), std::move(done.result.state), 0, 0};
    send_state(0);
  }
}

void Brain::send(const PeerId& peer, wire::Message message) {
  if (is_up(peer)) {
    effects_.push_back(wire::Send{peer, std::move(message)});
  } else if (peer != options_.coordinator) {
    // A member of the view whose link is being dialled. The view bounds what can pile up here: one step's worth of messages.
    outbox_[peer].push_back(std::move(message));
  }
}

const wire::StageView* Brain::view_of(std::uint64_t stage) const {
  const auto it = views_.find(stage);
  return it == views_.end() ? nullptr : &it->second;
}

std::optional<std::uint64_t> Brain::stage_of(const PeerId& peer) const {
  for (const auto& [stage, view] : views_)
    for (const auto& member : view.members)
      if (member.peer == peer) return stage;
  return std::nullopt;
}

wire::Stamps Brain::stamps(std::uint64_t to_stage, Step step, MicrobatchIndex m) const {
  wire::Stamps s;
  s.stage = base::StageIndex(stage_);
  s.step = step;
  s.attempt = attempt_;
  s.from_view = views_.at(stage_).number;
  s.to_view = views_.at(to_stage).number;
  s.microbatch = m;
  s.version = window_->version_for(step, m);
  s.tokens = static_cast<std::uint32_t>(config_.batch.sequences * config_.batch.tokens);
  return s;
}

bool Brain::evaluates(Step step, MicrobatchIndex m) const {
  return m.value() >= static_cast<std::uint64_t>(books_.at(step).plan.train);
}

BookCounts count(const Books& books) {
  BookCounts counts;
  for (const auto& [step, open] : books) {
    for (const Microbatch& mb : open.microbatches) {
      if (!mb.owned) continue;
      if (mb.backward == Work::done) ++counts.accumulated;
      else if (mb.down.held) ++counts.accepted;
      else if (mb.down.named) ++counts.offered;
      else if (mb.forward == Work::done) ++counts.forwarded;
    }
    counts.reduced += static_cast<std::uint32_t>(open.reduce->taken());
  }
  return counts;
}

}  // namespace stagecoach::worker
