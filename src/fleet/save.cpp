// Checkpoints: one member per stage streams its state of one version; the world writes it; complete or it does not exist.
#include <algorithm>

#include "base/tensor_bytes.h"
#include "fleet/brain.h"

namespace stagecoach::fleet {

using base::PeerId;
using base::Step;

base::WeightVersion Brain::newest_weights() const {
  // The step after the last one trains nothing: its weights are those of the last.
  return base::WeightVersion(std::min(committed_.value(), static_cast<std::uint64_t>(options_.config.schedule.steps)));
}

bool Brain::save_due(Step step) const {
  const auto last = static_cast<std::uint64_t>(options_.config.schedule.steps);
  if (step.value() > last || saved_.value() >= step.value()) return false;
  if (step.value() == last || stopping_) return true;
  return options_.checkpoint_every > 0 && step.value() % options_.checkpoint_every == 0;
}

void Brain::request_save() {
  if (save_) {
    save_wanted_ = true;  // the one before is still on its way: at the next commit after it
    return;
  }
  Save save;
  save.version = base::WeightVersion(committed_.value());
  save_wanted_ = true;
  for (const auto& view : views_) {
    // A member whose link is down would never hear the request: if a stage has no other, the next event tries again.
    const auto linked = std::find_if(view.members.begin(), view.members.end(), [&](const wire::Member& member) {
      const auto it = workers_.find(member.peer);
      return it != workers_.end() && it->second.linked;
    });
    if (linked == view.members.end()) return;
    save.sources.push_back(Save::Source{linked->peer, 0, {}, {}, 0});
  }
  save_wanted_ = false;
  save_error_.reset();  // of an earlier one: this one may succeed
  effects_.push_back(CheckpointBegin{save.version, views_.size()});
  for (const auto& source : save.sources) send(source.peer, wire::SaveRequest{options_.term, save.version});
  save_ = std::move(save);
}

void Brain::abandon_save(const std::string& reason) {
  effects_.push_back(CheckpointAbandon{save_->version, reason});
  save_.reset();
  save_wanted_ = true;
}

bool Brain::belongs(std::uint64_t stage, const wire::StateChunk& chunk) const {
  if (options_.state_shapes.empty()) return true;
  const bool narrow = options_.config.numbers.state == model::FloatKind::bfloat16;
  const auto& shapes = options_.state_shapes[stage];
  const auto it = shapes.find(chunk.name);
  return it != shapes.end() && it->second == chunk.shape && chunk.tensors == shapes.size() &&
         chunk.dtype == static_cast<std::uint8_t>(narrow ? base::DType::bf16 : base::DType::f32);
}

void Brain::on_state_chunk(const PeerId& peer, wire::StateChunk& chunk) {
  if (!save_ || save_->handed_over || chunk.version != save_->version) return;  // of a checkpoint that was given up
  const std::uint64_t stage = workers_.at(peer).stage;
  Save::Source& source = save_->sources[stage];
  if (source.peer != peer) return;
  constexpr std::uint64_t kTensorMax = std::uint64_t{1} << 40;
  std::uint64_t bytes = chunk.dtype <= 3 ? base::bytes_per_element(static_cast<base::DType>(chunk.dtype)) : 0;
  for (std::uint64_t extent : chunk.shape) bytes = extent < kTensorMax && bytes < kTensorMax ? bytes * extent : kTensorMax;
  const bool fits = chunk.tensors > 0 && chunk.tensors <= 4 * wire::kNormsMax && chunk.tensor < chunk.tensors && bytes > 0 &&
                    bytes < kTensorMax && chunk.bytes && (source.tensors == 0 || source.tensors == chunk.tensors) &&
                    belongs(stage, chunk) && source.names.try_emplace(chunk.name, chunk.tensor).first->second == chunk.tensor;
  auto added = TensorPieces::Added::nonsense;
  if (fits) {
    TensorPieces& pieces = source.arrived.try_emplace(chunk.tensor, bytes).first->second;
    if (pieces.bytes() == bytes) added = pieces.add(chunk.offset, chunk.bytes->size());
    if (added == TensorPieces::Added::fresh && pieces.whole()) ++source.done;
  }
  if (added == TensorPieces::Added::repeat) return;  // the save was asked for again after a link broke
  if (added == TensorPieces::Added::nonsense) {
    abandon_save("stage " + std::to_string(stage) + " sent a state that makes no sense");
    return lose(peer, "it sent a state whose shapes and sizes contradict each other");
  }
  source.tensors = chunk.tensors;
  progress_at_ = now_;
  effects_.push_back(CheckpointChunk{base::StageIndex(stage), std::move(chunk)});
  for (const auto& each : save_->sources)
    if (each.tensors == 0 || each.done < each.tensors) return;
  save_->handed_over = true;
  effects_.push_back(CheckpointFinish{save_->version});
}

void Brain::on_checkpoint_done(const CheckpointDone& done) {
  if (!save_ || save_->version != done.version) return;
  save_.reset();
  if (done.error) {
    save_error_ = done.error->message;
    happened(CheckpointFailed{done.version, done.error->message});
    return;
  }
  save_error_.reset();
  saved_ = std::max(saved_, done.version);
  happened(CheckpointWritten{done.version, done.path});
}

}  // namespace stagecoach::fleet
