#include "world/sim/planned_world.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace stagecoach::world::sim {

namespace {

constexpr std::size_t kControlBytes = 200;
constexpr std::int64_t kWordBytes = paced::kProvenanceBytes;
constexpr std::size_t kFrameBytes = 120;  // prefix, header and stamps of a tensor's frame

std::int64_t words_in(const base::Payload& sums) { return static_cast<std::int64_t>(sums->size()) / kWordBytes; }

Options options_of(const Plan& plan) {
  Options options;
  options.seed = plan.seed;
  options.stages = plan.split.size();
  options.replicas = plan.replicas;
  options.steps = plan.config.schedule.steps;
  options.microbatches = plan.config.batch.microbatches;
  options.eval_microbatches = plan.config.batch.eval_microbatches;
  options.checkpoint_every = plan.checkpoint_every;
  options.network.idle_timeout = link::Limits{}.idle_timeout;
  return options;
}

std::vector<HostLines> lines_of(const Plan& plan) {
  std::vector<HostLines> lines;
  for (const PlannedHost& host : plan.hosts) lines.push_back(host.lines);
  return lines;
}

TrafficKind kind_of(const wire::Message& message) {
  if (std::holds_alternative<wire::Offer>(message)) return TrafficKind::tensors;
  if (std::holds_alternative<wire::Gradient>(message)) return TrafficKind::gradients;
  if (std::holds_alternative<wire::Part>(message) || std::holds_alternative<wire::Sum>(message)) return TrafficKind::sums;
  return std::holds_alternative<wire::StateChunk>(message) ? TrafficKind::state : TrafficKind::control;
}

}  // namespace

Forecast simulate(const Plan& plan) { return PlannedWorld(plan).forecast(); }

bool PathChange::matches(Node from, Node to, std::size_t from_site, std::size_t to_site) const {
  if (ends == Ends::all) return true;
  const auto pair = ends == Ends::hosts ? std::pair(from, to) : std::pair(from_site, to_site);
  return pair == std::pair(a, b) || pair == std::pair(b, a);
}

PlannedWorld::PlannedWorld(const Plan& plan)
    : World(options_of(plan), plan.config, plan.split),
      plan_(plan),
      lines_(timeline_, lines_of(plan), [this](Node from, Node to) { return path(from, to); },
             {base::mix64(plan.seed, 4), plan.initial_window}),
      paths_(plan.paths),
      account_(plan.split.size()),
      churn_(base::mix64(plan.seed, 5)) {
  CHECK(plan.stages.size() == plan.split.size(), "each stage has its load");
  CHECK(plan.hosts.size() == 1 + plan.split.size() * plan.replicas, "one host for the coordinator and one for each worker");
  network_.use(lines_, [this](Node from, Node to) { return path(from, to); });
  tracers_.resize(plan.hosts.size());
  forecast_.forward_bytes.resize(plan.stages.size());
  forecast_.backward_bytes.resize(plan.stages.size());
  forecast_.up.resize(plan.hosts.size());
  forecast_.down.resize(plan.hosts.size());
}

Forecast PlannedWorld::forecast() {
  begin();
  while (outcome_.violation.empty() && !over_) {
    if (began_ && timeline_.next() > *began_ + plan_.duration) break;
    if (!timeline_.run_one()) violate("nothing is planned any more and the run is not done");
  }
  forecast_.violation = outcome_.violation;
  forecast_.log_hash = outcome_.log_hash;
  forecast_.events = outcome_.events;
  forecast_.virtual_time = timeline_.now() - Instant();
  forecast_.account = account_.table();
  return forecast_;
}

/// One after the other, so far apart that they are heard in that order and get their stages in it.
Instant PlannedWorld::starts_at(Node node) {
  Duration longest = plan_.jitter;
  for (const auto& row : plan_.round_trips)
    for (const Duration& each : row) longest = std::max(longest, each);
  return timeline_.now() + (longest * 2 + Duration::milliseconds(20)) * static_cast<std::int64_t>(node - 1);
}

Path PlannedWorld::path(Node from, Node to) const {
  const std::size_t a = plan_.hosts[from].site, b = plan_.hosts[to].site;
  Path path;
  if (!plan_.round_trips.empty()) path.round_trip = plan_.round_trips[a][b];
  path.jitter = plan_.jitter;
  path.loss = plan_.loss;
  path.burst = plan_.burst;
  for (const PathChange& change : paths_) {
    if (!change.matches(from, to, a, b)) continue;
    path.round_trip = change.round_trip.value_or(path.round_trip);
    path.jitter = change.jitter.value_or(path.jitter);
    path.loss = change.loss.value_or(path.loss);
  }
  return path;
}

/// As many shards as the real reduce has, or about kShards where it has more. Their few words weigh as much as what they stand for.
PlannedWorld::Sums PlannedWorld::sums_of(std::uint64_t stage) const {
  constexpr std::int64_t kShards = 64;
  const auto members = static_cast<std::int64_t>(options_.replicas);
  const auto bytes = static_cast<std::int64_t>(static_cast<double>(plan_.stages[stage].sum_bytes) * plan_.bulk_scale);
  const std::int64_t real = static_cast<std::int64_t>(replica::shard_count(bytes, options_.replicas)) / members;
  const std::int64_t each = std::clamp<std::int64_t>(real, 1, std::max<std::int64_t>(1, kShards / members));
  const std::int64_t words = (lanes() + members * each - 1) / (members * each);
  return {members * each * words, kWordBytes * words};
}

double PlannedWorld::share_of(std::uint64_t stage, std::int64_t words) const {
  return static_cast<double>(words) / static_cast<double>(sums_of(stage).elements);
}

Duration PlannedWorld::device_time(Node node, const worker::ComputeRequest& request) {
  tracers_[node].begins(request);
  const std::uint64_t stage = workers_[node].stage;
  double share = 0;
  if (const auto* read = std::get_if<worker::ReadSum>(&request)) share = share_of(stage, read->slice.last - read->slice.first);
  if (const auto* add = std::get_if<worker::AddParts>(&request)) share = share_of(stage, words_in(add->parts.at(0)));
  const Duration time = paced::time_of(plan_.stages[stage], request, share);
  if (!paced::is_arithmetic(request)) return time;
  double factor = plan_.hosts[node].slowdown;
  if (plan_.spread > 0) factor *= 1 + plan_.spread * (2 * random_.unit() - 1);
  return Duration::nanoseconds(std::llround(static_cast<double>(time.ns()) * factor));
}

std::size_t PlannedWorld::bytes_of(std::uint64_t stage, const wire::Message& message) const {
  const StageLoad& load = plan_.stages[stage];
  const auto bulk = [&](std::uint64_t bytes, double share) {
    return kFrameBytes + static_cast<std::size_t>(static_cast<double>(bytes) * share * plan_.bulk_scale);
  };
  switch (kind_of(message)) {
    case TrafficKind::control: return kControlBytes;
    case TrafficKind::tensors: return kFrameBytes + load.boundary_bytes + load.token_bytes;
    case TrafficKind::gradients: return kFrameBytes + plan_.stages[stage - 1].boundary_bytes;
    case TrafficKind::sums: {
      const auto* part = std::get_if<wire::Part>(&message);
      return bulk(load.sum_bytes, share_of(stage, words_in(part ? part->sums : std::get<wire::Sum>(message).sums)));
    }
    case TrafficKind::state: return bulk(load.state_bytes, 1.0 / paced::kProvenanceTensors);  // as many tensors carry the bytes of all
  }
  return kControlBytes;
}

std::size_t PlannedWorld::weight(Node from, Node to, const wire::Message& message) {
  const std::uint64_t stage = workers_[from].stage;
  const std::size_t bytes = bytes_of(stage, message);
  if (!began_) return bytes;
  const TrafficKind kind = kind_of(message);
  forecast_.traffic[static_cast<std::size_t>(kind)].bytes += bytes;
  forecast_.up[from] += bytes;
  forecast_.down[to] += bytes;
  if (kind == TrafficKind::tensors) forecast_.forward_bytes[stage] += bytes;
  if (kind == TrafficKind::gradients) forecast_.backward_bytes[stage - 1] += bytes;
  return bytes;
}

void PlannedWorld::prepare(Node node, const worker::Prepare& request, std::function<void()> done) {
  const auto ready = [this, done = std::move(done)] { timeline_.at(timeline_.now() + plan_.prepare, done); };
  if (request.assign.version.value() == 0) return ready();
  // The state comes as files from the coordinator, to every replica.
  const StageLoad& load = plan_.stages[request.assign.stage.value()];
  fetches_[node] = {static_cast<std::uint64_t>(static_cast<double>(load.state_bytes) * plan_.bulk_scale), 0, ready};
  fetch(node);
}

void PlannedWorld::fetch(Node node) {
  Fetch& fetch = fetches_.at(node);
  fetch.number = ++next_fetch_;
  forecast_.up[kCoordinator] += fetch.bytes;
  forecast_.down[node] += fetch.bytes;
  forecast_.traffic[static_cast<std::size_t>(TrafficKind::state)].bytes += fetch.bytes;
  lines_.carry(kCoordinator, node, link::Priority::bulk, fetch.bytes, [this, node, number = fetch.number] {
    const auto it = fetches_.find(node);
    if (it == fetches_.end() || it->second.number != number) return;
    const auto done = std::move(it->second.done);
    fetches_.erase(it);
    done();
  });
}

void PlannedWorld::came_up(Node at, Node peer) {
  // On a new link a joiner asks again for what has not come: here for all of it.
  if (peer == kCoordinator && fetches_.contains(at)) fetch(at);
}

void PlannedWorld::arrived(Node at, Node, const wire::Message& message) {
  if (began_) forecast_.traffic[static_cast<std::size_t>(kind_of(message))].latency.add(timeline_.now() - network_.frame_sent_at());
  if (const auto arrival = worker::Tracer::arrival(message)) feed(at, *arrival);
}

void PlannedWorld::stepped(Node node) {
  const WorkerNode& w = workers_[node];
  if (w.ended) return;
  if (const auto opened = tracers_[node].stepped(*w.brain, base::StageIndex(w.stage))) feed(node, *opened);
}

void PlannedWorld::worked(Node node, const worker::ComputeRequest& request, Instant began) {
  if (const auto work = tracers_[node].work(*workers_[node].brain, request, began)) feed(node, *work);
}

void PlannedWorld::training_began() {
  began_ = timeline_.now();
  forecast_.began = *began_ - Instant();
  plan_events();
}

void PlannedWorld::on_happening(const fleet::Happening& happening) {
  if (std::holds_alternative<fleet::AttemptOpened>(happening) && !began_) training_began();
  if (const auto* committed = std::get_if<fleet::StepCommitted>(&happening)) {
    const auto trained = static_cast<std::uint64_t>(model::plan_of(config_, committed->step).train);
    const auto tokens = trained * static_cast<std::uint64_t>(config_.batch.tokens_per_microbatch());
    feed(kCoordinator, observe::trace::Committed{committed->step, committed->attempt, tokens});
    // Steps that can be taken back keep their losses here: they are asked for again.
    if (plan_.resume == std::nullopt) reference_.forget(committed->step);
  }
  if (const auto* written = std::get_if<fleet::CheckpointWritten>(&happening)) {
    ++forecast_.checkpoints;
    saved_ = written->version;
    reference_.forget(base::Step(saved_.value()));
    feed(kCoordinator, observe::trace::Saved{base::Step(saved_.value())});
  }
  if (std::holds_alternative<fleet::WorkerLost>(happening)) ++forecast_.workers_lost;
}

}  // namespace stagecoach::world::sim
