// PlannedWorld: the simulated world with stated times, lines and events, and the accounts of what happened in it.
//
// In:      a Plan. Out: a Forecast.
// Thread:  one.
// Why:     the checks and the brains are those of World; only who says how long something takes differs.
//
// planned_world.cpp is the run and its figures, planned_events.cpp its troubles and the resume.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "worker/tracer.h"
#include "world/sim/plan.h"
#include "world/sim/world.h"

namespace stagecoach::world::sim {

class PlannedWorld final : public World {
 public:
  explicit PlannedWorld(const Plan& plan);
  Forecast forecast();

 private:
  Instant starts_at(Node node) override;
  Duration device_time(Node node, const worker::ComputeRequest& request) override;
  std::size_t weight(Node from, Node to, const wire::Message& message) override;
  Duration disk_time() override { return plan_.disk; }
  Sums sums_of(std::uint64_t stage) const override;
  void prepare(Node node, const worker::Prepare& request, std::function<void()> done) override;
  void arrived(Node at, Node from, const wire::Message& message) override;
  void came_up(Node at, Node peer) override;
  void stepped(Node node) override;
  void worked(Node node, const worker::ComputeRequest& request, Instant began) override;
  void exited(Node node, const wire::Exit& exit) override;
  void coordinator_exited(const wire::Exit& exit) override;
  void on_happening(const fleet::Happening& happening) override;

  void fetch(Node node);
  Path path(Node from, Node to) const;
  double share_of(std::uint64_t stage, std::int64_t words) const;  // of all that the stage reduces
  std::size_t bytes_of(std::uint64_t stage, const wire::Message& message) const;
  void feed(Node node, const observe::TraceEvent& event) { account_.feed(timeline_.now(), node, event); }
  void training_began();

  // planned_events.cpp
  void plan_events();
  void plan_churn(Instant after);
  void strike(const PlannedEvent& event);
  void strike_kill(Node node, const std::string& how);
  void strike_stop(Node node, Duration length);
  void strike_cut(Node node, Duration length);
  void strike_cut_between(const PathChange& ends, Duration length);
  void strike_degrade_host(const PlannedEvent& event);
  void strike_degrade_path(const PlannedEvent& event);
  void told(Node node, const std::string& what);
  void resume();
  bool at_work(Node node) const { return workers_[node].brain && !workers_[node].ended; }
  std::string name(Node node) const;

  const Plan& plan_;
  Lines lines_;
  std::vector<PathChange> paths_;      // the plan's, and those that events have laid over them
  observe::Accounting account_;
  Forecast forecast_;
  base::Prng churn_;
  std::optional<Instant> began_;
  std::vector<worker::Tracer> tracers_;  // by node
  /// The state that a joiner fetches.
  struct Fetch {
    std::uint64_t bytes = 0;
    std::uint64_t number = 0;            // of the request: what answers an older one is void
    std::function<void()> done;
  };
  std::map<Node, Fetch> fetches_;
  std::uint64_t next_fetch_ = 0;
  base::WeightVersion saved_;
  bool over_ = false;                  // ended for good
};

}  // namespace stagecoach::world::sim
