#include "world/sim/simulation.h"

#include <algorithm>
#include <cstdio>
#include <set>

#include "base/prng.h"
#include "digest/digest.h"
#include "wire/codec.h"
#include "world/sim/network.h"
#include "world/sim/provenance.h"

namespace stagecoach::world::sim {

using base::Duration;
using base::Instant;
using base::PeerId;

namespace {

constexpr Node kCoordinator = 0;

/// Node n's key: its number, spread over the bytes so that key order is not node order.
PeerId key_of(Node node) {
  PeerId id;
  for (std::size_t i = 0; i < 4; ++i) {
    const std::uint64_t word = base::mix64(node, i);
    for (std::size_t b = 0; b < 8; ++b) id.bytes[8 * i + b] = static_cast<std::uint8_t>(word >> (8 * b));
  }
  return id;
}

model::TrainConfig config_of(const Options& options) {
  model::TrainConfig config;
  config.model.layers = static_cast<std::int64_t>(options.stages);
  config.model.cut_kind = model::CutKind::none;
  config.model.cut_after.clear();
  config.schedule.steps = options.steps;
  config.batch.sequences = 1;
  config.batch.tokens = 1;
  config.batch.microbatches = options.microbatches;
  config.batch.eval_microbatches = options.eval_microbatches;
  config.batch.eval_every = options.eval_every;
  return config;
}

/// One run. Members are grouped by what they stand for; the entry is run().
class World {
 public:
  explicit World(const Options& options);
  Outcome run();

 private:
  struct WorkerNode {
    std::unique_ptr<worker::Brain> brain;
    std::unique_ptr<ProvenanceStage> device;
    std::uint64_t stage = 0;
    Instant device_free;
    Instant tick_planned = Instant::never();
    bool ended = false;
    bool at_risk = false;  // a fault that may cost its place has struck
  };

  void start_workers();
  void plan_faults();
  void strike_crash();
  void strike_stall();
  void strike_break();
  std::vector<Node> expendable() const;

  void deliver_worker(Node node, worker::Event event, const char* what);
  void deliver_coordinator(fleet::Event event, const char* what);
  void run_worker_effects(Node node, worker::Effects effects);
  void run_coordinator_effects(fleet::Effects effects);
  void run_compute(Node node, worker::Compute compute);
  Duration device_time(const worker::ComputeRequest& request);
  void send(Node from, const PeerId& to, const wire::Message& message);
  void plan_tick(Node node);
  void check_commit(const fleet::CommitRecord& record);
  void check_chunk(const fleet::CheckpointChunk& chunk);
  void on_happening(const fleet::Happening& happening);
  void log(Node node, const char* what, std::uint64_t detail = 0);
  void violate(const std::string& text);

  Options options_;
  model::TrainConfig config_;
  Reference reference_;
  base::Prng random_;
  Timeline timeline_;
  Network network_;
  std::map<PeerId, Node> nodes_;
  std::unique_ptr<fleet::Brain> coordinator_;
  Instant coordinator_tick_ = Instant::never();
  bool coordinator_ended_ = false;
  std::vector<WorkerNode> workers_;  // by node; [0] unused
  base::Step durable_commit_;
  base::Attempt durable_attempt_;
  Outcome outcome_;
};

World::World(const Options& options)
    : options_(options),
      config_(config_of(options)),
      reference_(undisturbed(config_, options.stages)),
      random_(base::mix64(options.seed, 1)),
      network_(timeline_, options.network, base::mix64(options.seed, 2),
               Network::Handler{
                   [this](Node at, Node peer) {
                     if (at == kCoordinator) deliver_coordinator(wire::LinkIsUp{key_of(peer), {}}, "up");
                     else deliver_worker(at, wire::LinkIsUp{key_of(peer), {}}, "up");
                   },
                   [this](Node at, Node peer, link::DownReason reason, const std::string& text) {
                     if (at == kCoordinator) deliver_coordinator(wire::LinkIsDown{key_of(peer), reason, text}, "down");
                     else deliver_worker(at, wire::LinkIsDown{key_of(peer), reason, text}, "down");
                   },
                   [this](Node at, Node from, const base::Payload& frame) {
                     auto message = wire::decode(*frame);
                     if (!message) return violate("a frame of ours does not decode: " + message.error().message);
                     const char* name = wire::name_of(*message);
                     if (at == kCoordinator) deliver_coordinator(wire::MessageArrived{key_of(from), std::move(*message)}, name);
                     else deliver_worker(at, wire::MessageArrived{key_of(from), std::move(*message)}, name);
                   }}) {}

Outcome World::run() {
  fleet::Options fleet;
  fleet.config = config_;
  for (std::uint64_t s = 0; s < options_.stages; ++s)
    fleet.split.push_back({static_cast<std::int64_t>(s), static_cast<std::int64_t>(s) + 1});
  fleet.replicas = options_.replicas;
  fleet.run = base::RunId(base::mix64(options_.seed, 3));
  fleet.config_text = model::canonical_text(config_);
  static_cast<base::Bytes32&>(fleet.config_id) = digest::sha256(fleet.config_text);
  fleet.layout_id = digest::sha256(model::canonical_text(fleet.split));
  fleet.term = base::Term(1);
  fleet.checkpoint_every = options_.checkpoint_every;
  coordinator_ = options_.make_coordinator ? options_.make_coordinator(fleet) : std::make_unique<fleet::Brain>(fleet);
  nodes_[key_of(kCoordinator)] = kCoordinator;
  start_workers();
  plan_faults();
  const Instant limit = Instant() + options_.time_limit;
  while (outcome_.violation.empty() && !coordinator_ended_) {
    if (timeline_.now() > limit) violate("the run is stuck: step " + std::to_string(coordinator_->committed().value()) + " after the time limit");
    else if (!timeline_.run_one()) violate("nothing is planned any more and the run is not done");
  }
  outcome_.ok = outcome_.violation.empty();
  outcome_.virtual_time = timeline_.now() - Instant();
  outcome_.final_weights.assign(options_.stages, 0);
  for (const auto& node : workers_)
    // The step after the last trains nothing; a worker may hear that the run is over before it has moved its version on.
    if (node.device && node.device->version().value() >= static_cast<std::uint64_t>(options_.steps))
      outcome_.final_weights[node.stage] = node.device->weights();
  if (outcome_.ok && coordinator_->committed() != model::final_step(config_)) violate("the run ended before its last step");
  for (std::uint64_t s = 0; outcome_.ok && s < options_.stages; ++s)
    if (outcome_.final_weights[s] != reference_.weights[s].back()) violate("the final weights of stage " + std::to_string(s) + " differ");
  outcome_.ok = outcome_.violation.empty();
  return outcome_;
}

void World::start_workers() {
  workers_.resize(1 + options_.stages * options_.replicas);
  for (Node node = 1; node < workers_.size(); ++node) {
    nodes_[key_of(node)] = node;
    worker::Options worker;
    worker.self = key_of(node);
    worker.incarnation = base::Incarnation(node);
    worker.coordinator = key_of(kCoordinator);
    worker.coordinator_addresses = {{"coordinator", 1}};
    worker.own_addresses = {{"worker-" + std::to_string(node), 1}};
    workers_[node].brain = options_.make_worker ? options_.make_worker(worker) : std::make_unique<worker::Brain>(worker);
    timeline_.at(Instant() + Duration::milliseconds(static_cast<std::int64_t>(random_.below(200))),
                 [this, node] { run_worker_effects(node, workers_[node].brain->start(timeline_.now())); });
  }
}

void World::plan_faults() {
  const Duration step = (options_.forward_time + options_.backward_time) *
                        static_cast<std::int64_t>(options_.microbatches / static_cast<std::int64_t>(options_.replicas) +
                                                  static_cast<std::int64_t>(options_.stages));
  const auto span = static_cast<std::uint64_t>((step * options_.steps).ns());
  const auto plan = [&](int count, void (World::*strike)()) {
    for (int i = 0; i < count; ++i) {
      const Instant when = Instant() + Duration::milliseconds(500) + Duration::nanoseconds(static_cast<std::int64_t>(random_.below(span)));
      timeline_.at(when, [this, strike] { (this->*strike)(); });
    }
  };
  plan(options_.faults.crashes, &World::strike_crash);
  plan(options_.faults.stalls, &World::strike_stall);
  plan(options_.faults.link_breaks, &World::strike_break);
}

std::vector<Node> World::expendable() const {
  std::vector<std::uint64_t> safe(options_.stages, 0);
  for (const auto& w : workers_)
    if (w.device && !w.ended && !w.at_risk) ++safe[w.stage];
  std::vector<Node> nodes;
  for (Node node = 1; node < workers_.size(); ++node) {
    const auto& w = workers_[node];
    if (w.device && !w.ended && !w.at_risk && safe[w.stage] > 1) nodes.push_back(node);
  }
  return nodes;
}

void World::strike_crash() {
  const auto nodes = expendable();
  if (nodes.empty() || !coordinator_->running()) return;
  const Node node = nodes[random_.below(nodes.size())];
  workers_[node].at_risk = workers_[node].ended = true;
  ++outcome_.crashes;
  log(node, "CRASH");
  network_.crash(node);
}

void World::strike_stall() {
  const auto nodes = expendable();
  if (nodes.empty() || !coordinator_->running()) return;
  const Node node = nodes[random_.below(nodes.size())];
  const Duration length = Duration::milliseconds(100 + static_cast<std::int64_t>(random_.below(11'900)));
  workers_[node].at_risk = true;
  ++outcome_.stalls;
  log(node, "STALL", static_cast<std::uint64_t>(length.ns()));
  network_.stall(node, timeline_.now() + length);
}

void World::strike_break() {
  const auto nodes = expendable();
  if (nodes.empty() || !coordinator_->running()) return;
  const Node a = nodes[random_.below(nodes.size())];
  std::vector<Node> partners;
  for (Node b = 0; b < workers_.size(); ++b)
    if (b != a && network_.linked(a, b)) partners.push_back(b);
  if (partners.empty()) return;
  const Node b = partners[random_.below(partners.size())];
  if (b == kCoordinator) workers_[a].at_risk = true;
  ++outcome_.link_breaks;
  log(a, "BREAK", b);
  network_.break_link(a, b);
}

void World::log(Node node, const char* what, std::uint64_t detail) {
  ++outcome_.events;
  std::uint64_t h = base::mix64(outcome_.log_hash, static_cast<std::uint64_t>(timeline_.now().ns()));
  h = base::mix64(h, node);
  for (const char* c = what; *c; ++c) h = base::mix64(h, static_cast<std::uint64_t>(*c));
  outcome_.log_hash = base::mix64(h, detail);
  if (options_.trace) std::printf("%12.6f node %zu %s %llu\n", (timeline_.now() - Instant()).seconds_f64(), node, what,
                                  static_cast<unsigned long long>(detail));
}

void World::violate(const std::string& text) {
  if (!outcome_.violation.empty()) return;
  outcome_.violation = "seed " + std::to_string(options_.seed) + ", virtual second " +
                       std::to_string((timeline_.now() - Instant()).seconds_f64()) + ": " + text;
  outcome_.ok = false;
}

void World::deliver_worker(Node node, worker::Event event, const char* what) {
  WorkerNode& w = workers_[node];
  if (w.ended || !outcome_.violation.empty()) return;
  log(node, what);
  run_worker_effects(node, w.brain->step(std::move(event), timeline_.now()));
  const std::size_t bound = 4 * static_cast<std::size_t>(options_.microbatches + options_.eval_microbatches) + 8 * 3 * 64;
  if (w.brain->parked() > bound) violate("a worker parks more frames than its bound");
}

void World::deliver_coordinator(fleet::Event event, const char* what) {
  if (coordinator_ended_ || !outcome_.violation.empty()) return;
  log(kCoordinator, what);
  run_coordinator_effects(coordinator_->step(std::move(event), timeline_.now()));
}

void World::plan_tick(Node node) {
  const Instant due = node == kCoordinator ? coordinator_->next_deadline() : workers_[node].brain->next_deadline();
  Instant& planned = node == kCoordinator ? coordinator_tick_ : workers_[node].tick_planned;
  if (due == Instant::never() || due >= planned) return;
  planned = due;
  timeline_.at(due, [this, node, due] {
    network_.for_node(node, [this, node, due] {
      Instant& still = node == kCoordinator ? coordinator_tick_ : workers_[node].tick_planned;
      if (still != due) return;
      still = Instant::never();
      if (node == kCoordinator) deliver_coordinator(fleet::Tick{}, "tick");
      else deliver_worker(node, worker::Tick{}, "tick");
    });
  });
}

void World::send(Node from, const PeerId& to, const wire::Message& message) {
  std::size_t weight = 200;
  if (std::holds_alternative<wire::Offer>(message) || std::holds_alternative<wire::Gradient>(message)) weight = options_.boundary_bytes;
  network_.send(from, nodes_.at(to), base::make_payload(wire::encode(message)), wire::priority_of(message), weight);
}

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
      if (exit->code != 0 && !w.at_risk) violate("worker " + std::to_string(node) + " ended though nothing had struck it: " + exit->text);
      w.ended = true;
      network_.leave(node);
    } else if (auto* prepare = std::get_if<worker::Prepare>(&effect)) {
      w.stage = prepare->assign.stage.value();
      w.device = std::make_unique<ProvenanceStage>(config_, w.stage, options_.stages);
      const bool head = w.stage == 0, tail = w.stage + 1 == options_.stages;
      worker::PrepareDone done{kProvenanceElements, kProvenanceBytes, head ? 0 : kProvenanceBytes, tail ? 0 : kProvenanceBytes,
                               "provenance", std::nullopt};
      timeline_.at(timeline_.now() + Duration::milliseconds(50),
                   [this, node, done] { network_.for_node(node, [this, node, done] { deliver_worker(node, done, "prepared"); }); });
    } else if (auto* compute = std::get_if<worker::Compute>(&effect)) {
      run_compute(node, std::move(*compute));
    } else if (auto* said = std::get_if<worker::Note>(&effect); said && options_.trace) {
      std::printf("%12.6f node %zu says: %s\n", (timeline_.now() - Instant()).seconds_f64(), node, said->text.c_str());
    }
  }
  plan_tick(node);
}

Duration World::device_time(const worker::ComputeRequest& request) {
  Duration time = Duration::microseconds(500);
  if (std::holds_alternative<worker::Forward>(request) || std::holds_alternative<worker::Evaluate>(request)) time = options_.forward_time;
  if (std::holds_alternative<worker::Backward>(request)) time = options_.backward_time;
  // Devices are never equally fast twice: 80 to 120 %.
  return Duration::nanoseconds(time.ns() * static_cast<std::int64_t>(80 + random_.below(41)) / 100);
}

void World::run_compute(Node node, worker::Compute compute) {
  WorkerNode& w = workers_[node];
  const Duration took = device_time(compute.request);
  w.device_free = std::max(w.device_free, timeline_.now()) + took;
  timeline_.at(w.device_free, [this, node, took, compute = std::move(compute)] {
    network_.for_node(node, [this, node, took, compute] {
      WorkerNode& device = workers_[node];
      if (device.ended) return;
      worker::ComputeDone done{compute.op, device.device->run(compute.request), took, std::nullopt};
      const auto version = device.device->version().value();
      if (device.device->weights() != reference_.weights[device.stage][version])
        return violate("the weights of stage " + std::to_string(device.stage) + " after step " + std::to_string(version) +
                       " differ from the undisturbed run's");
      if (version > durable_commit_.value()) return violate("a step was applied before its commit was durable");
      deliver_worker(node, std::move(done), "computed");
    });
  });
}

void World::check_commit(const fleet::CommitRecord& record) {
  if (record.step != durable_commit_.next()) violate("commits are not consecutive");
  if (record.attempt != durable_attempt_) violate("a commit of an attempt that is not the newest written one");
  const std::size_t i = record.step.value() - 1;
  if (i >= reference_.train_losses.size() || record.train_losses != reference_.train_losses[i] ||
      record.eval_losses != reference_.eval_losses[i])
    violate("the losses of step " + std::to_string(record.step.value()) + " differ from the undisturbed run's");
}

void World::check_chunk(const fleet::CheckpointChunk& chunk) {
  base::ByteReader in(*chunk.chunk.bytes);
  if (in.u64() != reference_.weights[chunk.stage.value()][chunk.chunk.version.value()])
    violate("a checkpoint holds weights of another version");
}

void World::on_happening(const fleet::Happening& happening) {
  if (const auto* committed = std::get_if<fleet::StepCommitted>(&happening)) outcome_.train_losses.push_back(committed->train_loss);
  if (std::holds_alternative<fleet::AttemptOpened>(happening)) ++outcome_.attempts;
  if (std::holds_alternative<fleet::CheckpointWritten>(happening)) ++outcome_.checkpoints;
  if (const auto* opened = std::get_if<fleet::AttemptOpened>(&happening); opened && options_.trace)
    std::printf("%12.6f attempt %llu: %s\n", (timeline_.now() - Instant()).seconds_f64(),
                static_cast<unsigned long long>(opened->attempt.value()), opened->reason.c_str());
}

void World::run_coordinator_effects(fleet::Effects effects) {
  const auto later = [&](fleet::Event event, const char* what) {
    const Duration disk = Duration::microseconds(200 + static_cast<std::int64_t>(random_.below(3000)));
    timeline_.at(timeline_.now() + disk, [this, event = std::move(event), what] { deliver_coordinator(event, what); });
  };
  for (auto& effect : effects) {
    if (auto* send_it = std::get_if<wire::Send>(&effect)) {
      if (const auto* commit = std::get_if<wire::Commit>(&send_it->message); commit && commit->step > durable_commit_)
        violate("a commit was announced before it was durable");
      if (const auto* view = std::get_if<wire::View>(&send_it->message); view && view->attempt > durable_attempt_)
        violate("a view was announced before it was durable");
      send(kCoordinator, send_it->peer, send_it->message);
    } else if (auto* close = std::get_if<wire::CloseLink>(&effect)) {
      network_.close(kCoordinator, nodes_.at(close->peer), close->text);
    } else if (auto* exit = std::get_if<wire::Exit>(&effect)) {
      if (exit->code != 0) violate("the coordinator gave up: " + exit->text);
      coordinator_ended_ = true;
    } else if (auto* view = std::get_if<fleet::StoreView>(&effect)) {
      if (view->record.attempt <= durable_attempt_) violate("an attempt number was used twice");
      const auto record = view->record;
      const Duration disk = Duration::microseconds(200 + static_cast<std::int64_t>(random_.below(3000)));
      timeline_.at(timeline_.now() + disk, [this, record, op = view->op] {
        durable_attempt_ = record.attempt;
        deliver_coordinator(fleet::StoreDone{op, std::nullopt}, "stored");
      });
    } else if (auto* commit = std::get_if<fleet::StoreCommit>(&effect)) {
      const auto record = commit->record;
      const Duration disk = Duration::microseconds(200 + static_cast<std::int64_t>(random_.below(3000)));
      timeline_.at(timeline_.now() + disk, [this, record, op = commit->op] {
        check_commit(record);
        durable_commit_ = record.step;
        deliver_coordinator(fleet::StoreDone{op, std::nullopt}, "stored");
      });
    } else if (auto* chunk = std::get_if<fleet::CheckpointChunk>(&effect)) {
      check_chunk(*chunk);
    } else if (auto* finish = std::get_if<fleet::CheckpointFinish>(&effect)) {
      later(fleet::CheckpointDone{finish->version, "checkpoint", std::nullopt}, "saved");
    } else if (auto* happening = std::get_if<fleet::Happening>(&effect)) {
      on_happening(*happening);
    }
  }
  if (!coordinator_ended_) plan_tick(kCoordinator);
}

}  // namespace

Outcome simulate(const Options& options) { return World(options).run(); }

}  // namespace stagecoach::world::sim
