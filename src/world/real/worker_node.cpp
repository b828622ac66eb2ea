#include "world/real/worker_node.h"

#include <unistd.h>

#include <random>

#include "data/shard_manifest.h"
#include "wire/codec.h"

namespace stagecoach::world::real {

using base::Duration;
using base::PeerId;
using base::Result;

namespace {
constexpr Duration kFarewellPatience = Duration::seconds(2);

/// A new number for each start of the process: an evicted incarnation never joins again (PROTOCOL B11).
base::Incarnation new_incarnation() {
  std::random_device source;
  return base::Incarnation((static_cast<std::uint64_t>(source()) << 32 | source()) | 1);
}
}  // namespace

Result<std::unique_ptr<WorkerNode>> WorkerNode::make(const link::Identity& identity, Options options, Log log) {
  auto endpoint = QuicEndpoint::open(identity, {options.bind, options.limits, {}});
  if (!endpoint) return endpoint.error();
  std::optional<TraceFile> trace;
  if (!options.trace.empty()) {
    auto file = TraceFile::create(options.trace, identity.peer_id());
    if (!file) return file.error();
    trace.emplace(std::move(*file));
  }
  auto node = std::unique_ptr<WorkerNode>(new WorkerNode(identity, std::move(options), std::move(log), std::move(*endpoint)));
  node->trace_ = std::move(trace);
  return node;
}

WorkerNode::WorkerNode(const link::Identity& identity, Options options, Log log, std::unique_ptr<QuicEndpoint> endpoint)
    : options_(std::move(options)), log_(std::move(log)), endpoint_(std::move(endpoint)), device_(options_.device) {
  if (options_.paced) paced_.emplace(*options_.paced);
  worker::Options brain;
  brain.self = identity.peer_id();
  brain.incarnation = new_incarnation();
  brain.coordinator = options_.join.coordinator;
  brain.coordinator_addresses = {{options_.join.host, options_.join.port}};
  link::Address own = options_.advertise.value_or(endpoint_->local_address());
  if (own.port == 0) own.port = endpoint_->local_address().port;  // told before the port was known
  brain.own_addresses = {own};
  brain_ = std::make_unique<worker::Brain>(std::move(brain));
}

int WorkerNode::run() {
  log_.line("worker " + endpoint_->self().short_hex() + " listens on " + endpoint_->local_address().host + ":" +
            std::to_string(endpoint_->local_address().port));
  carry_out(brain_->start(monotonic_now()));
  Loop loop(*endpoint_, endpoint_->fd(), wakeup_,
            {[this](link::Event& event) { on_link(event); }, [this] { on_wakeup(); }, [this] { give(tick()); },
             [this] { return brain_->next_deadline(); }, [this] { return exit_code_.has_value(); }});
  loop.run();
  loop.say_goodbye(last_words_, kFarewellPatience);
  if (trace_) trace_->flush();
  log_.line("the loop thread took " + std::to_string(thread_cpu().ns() / 1'000'000) + " ms of CPU, " +
            std::to_string(loop.link_cpu().ns() / 1'000'000) + " of them for the links");
  return *exit_code_;
}

void WorkerNode::request_leave() {
  leave_ = true;
  wakeup_.ring();
}

void WorkerNode::on_link(link::Event& event) {
  if (const auto* up = std::get_if<link::LinkUp>(&event)) {
    give(wire::LinkIsUp{up->peer, up->address});
    if (up->peer == options_.join.coordinator && fetcher_) fetcher_->on_new_link();
  } else if (const auto* down = std::get_if<link::LinkDown>(&event)) {
    give(wire::LinkIsDown{down->peer, down->reason, down->text});
  } else if (const auto* arrived = std::get_if<link::FrameArrived>(&event)) {
    auto message = wire::decode(*arrived->frame);
    if (!message || wire::priority_of(*message) != arrived->priority) {
      const std::string why = message ? "a message in the wrong class" : message.error().message;
      log_.line("closing the link to " + arrived->peer.short_hex() + ": " + why);
      endpoint_->close(arrived->peer, why);
      return;
    }
    if (auto* chunk = std::get_if<wire::ObjectChunk>(&*message)) {
      if (fetcher_ && arrived->peer == options_.join.coordinator) fetcher_->on_chunk(*chunk);
      return;
    }
    if (paced_ && arrived->peer != options_.join.coordinator) {
      if (const auto word = paced::fold(*message, sizes_); !word) {
        log_.line("closing the link to " + arrived->peer.short_hex() + ": " + word.error().message);
        return endpoint_->close(arrived->peer, word.error().message);
      }
    }
    if (trace_) trace_->arrived(*message, monotonic_now());
    give(wire::MessageArrived{arrived->peer, std::move(*message)});
  }
}

void WorkerNode::on_wakeup() {
  if (leave_.exchange(false)) give(worker::LeaveRequested{});
  for (auto& call : calls_.take()) call();
  auto told = told_.take();
  for (const Told& one : told)
    if (trace_ && one.work) trace_->done(one.work->op, one.work->began, one.work->ended);
  for (Told& one : told) give(std::move(one.event));
}

worker::Tick WorkerNode::tick() const {
  worker::Tick tick;
  for (const auto& [peer, bytes] : traffic_) tick.bytes_sent += bytes.first, tick.bytes_received += bytes.second;
  if (const auto stats = endpoint_->stats(options_.join.coordinator)) tick.queued_bytes = stats->bytes_queued;
  return tick;
}

void WorkerNode::give(worker::Event event) {
  const bool tick = std::holds_alternative<worker::Tick>(event);
  carry_out(brain_->step(std::move(event), monotonic_now()));
  if (!trace_ || !assigned_) return;
  trace_->stepped(*brain_, assigned_->assign.stage, monotonic_now());
  if (tick) trace_->flush();
}

void WorkerNode::run_on_device(worker::Compute work) {
  if (trace_) trace_->given(*brain_, work.op, work.request);
  compute_.post([this, work = std::move(work), asked = monotonic_now()] {
    base::Instant began = monotonic_now();
    auto result = paced_ ? paced_->run(work.request, asked) : device_.run(work.request);
    const base::Instant ended = monotonic_now();
    if (paced_) began = paced_->began();
    worker::ComputeDone done{work.op, {}, ended - began, std::nullopt};
    if (result) done.result = std::move(*result);
    else done.error = result.error();
    told_.post({std::move(done), Told::Work{work.op, began, ended}});
  });
}

void WorkerNode::carry_out(worker::Effects effects) {
  for (auto& effect : effects) {
    if (auto* out = std::get_if<wire::Send>(&effect)) {
      if (paced_) paced::unfold(out->message, sizes_);
      send(*out);
    } else if (auto* compute = std::get_if<worker::Compute>(&effect)) {
      run_on_device(std::move(*compute));
    } else if (auto* dial = std::get_if<wire::Dial>(&effect)) {
      endpoint_->dial(dial->peer, dial->addresses);
    } else if (auto* close = std::get_if<wire::CloseLink>(&effect)) {
      log_.line("closing the link to " + close->peer.short_hex() + ": " + close->text);
      endpoint_->close(close->peer, close->text);
    } else if (auto* ready = std::get_if<worker::Prepare>(&effect)) {
      prepare(*ready);
    } else if (auto* note = std::get_if<worker::Note>(&effect)) {
      log_.line(note->text);
    } else if (auto* exit = std::get_if<wire::Exit>(&effect)) {
      log_.line("ends with " + std::to_string(exit->code) + ": " + exit->text);
      exit_code_ = exit->code;
      last_words_ = exit->text;
    }
  }
}

void WorkerNode::send(const wire::Send& out) {
  base::Payload frame = base::make_payload(wire::encode(out.message));
  const std::uint64_t bytes = frame->size();
  const auto sent = endpoint_->send(out.peer, std::move(frame), {wire::priority_of(out.message), base::Instant::never()});
  if (sent) {
    if (const auto stats = endpoint_->stats(out.peer)) traffic_[out.peer] = {stats->bytes_sent, stats->bytes_received};
    return;
  }
  if (sent.error().code == base::ErrorCode::not_found) return;  // its LinkDown is on the way
  // A queue that is full for a peer of one step's worth of messages means that the peer does not read: the link is of no use.
  log_.line("closing the link to " + out.peer.short_hex() + ": " + std::to_string(bytes) + " bytes could not be queued: " +
            sent.error().message);
  endpoint_->close(out.peer, "its frames cannot be queued any more");
}

void WorkerNode::prepare(worker::Prepare& prepare) {
  assigned_ = std::move(prepare);
  ObjectFetcher::Options fetch;
  fetch.cache = options_.cache;
  fetch.disk = &disk_;
  fetch.request = [this](wire::ObjectRequest request) { send({options_.join.coordinator, std::move(request)}); };
  fetch.on_loop = [this](std::function<void()> call) { calls_.post(std::move(call)); };
  fetch.done = [this](Result<void> result) {
    if (result.ok()) return open_device();
    worker::PrepareDone failed;
    failed.error = result.error();
    give(std::move(failed));
  };
  fetcher_ = std::make_unique<ObjectFetcher>(std::move(fetch));
  std::vector<wire::ObjectRef> wanted = assigned_->assign.state;
  wanted.insert(wanted.end(), assigned_->assign.shards.begin(), assigned_->assign.shards.end());
  if (!wanted.empty()) log_.line("fetching " + std::to_string(wanted.size()) + " files");
  fetcher_->start(std::move(wanted));
}

void WorkerNode::open_device() {
  Device::Setup setup;
  setup.config = assigned_->config;
  std::int64_t first = 0;
  for (std::uint64_t end : assigned_->assign.split_ends) {
    setup.split.push_back({first, static_cast<std::int64_t>(end)});
    first = static_cast<std::int64_t>(end);
  }
  setup.stage = assigned_->assign.stage.value();
  setup.versions_kept = assigned_->versions_kept;
  setup.version = assigned_->assign.version;
  for (const auto& object : assigned_->assign.state) setup.state_files.push_back(fetcher_->path_of(object).string());
  if (paced_) sizes_ = PacedDevice::sizes_of(setup);
  // The cache knows files by hash; shards are opened as a folder with names. That and the reading wait for the disk.
  compute_.post([this, setup = std::move(setup), cache = options_.cache, shards = assigned_->assign.shards]() mutable {
    worker::PrepareDone done;
    if (setup.stage == 0 && !paced_) {
      auto folder = lay_out_objects(cache, shards);
      if (!folder) {
        done.error = folder.error();
        return told_.post({std::move(done), {}});
      }
      setup.shards_folder = folder->string();
    }
    auto prepared = paced_ ? paced_->prepare(setup) : device_.prepare(setup);
    if (prepared) done = std::move(*prepared);
    else done.error = prepared.error();
    told_.post({std::move(done), {}});
  });
}

}  // namespace stagecoach::world::real
