// World: one simulated run, all of it.
//
// In:      options. Out: an Outcome.
// Thread:  one.
// Why:     three files share it (the run, the effects with their checks, the faults) and nobody else sees it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/prng.h"
#include "world/paced/provenance.h"
#include "world/sim/network.h"
#include "world/sim/simulation.h"

namespace stagecoach::world::sim {

using base::Duration;
using base::Instant;
using base::PeerId;
using paced::exported_word;
using paced::kProvenanceTensors;

inline constexpr Node kCoordinator = 0;

/// Node n's key: its number, spread over the bytes so that key order is not node order.
PeerId key_of(Node node);
model::TrainConfig config_of(const Options& options);

/// One run. The entry is run(); effects.cpp carries out what brains ask and checks it, faults.cpp strikes. PlannedWorld overrides what a
/// plan states and this one draws.
class World {
 public:
  explicit World(const Options& options);
  virtual ~World() = default;
  Outcome run();

 protected:
  World(const Options& options, model::TrainConfig config, model::Split split);

  struct WorkerNode {
    std::unique_ptr<worker::Brain> brain;
    std::uint64_t starts = 0;  // of its process: what was planned for an earlier one is void
    std::unique_ptr<paced::ProvenanceStage> device;
    std::uint64_t stage = 0;
    Instant device_free;
    Instant tick_planned = Instant::never();
    bool ended = false;
    bool at_risk = false;  // a fault that may cost its place has struck
    bool hung = false;     // its device never answers again
  };

  // What another world may decide otherwise, or wants to know.
  virtual Instant starts_at(Node node);
  virtual Duration device_time(Node node, const worker::ComputeRequest& request);
  virtual std::size_t weight(Node from, Node to, const wire::Message& message);
  virtual Duration disk_time();
  /// What a reduce of the stage is cut from.
  struct Sums { std::int64_t elements; std::int64_t shard_bytes_max; };
  virtual Sums sums_of(std::uint64_t) const { return {lanes(), replica::kShardBytesMax}; }
  std::int64_t lanes() const { return paced::provenance_elements(options_.replicas); }
  virtual void prepare(Node node, const worker::Prepare& request, std::function<void()> done);
  virtual void arrived(Node, Node, const wire::Message&) {}
  virtual void came_up(Node, Node) {}  // at the first, the link to the second
  virtual void stepped(Node) {}
  virtual void worked(Node, const worker::ComputeRequest&, Instant) {}  // and when it began
  virtual void exited(Node node, const wire::Exit& exit);
  virtual void coordinator_exited(const wire::Exit& exit);
  virtual void on_happening(const fleet::Happening& happening);

  void begin();
  void start_worker(Node node);
  void start_coordinator();
  void plan_faults();
  void strike_crash();
  void strike_stall();
  void strike_break();
  void strike_hang();
  void strike_flap();
  void strike_return();
  void lose_save(Node node);
  void return_at_once(Node node);
  void struck(Node node, const char* what, std::uint64_t& counter, std::uint64_t detail = 0);
  void check_liveness();
  std::vector<Node> expendable() const;
  std::optional<std::pair<Node, Node>> neighbours();

  void deliver_worker(Node node, worker::Event event, const char* what);
  void deliver_coordinator(fleet::Event event, const char* what);
  void run_worker_effects(Node node, worker::Effects effects);
  void run_coordinator_effects(fleet::Effects effects);
  void prepare_worker(Node node, const worker::Prepare& request);
  void run_compute(Node node, worker::Compute compute);
  void send(Node from, const PeerId& to, const wire::Message& message);
  void plan_tick(Node node);
  void check_commit(const fleet::CommitRecord& record);
  void on_store(fleet::StoreView& view);
  void on_store(fleet::StoreCommit& commit);
  void on_checkpoint(const fleet::Effect& effect);
  void check_chunk(const fleet::CheckpointChunk& chunk);
  void check_sent(const wire::Message& message);
  void log(Node node, const char* what, std::uint64_t detail = 0);
  void violate(const std::string& text);

  Options options_;
  model::TrainConfig config_;
  fleet::Options fleet_;                  // what the coordinator starts from
  paced::Undisturbed reference_;
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
  fleet::ViewRecord newest_view_;         // that is being written, or is
  struct Checkpoint {
    base::WeightVersion version;
    std::set<std::pair<std::uint64_t, std::uint32_t>> tensors;  // (stage, tensor) that have arrived
  };
  std::optional<Checkpoint> checkpoint_;  // being made
  Instant last_fault_;
  int faults_planned_ = 0;                // at a time that has not come yet
  int flaps_left_ = 0;
  int lost_saves_left_ = 0;
  Outcome outcome_;
};

}  // namespace stagecoach::world::sim
