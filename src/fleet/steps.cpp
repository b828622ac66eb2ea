// A step from lease to commit (PROTOCOL B1, B5, B6), and the end of the run.
#include <algorithm>
#include <cmath>
#include <limits>

#include "fleet/brain.h"

namespace stagecoach::fleet {

using base::PeerId;
using base::Step;

namespace {
constexpr std::uint64_t kTurnsMax = 256;  // of a head in a step, well within wire::kRangesMax
}  // namespace

void Brain::lease_step() {
  leases_.clear();
  step_began_ = progress_at_ = now_;
  if (draining_ || last_step_committed()) return;
  const auto total = static_cast<std::uint64_t>(model::plan_of(options_.config, open_step()).total());
  const auto& heads = views_[0].members;
  // In turns: stages work on the lowest microbatch that waits, so that of contiguous shares the last head's would come last everywhere, and
  // it alone would end the step with all of its backwards. Shares differ by at most one microbatch.
  const std::uint64_t turn = std::max<std::uint64_t>(1, total / (heads.size() * kTurnsMax)), whole = total / (turn * heads.size());
  const std::uint64_t dealt = whole * turn * heads.size(), rest = total - dealt;
  for (std::uint64_t i = 0; i < heads.size(); ++i) {
    wire::Lease lease{options_.term, attempt_, views_[0].number, open_step(), {}};
    for (std::uint64_t k = 0; k < whole; ++k) lease.ranges.push_back({base::MicrobatchIndex((k * heads.size() + i) * turn), turn});
    const std::uint64_t first = dealt + rest * i / heads.size(), last = dealt + rest * (i + 1) / heads.size();
    if (last > first) lease.ranges.push_back({base::MicrobatchIndex(first), last - first});
    leases_[heads[i].peer] = std::move(lease);
    send_leases(heads[i].peer);
  }
}

void Brain::send_leases(const PeerId& head) {
  const auto it = leases_.find(head);
  if (it != leases_.end() && !it->second.ranges.empty()) send(head, it->second);
}

void Brain::on_prepared(const PeerId& peer, wire::Prepared& prepared) {
  const Worker& worker = workers_.at(peer);
  if (prepared.attempt != attempt_ || prepared.step != open_step() || prepared.view != views_[worker.stage].number ||
      !worker.in_view || view_in_store_)
    return;  // of an attempt that is void, or of a step that is committed
  prepared_[peer] = std::move(prepared);
  progress_at_ = now_;
  try_commit();
}

bool Brain::all_prepared() const {
  for (const auto& view : views_)
    for (const auto& member : view.members)
      if (!prepared_.contains(member.peer)) return false;
  return true;
}

void Brain::try_commit() {
  if (phase_ != Phase::running || storing_ || !attempt_reasons_.empty() || !all_prepared()) return;
  CommitRecord record;
  if (std::string why; !make_record(record, why)) {
    if (++broken_[open_step()] >= 3) return end(8, "step " + std::to_string(open_step().value()) + " could not be closed: " + why);
    return want_attempt(why);
  }
  storing_ = base::OpId(next_op_++);
  commit_in_store_ = record;
  effects_.push_back(StoreCommit{*storing_, std::move(record)});
}

bool Brain::make_record(CommitRecord& record, std::string& why) const {
  const auto plan = model::plan_of(options_.config, open_step());
  record.step = open_step();
  record.attempt = attempt_;
  std::map<base::TensorIndex, double> norms;
  std::vector<std::optional<double>> losses(static_cast<std::size_t>(plan.total()));
  for (const auto& view : views_) {
    std::optional<std::uint64_t> hash;
    for (const auto& member : view.members) {
      const auto it = prepared_.find(member.peer);
      if (it == prepared_.end()) continue;  // only where a planted bug commits early
      const wire::Prepared& prepared = it->second;
      if (hash && *hash != prepared.hash) {
        why = "the replicas of stage " + std::to_string(view.stage.value()) + " reduced step " +
              std::to_string(open_step().value()) + " to different sums";
        return false;
      }
      if (!hash)
        for (const auto& norm : prepared.norms) norms[norm.tensor] = norm.sum_of_squares;
      hash = prepared.hash;
      for (const auto& loss : prepared.losses) {
        if (loss.microbatch.value() >= losses.size() || losses[loss.microbatch.value()]) {
          why = "the loss of a microbatch was reported twice";
          return false;
        }
        losses[loss.microbatch.value()] = loss.loss_sum;
      }
    }
    record.stages.push_back(StageResult{view.number, hash.value_or(0)});
  }
  double squares = 0;  // added in name order, so that it does not depend on the split (DESIGN §5)
  for (const auto& [tensor, sum] : norms) squares += sum;
  record.global_norm = std::sqrt(squares);
  if (!std::isfinite(record.global_norm)) {
    why = "a norm that is not finite was reported";
    return false;
  }
  for (std::size_t m = 0; m < losses.size(); ++m) {
    if (!losses[m]) {
      why = "the loss of microbatch " + std::to_string(m) + " was not reported";
      return false;
    }
    (m < static_cast<std::size_t>(plan.train) ? record.train_losses : record.eval_losses).push_back(*losses[m]);
  }
  return true;
}

wire::Commit Brain::commit_for(std::uint64_t stage) const {
  const CommitRecord& record = *newest_commit_;
  return wire::Commit{options_.term, record.step, record.attempt, record.stages[stage].view, record.stages[stage].hash,
                      record.global_norm};
}

void Brain::committed(const CommitRecord& record) {
  committed_ = record.step;
  newest_commit_ = record;
  prepared_.clear();
  unreachable_.clear();
  stalls_ = 0;
  broken_.clear();
  longest_step_ = std::max(longest_step_, now_ - step_began_);
  for (const auto& [peer, worker] : workers_) send(peer, commit_for(worker.stage));
  const auto& batch = options_.config.batch;
  const double tokens = static_cast<double>(batch.sequences * batch.tokens);
  const auto mean = [&](const std::vector<double>& sums) {
    double total = 0;  // in microbatch order
    for (double sum : sums) total += sum;
    return sums.empty() ? std::numeric_limits<double>::quiet_NaN() : total / (tokens * static_cast<double>(sums.size()));
  };
  StepCommitted what{record.step, record.attempt, mean(record.train_losses), std::nullopt, record.global_norm};
  if (!record.eval_losses.empty()) what.eval_loss = mean(record.eval_losses);
  happened(what);
  draining_ = stopping_ || last_step_committed();
  if (save_due(record.step) || save_wanted_) request_save();
  if (attempt_reasons_.empty()) lease_step();
}

void Brain::finish_if_done() {
  if (phase_ == Phase::gathering && stopping_) return end(0, "stopped before the first step");
  if (phase_ != Phase::running || !draining_ || storing_ || save_) return;
  if (saved_ < newest_weights()) {
    if (save_error_) return end(6, "the last checkpoint could not be written: " + *save_error_);
    return request_save();
  }
  end(0, last_step_committed() ? "the run is complete" : "stopped after step " + std::to_string(committed_.value()) + ", as asked");
}

std::string Brain::phase_text() const {
  if (phase_ == Phase::ended) return "";
  if (phase_ == Phase::gathering) {
    std::size_t ready = 0;
    for (const auto& [peer, worker] : workers_) ready += worker.ready;
    return std::to_string(ready) + " of " + std::to_string(options_.replicas * options_.split.size()) + " workers are ready, " +
           std::to_string(workers_.size() - ready) + " are loading";
  }
  if (view_in_store_ || !attempt_reasons_.empty())
    return "attempt " + std::to_string(attempt_.value()) + (attempt_reasons_.empty() ? "" : ": " + attempt_reasons_.front());
  if (draining_) return save_ ? "the last checkpoint is being written" : "the run ends";
  return "";  // it goes on: nothing to explain
}

}  // namespace stagecoach::fleet
