// What the brains ask of the simulated world, and the checks on it.
#include <cstdio>

#include "wire/codec.h"
#include "world/sim/world.h"

namespace stagecoach::world::sim {

void World::run_worker_effects(Node node, worker::Effects effects) {
  WorkerNode& w = workers_[node];
  for (auto& effect : effects) {
    if (auto* send_it = std::get_if<wire::Send>(&effect)) {
      send(node, send_it->peer, send_it->message);
    } else if (auto* dial = std::get_if<wire::Dial>(&effect)) {
      network_.dial(node, nodes_.at(dial->peer));
    } else if (auto* close = std::get_if<wire::CloseLink>(&effect)) {
      network_.close(node, nodes_.at(close->peer), close->text);
    } else if (auto* exit = std::get_if<wire::Exit>(&effect)) {
      log(node, "EXIT", static_cast<std::uint64_t>(exit->code));
      exited(node, *exit);
      w.ended = true;
      network_.leave(node);
    } else if (auto* request = std::get_if<worker::Prepare>(&effect)) {
      prepare_worker(node, *request);
    } else if (auto* compute = std::get_if<worker::Compute>(&effect)) {
      run_compute(node, std::move(*compute));
    } else if (auto* said = std::get_if<worker::Note>(&effect); said && options_.trace) {
      std::printf("%12.6f node %zu says: %s\n", (timeline_.now() - Instant()).seconds_f64(), node, said->text.c_str());
    }
  }
  plan_tick(node);
}

void World::exited(Node node, const wire::Exit& exit) {
  if (exit.code != 0 && !workers_[node].at_risk)
    violate("worker " + std::to_string(node) + " ended though nothing had struck it: " + exit.text);
}

void World::prepare_worker(Node node, const worker::Prepare& request) {
  WorkerNode& w = workers_[node];
  w.stage = request.assign.stage.value();
  const Sums sums = sums_of(w.stage);
  w.device = std::make_unique<paced::ProvenanceStage>(config_, w.stage, options_.stages, lanes(), sums.elements);
  w.device->restore(request.assign.version, reference_.weights(w.stage, request.assign.version));
  constexpr std::size_t kWord = paced::kProvenanceBytes;
  const bool head = w.stage == 0, tail = w.stage + 1 == options_.stages;
  const worker::PrepareDone done{sums.elements, 8, kWord, head ? 0 : kWord, tail ? 0 : kWord, "provenance", std::nullopt, sums.shard_bytes_max};
  prepare(node, request, [this, node, done, starts = w.starts] {
    network_.for_node(node, [this, node, done, starts] {
      if (workers_[node].starts == starts) deliver_worker(node, done, "prepared");
    });
  });
}

void World::prepare(Node, const worker::Prepare&, std::function<void()> done) {
  timeline_.at(timeline_.now() + Duration::milliseconds(50), std::move(done));
}

Duration World::device_time(Node, const worker::ComputeRequest& request) {
  Duration time = Duration::microseconds(500);
  if (std::holds_alternative<worker::Forward>(request) || std::holds_alternative<worker::Evaluate>(request)) time = options_.forward_time;
  if (std::holds_alternative<worker::Backward>(request)) time = options_.backward_time;
  // Devices are never equally fast twice: 80 to 120 %.
  return Duration::nanoseconds(time.ns() * static_cast<std::int64_t>(80 + random_.below(41)) / 100);
}

void World::run_compute(Node node, worker::Compute compute) {
  WorkerNode& w = workers_[node];
  if (w.hung) return;
  const Duration took = device_time(node, compute.request);
  const Instant began = std::max(w.device_free, timeline_.now());
  w.device_free = began + took;
  timeline_.at(w.device_free, [this, node, took, began, starts = w.starts, compute = std::move(compute)] {
    network_.for_node(node, [this, node, took, began, starts, compute] {
      WorkerNode& device = workers_[node];
      if (device.ended || device.hung || device.starts != starts) return;
      worked(node, compute.request, began);
      worker::ComputeDone done{compute.op, {}, took, std::nullopt};
      auto result = device.device->run(compute.request);
      if (!result) return violate("node " + std::to_string(node) + ": " + result.error().message);
      done.result = std::move(*result);
      const auto version = device.device->version();
      if (device.device->weights() != reference_.weights(device.stage, version))
        return violate("the weights of stage " + std::to_string(device.stage) + " after step " + std::to_string(version.value()) +
                       " differ from the undisturbed run's");
      if (version.value() > durable_commit_.value()) return violate("a step was applied before its commit was durable");
      deliver_worker(node, std::move(done), "computed");
    });
  });
}

void World::run_coordinator_effects(fleet::Effects effects) {
  for (auto& effect : effects) {
    if (auto* send_it = std::get_if<wire::Send>(&effect)) {
      check_sent(send_it->message);
      send(kCoordinator, send_it->peer, send_it->message);
      if (std::holds_alternative<wire::SaveRequest>(send_it->message)) lose_save(nodes_.at(send_it->peer));
    } else if (auto* close = std::get_if<wire::CloseLink>(&effect)) {
      network_.close(kCoordinator, nodes_.at(close->peer), close->text);
    } else if (auto* exit = std::get_if<wire::Exit>(&effect)) {
      coordinator_ended_ = true;
      coordinator_exited(*exit);
    } else if (auto* view = std::get_if<fleet::StoreView>(&effect)) {
      on_store(*view);
    } else if (auto* commit = std::get_if<fleet::StoreCommit>(&effect)) {
      on_store(*commit);
    } else if (auto* happening = std::get_if<fleet::Happening>(&effect)) {
      on_happening(*happening);
    } else {
      on_checkpoint(effect);
    }
  }
  if (!coordinator_ended_) plan_tick(kCoordinator);
}

void World::coordinator_exited(const wire::Exit& exit) {
  if (exit.code != 0) violate("the coordinator gave up: " + exit.text);
}

Duration World::disk_time() {
  return Duration::nanoseconds(static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>(options_.disk_time_max.ns()) + 1)));
}

void World::on_store(fleet::StoreView& view) {
  if (view.record.attempt <= durable_attempt_) violate("an attempt number was used twice");
  newest_view_ = view.record;
  timeline_.at(timeline_.now() + disk_time(), [this, attempt = view.record.attempt, op = view.op] {
    durable_attempt_ = attempt;
    deliver_coordinator(fleet::StoreDone{op, std::nullopt}, "stored");
  });
}

void World::on_store(fleet::StoreCommit& commit) {
  timeline_.at(timeline_.now() + disk_time(), [this, record = std::move(commit.record), op = commit.op] {
    check_commit(record);
    durable_commit_ = record.step;
    deliver_coordinator(fleet::StoreDone{op, std::nullopt}, "stored");
  });
}

void World::check_sent(const wire::Message& message) {
  if (const auto* commit = std::get_if<wire::Commit>(&message); commit && commit->step > durable_commit_)
    violate("a commit was announced before it was durable");
  if (const auto* view = std::get_if<wire::View>(&message); view && view->attempt > durable_attempt_)
    violate("a view was announced before it was durable");
}

void World::check_commit(const fleet::CommitRecord& record) {
  if (record.step != durable_commit_.next()) violate("commits are not consecutive");
  if (record.attempt != durable_attempt_) violate("a commit of an attempt that is not the newest written one");
  if (record.train_losses != reference_.train_losses(record.step) || record.eval_losses != reference_.eval_losses(record.step))
    violate("the losses of step " + std::to_string(record.step.value()) + " differ from the undisturbed run's");
}

void World::on_checkpoint(const fleet::Effect& effect) {
  if (const auto* begin = std::get_if<fleet::CheckpointBegin>(&effect)) {
    if (checkpoint_) violate("a checkpoint began while another one was being made");
    checkpoint_ = Checkpoint{begin->version, {}};
  } else if (std::holds_alternative<fleet::CheckpointAbandon>(effect)) {
    checkpoint_.reset();
  } else if (const auto* chunk = std::get_if<fleet::CheckpointChunk>(&effect)) {
    check_chunk(*chunk);
  } else if (const auto* finish = std::get_if<fleet::CheckpointFinish>(&effect)) {
    if (!checkpoint_ || checkpoint_->tensors.size() != options_.stages * kProvenanceTensors)
      return violate("a checkpoint was finished with a hole in it");
    checkpoint_.reset();
    timeline_.at(timeline_.now() + disk_time(), [this, version = finish->version] {
      deliver_coordinator(fleet::CheckpointDone{version, "checkpoint", std::nullopt}, "saved");
    });
  }
}

void World::check_chunk(const fleet::CheckpointChunk& given) {
  const wire::StateChunk& chunk = given.chunk;
  const std::uint64_t weights = reference_.weights(given.stage.value(), chunk.version);
  if (!checkpoint_ || chunk.version != checkpoint_->version) return violate("a slice came for a checkpoint that nobody makes");
  if (base::ByteReader(*chunk.bytes).u64() != exported_word(weights, chunk.tensor))
    violate("a checkpoint holds weights of another version");
  if (!checkpoint_->tensors.emplace(given.stage.value(), chunk.tensor).second) violate("a checkpoint was given a slice twice");
}

void World::on_happening(const fleet::Happening& happening) {
  if (const auto* committed = std::get_if<fleet::StepCommitted>(&happening)) outcome_.train_losses.push_back(committed->train_loss);
  if (const auto* opened = std::get_if<fleet::AttemptOpened>(&happening)) {
    ++outcome_.attempts;
    if (opened->reason.find("made no progress") != std::string::npos && outcome_.hangs == 0)
      violate("only the net below all time-outs noticed that step " + std::to_string(opened->step.value()) + " was stuck");
    // The view is being written: a link that is lost now comes back around the moment at which the view arrives.
    if (flaps_left_ > 0)
      timeline_.at(timeline_.now() + Duration::milliseconds(static_cast<std::int64_t>(random_.below(120))), [this] { strike_flap(); });
  }
  if (std::holds_alternative<fleet::CheckpointWritten>(happening)) ++outcome_.checkpoints;
  if (const auto* opened = std::get_if<fleet::AttemptOpened>(&happening); opened && options_.trace)
    std::printf("%12.6f attempt %llu: %s\n", (timeline_.now() - Instant()).seconds_f64(),
                static_cast<unsigned long long>(opened->attempt.value()), opened->reason.c_str());
}

}  // namespace stagecoach::world::sim
