// The end of a step: the reduce among replicas, prepared, commit, and the state that a checkpoint asks for.
#include <algorithm>

#include "worker/brain.h"

namespace stagecoach::worker {

using base::MicrobatchIndex;
using base::PeerId;
using base::Step;
using wire::TroubleKind;

namespace {
constexpr base::Duration kStateTurn = base::Duration::milliseconds(10);  // how often the road is asked whether it has room again
}  // namespace

void Brain::open_steps() {
  if (applying_ || phase_ != Phase::in_view) return;
  const Step newest = window_->newest_open(Step(version_.value()));
  for (Step step(version_.value() + 1); step <= newest; step = step.next()) {
    if (books_.contains(step) || step > model::final_step(config_)) continue;
    open_step(step);
    publish_bits(step);
  }
  auto leases = std::exchange(leases_, {});
  for (const auto& lease : leases) take_lease(lease);
}

StepBooks& Brain::open_step(Step step) {
  StepBooks& books = books_[step];
  books.plan = model::plan_of(config_, step);
  const auto total = static_cast<std::uint64_t>(books.plan.total());
  books.microbatches.resize(total);
  books.accumulated = replica::Bitmap(total);
  replica::Reduce::Options options;
  for (const auto& member : views_.at(stage_).members) options.members.push_back(member.peer);
  options.self = options_.self;
  options.elements = window_->commit_applies(books.plan) ? ready_.elements : 0;
  options.element_bytes = ready_.element_bytes;
  options.shard_bytes_max = ready_.shard_bytes_max;
  options.bits = total;
  options.required = window_->closes_at(books.plan, tail());
  books.reduce = std::make_unique<replica::Reduce>(std::move(options));
  return books;
}

void Brain::publish_bits(Step step) {
  StepBooks& books = books_.at(step);
  wire::Bits bits{stamps(stage_, step, MicrobatchIndex(0)), books.accumulated.words()};
  for (const auto& member : views_.at(stage_).members)
    if (member.peer != options_.self) send(member.peer, bits);
  run_actions(step, books.reduce->bits_from(options_.self, books.accumulated));
}

void Brain::on_bits(const PeerId& from, const wire::Bits& bits) {
  StepBooks& books = books_.at(bits.stamps.step);
  if (!replica::Bitmap::valid(bits.words, books.microbatches.size())) {
    effects_.push_back(wire::CloseLink{from, "a bitmap of the wrong length"});
    return;
  }
  run_actions(bits.stamps.step, books.reduce->bits_from(from, replica::Bitmap(bits.words)));
}

void Brain::run_actions(Step step, const replica::Actions& actions) {
  for (const auto& action : actions) {
    StepBooks& books = books_.at(step);
    if (auto* read = std::get_if<replica::ReadShard>(&action)) {
      urgent(ReadSum{step, attempt_, read->shard, read->slice}, step, read->shard);
    } else if (auto* add = std::get_if<replica::AddParts>(&action)) {
      urgent(AddParts{step, add->shard, add->parts}, step, add->shard);
    } else if (auto* part = std::get_if<replica::SendPart>(&action)) {
      send(part->to, wire::Part{stamps(stage_, step, MicrobatchIndex(0)), part->shard, part->sums});
    } else if (auto* sum = std::get_if<replica::SendSum>(&action)) {
      send(sum->to, wire::Sum{stamps(stage_, step, MicrobatchIndex(0)), sum->shard, sum->sums});
    } else if (auto* broken = std::get_if<replica::Broken>(&action)) {
      trouble(TroubleKind::broken_books, PeerId{}, "step " + std::to_string(step.value()) + ": " + broken->text);
    } else if (std::holds_alternative<replica::Whole>(action)) {
      if (!window_->commit_applies(books.plan)) {
        ComputeResult nothing;
        on_reduced_written(step, nothing);
        continue;
      }
      WriteReduced write{step, attempt_, {}};
      for (const auto& [shard, sums] : books.reduce->sums()) write.sums.emplace_back(books.reduce->slice(shard), sums);
      urgent(std::move(write), step);
    }
  }
}

void Brain::on_reduced_written(Step step, ComputeResult& result) {
  StepBooks& books = books_.at(step);
  books.reduced_written = true;
  wire::Prepared& prepared = books.prepared;
  prepared.step = step;
  prepared.attempt = attempt_;
  prepared.view = views_.at(stage_).number;
  prepared.hash = result.hash;
  prepared.norms = std::move(result.norms);
  if (tail()) {
    for (std::uint64_t m = 0; m < books.microbatches.size(); ++m)
      if (books.microbatches[m].owned) prepared.losses.push_back({MicrobatchIndex(m), books.microbatches[m].loss_sum});
  }
  send_coordinator(prepared);
}

void Brain::on_commit(const wire::Commit& commit) {
  const Step committed(applying_ ? applying_->step : Step(version_.value()));
  if (commit.step <= committed) return;
  const auto it = books_.find(commit.step);
  if (applying_ || commit.step != committed.next() || it == books_.end() || it->second.prepared.step != commit.step ||
      it->second.prepared.hash != commit.hash || commit.attempt != attempt_)
    return fail("the coordinator committed step " + std::to_string(commit.step.value()) +
                " with a result that this worker does not hold: a damaged record; resume the run from its newest checkpoint");
  applying_ = commit;
  if (window_->commit_applies(it->second.plan)) urgent(Apply{commit.step, commit.attempt, commit.global_norm}, commit.step);
  else urgent(ApplyNothing{commit.step}, commit.step);
}

void Brain::applied(Step step) {
  CHECK(applying_ && applying_->step == step, "only the step of the newest commit is applied");
  version_ = base::WeightVersion(step.value());
  applying_.reset();
  microbatches_committed_ += books_.at(step).accumulated.count();
  books_.erase(step);  // custody ends here, and only here (B6)
  open_steps();
  unpark();
}

void Brain::on_save_request(const wire::SaveRequest& request) {
  const Step newest(applying_ ? applying_->step : Step(version_.value()));
  if (request.version.value() != newest.value())
    return note("asked to save version " + std::to_string(request.version.value()) + " while at " + std::to_string(newest.value()));
  // The device works in order: this runs after the apply that makes the version and before any later one.
  urgent(ExportState{request.version}, newest);
}

void Brain::send_state(std::uint64_t queued_bytes) {
  // A stage's state is many times what a link should hold: a window of slices at a time, the next when the road has taken these.
  constexpr std::size_t kSlice = 1u << 20;
  constexpr std::uint64_t kWindow = 16u << 20;
  if (!outgoing_) return;
  Outgoing& out = *outgoing_;
  while (queued_bytes < kWindow && out.tensor < out.state.size()) {
    const base::NamedTensor& tensor = out.state[out.tensor];
    const base::Bytes& bytes = *tensor.tensor.bytes;
    const std::size_t end = std::min(bytes.size(), out.offset + kSlice);
    wire::StateChunk chunk;
    chunk.version = out.version;
    chunk.tensor = static_cast<std::uint32_t>(out.tensor);
    chunk.tensors = static_cast<std::uint32_t>(out.state.size());
    chunk.name = tensor.name;
    chunk.dtype = static_cast<std::uint8_t>(tensor.tensor.dtype);
    chunk.shape.assign(tensor.tensor.shape.begin(), tensor.tensor.shape.end());
    chunk.offset = out.offset;
    chunk.bytes = base::make_payload(base::Bytes(bytes.begin() + static_cast<std::ptrdiff_t>(out.offset),
                                                 bytes.begin() + static_cast<std::ptrdiff_t>(end)));
    queued_bytes += chunk.bytes->size();
    send_coordinator(std::move(chunk));
    out.offset = end;
    if (end == bytes.size()) ++out.tensor, out.offset = 0;
  }
  const bool done = out.tensor == out.state.size();
  outgoing_due_ = done ? base::Instant::never() : now_ + kStateTurn;
  if (done) outgoing_.reset();
}

}  // namespace stagecoach::worker
