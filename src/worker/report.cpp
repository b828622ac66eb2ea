// What a worker tells about itself: trouble that needs a new view, figures, and what it waits for.
#include <algorithm>

#include "worker/brain.h"

namespace stagecoach::worker {

using base::Duration;
using base::Instant;
using base::PeerId;

namespace {
constexpr Duration kRepeatTrouble = Duration::seconds(2);  // reports are state: repeated until a new view answers them
constexpr Duration kTelemetryEvery = Duration::seconds(1);
}  // namespace

void Brain::trouble(wire::TroubleKind kind, const PeerId& partner, const std::string& text) {
  note("trouble" + (partner == PeerId{} ? std::string() : " with " + partner.short_hex()) + ": " + text);
  troubles_[partner] = wire::Trouble{attempt_, kind, partner, text.substr(0, wire::kTextMax)};
  send_troubles();
}

void Brain::send_troubles() {
  troubles_due_ = troubles_.empty() ? Instant::never() : now_ + kRepeatTrouble;
  for (const auto& [partner, report] : troubles_) send_coordinator(report);
}

void Brain::exit(int code, const std::string& text) {
  phase_ = Phase::ended;
  effects_.push_back(wire::Exit{code, text});
}

void Brain::send_telemetry() {
  telemetry_due_ = now_ + kTelemetryEvery;
  wire::Telemetry t;
  t.attempt = attempt_;
  t.version = version_;
  t.busy_ns = busy_ns_;
  t.service_max_ns = service_max_ns_;
  t.running_ns = on_device_ == 0 ? 0 : static_cast<std::uint64_t>((now_ - device_since_).ns());
  t.queued = static_cast<std::uint32_t>(urgent_.size() + backward_ready_.size() + forward_ready_.size() + on_device_);
  const BookCounts counts = count(books_);
  t.offered = counts.offered, t.accepted = counts.accepted, t.forwarded = counts.forwarded, t.accumulated = counts.accumulated;
  t.reduced = counts.reduced;
  t.committed = microbatches_committed_;
  t.bytes_sent = bytes_sent_, t.bytes_received = bytes_received_;
  t.waiting = waiting();
  send_coordinator(t);
}

std::string Brain::waiting() const {
  if (phase_ != Phase::in_view) return phase_ == Phase::ready ? "the run to begin" : "its stage's state and data";
  if (links_due_ != Instant::never()) {
    for (const auto& [stage, view] : views_)
      for (const auto& member : view.members)
        if (member.peer != options_.self && !is_up(member.peer))
          return "a link to " + member.peer.short_hex() + " of stage " + std::to_string(stage);
  }
  if (on_device_ > 0 || applying_) return "";
  for (const auto& [step, books] : books_) {
    if (books.prepared.step == step) return "the commit of step " + std::to_string(step.value());
    std::uint64_t owned = 0, gradients = 0;
    for (const auto& mb : books.microbatches) {
      owned += mb.owned;
      gradients += mb.owned && mb.down.named && !mb.output_gradient && mb.backward != Work::done;
    }
    if (gradients > 0 && !tail()) return std::to_string(gradients) + " gradients from stage " + std::to_string(stage_ + 1);
    if (books.reduce->started()) return books.reduce->waiting_for();
    return head() ? "leases" : owned == 0 ? "offers from stage " + std::to_string(stage_ - 1) : books.reduce->waiting_for();
  }
  return "the coordinator";
}

}  // namespace stagecoach::worker
