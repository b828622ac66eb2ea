#include "world/sim/simulation.h"

#include <algorithm>
#include <cstdio>

#include "digest/digest.h"
#include "wire/codec.h"
#include "world/sim/world.h"

namespace stagecoach::world::sim {

Outcome simulate(const Options& options) { return World(options).run(); }

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

model::Split split_of(const Options& options) {
  model::Split split;
  for (std::uint64_t s = 0; s < options.stages; ++s) split.push_back({static_cast<std::int64_t>(s), static_cast<std::int64_t>(s) + 1});
  return split;
}

World::World(const Options& options) : World(options, config_of(options), split_of(options)) {}

World::World(const Options& options, model::TrainConfig config, model::Split split)
    : options_(options),
      config_(std::move(config)),
      reference_(config_, options.stages, lanes()),
      random_(base::mix64(options.seed, 1)),
      network_(timeline_, options.network, base::mix64(options.seed, 2),
               Network::Handler{
                   [this](Node at, Node peer) {
                     if (at == kCoordinator) deliver_coordinator(wire::LinkIsUp{key_of(peer), {}}, "up");
                     else deliver_worker(at, wire::LinkIsUp{key_of(peer), {}}, "up");
                     came_up(at, peer);
                   },
                   [this](Node at, Node peer, link::DownReason reason, const std::string& text) {
                     if (at == kCoordinator) deliver_coordinator(wire::LinkIsDown{key_of(peer), reason, text}, "down");
                     else deliver_worker(at, wire::LinkIsDown{key_of(peer), reason, text}, "down");
                   },
                   [this](Node at, Node from, const base::Payload& frame) {
                     auto message = wire::decode(*frame);
                     if (!message) return violate("a frame of ours does not decode: " + message.error().message);
                     const char* name = wire::name_of(*message);
                     arrived(at, from, *message);
                     if (at == kCoordinator) deliver_coordinator(wire::MessageArrived{key_of(from), std::move(*message)}, name);
                     else deliver_worker(at, wire::MessageArrived{key_of(from), std::move(*message)}, name);
                   }}) {
  fleet_.config = config_;
  fleet_.split = std::move(split);
  fleet_.replicas = options_.replicas;
  fleet_.run = base::RunId(base::mix64(options_.seed, 3));
  fleet_.config_text = model::canonical_text(config_);
  static_cast<base::Bytes32&>(fleet_.config_id) = digest::sha256(fleet_.config_text);
  fleet_.layout_id = digest::sha256(model::canonical_text(fleet_.split));
  fleet_.term = base::Term(1);
  fleet_.checkpoint_every = options_.checkpoint_every;
}

void World::start_coordinator() {
  coordinator_ = options_.make_coordinator ? options_.make_coordinator(fleet_) : std::make_unique<fleet::Brain>(fleet_);
}

void World::begin() {
  start_coordinator();
  nodes_[key_of(kCoordinator)] = kCoordinator;
  workers_.resize(1 + options_.stages * options_.replicas);
  for (Node node = 1; node < workers_.size(); ++node) {
    nodes_[key_of(node)] = node;
    timeline_.at(starts_at(node), [this, node] { start_worker(node); });
  }
}

Instant World::starts_at(Node) { return Instant() + Duration::milliseconds(static_cast<std::int64_t>(random_.below(200))); }

void World::start_worker(Node node) {
  WorkerNode& w = workers_[node];
  ++w.starts;
  worker::Options worker;
  worker.self = key_of(node);
  worker.incarnation = base::Incarnation(node + (w.starts - 1) * workers_.size());
  worker.coordinator = key_of(kCoordinator);
  worker.coordinator_addresses = {{"coordinator", 1}};
  worker.own_addresses = {{"worker-" + std::to_string(node), 1}};
  w.brain = options_.make_worker ? options_.make_worker(worker) : std::make_unique<worker::Brain>(worker);
  run_worker_effects(node, w.brain->start(timeline_.now()));
}

Outcome World::run() {
  begin();
  plan_faults();
  const Instant limit = Instant() + options_.time_limit;
  while (outcome_.violation.empty() && !coordinator_ended_) {
    if (timeline_.now() > limit) violate("the run is stuck: step " + std::to_string(coordinator_->committed().value()) + " after the time limit");
    else if (!timeline_.run_one()) violate("nothing is planned any more and the run is not done");
    else check_liveness();
  }
  outcome_.ok = outcome_.violation.empty();
  outcome_.virtual_time = timeline_.now() - Instant();
  outcome_.after_last_fault = timeline_.now() - last_fault_;
  outcome_.final_weights.assign(options_.stages, 0);
  for (const auto& node : workers_)
    // The step after the last trains nothing; a worker may hear that the run is over before it has moved its version on.
    if (node.device && node.device->version().value() >= static_cast<std::uint64_t>(options_.steps))
      outcome_.final_weights[node.stage] = node.device->weights();
  if (outcome_.ok && coordinator_->committed() != model::final_step(config_)) violate("the run ended before its last step");
  const base::WeightVersion last(model::final_step(config_).value());
  for (std::uint64_t s = 0; outcome_.ok && s < options_.stages; ++s)
    if (outcome_.final_weights[s] != reference_.weights(s, last)) violate("the final weights of stage " + std::to_string(s) + " differ");
  outcome_.ok = outcome_.violation.empty();
  return outcome_;
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
  stepped(node);
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
  const Node at = nodes_.at(to);
  network_.send(from, at, base::make_payload(wire::encode(message)), wire::priority_of(message), weight(from, at, message));
}

std::size_t World::weight(Node, Node, const wire::Message& message) {
  const bool tensor = std::holds_alternative<wire::Offer>(message) || std::holds_alternative<wire::Gradient>(message);
  return tensor ? options_.boundary_bytes : 200;
}

}  // namespace stagecoach::world::sim
