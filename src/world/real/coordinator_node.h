// CoordinatorNode: a coordinator in the real world: its brain, a QUIC endpoint, the run's store on the disk thread.
//
// In:      what the run is and where it is kept. Out: an exit code when it is over; its live state on the way.
// Thread:  run() is the loop thread; request_stop() from any thread or a signal handler.
// Why:     all I/O of a coordinator is here, so that the brain has none. It never touches a tensor and never loads torch.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "link/identity.h"
#include "observe/event.h"
#include "world/real/log.h"
#include "world/real/loop.h"
#include "world/real/mailbox.h"
#include "world/real/quic_endpoint.h"
#include "world/real/run_store.h"
#include "world/real/status_board.h"
#include "world/real/work_thread.h"

namespace stagecoach::world::real {

class CoordinatorNode {
 public:
  struct Options {
    fleet::Options fleet;                         // config, split, replicas, checkpoint_every; the store fills in the rest
    RunStore::Options store;
    link::Address bind;
    link::Limits limits;
    std::string name;                             // of the run, for people
    base::Duration join_deadline = base::Duration::seconds(600);
    /// Called a few times a second with the live state.
    std::function<void(const observe::RunStatus&)> show;
    /// Called a few times a second: workers of the launcher's own that have ended, with how.
    std::function<std::vector<std::pair<base::PeerId, std::string>>()> ended_workers;
  };

  /// errors: those of RunStore::open, QuicEndpoint::open, EventLog::open
  static base::Result<std::unique_ptr<CoordinatorNode>> make(const link::Identity& identity, Options options, Log log);

  link::Address address() const { return endpoint_->local_address(); }
  const std::vector<std::string>& findings() const { return store_->findings(); }
  base::Step first_step() const { return brain_->committed().next(); }

  /// Coordinates until the run ends. Returns the exit code.
  int run();
  /// Finish the step, checkpoint, end. Safe in a signal handler.
  void request_stop();

  const std::string& last_words() const { return last_words_; }
  observe::RunStatus status() const;
  std::uint64_t workers_lost() const { return workers_lost_; }
  std::uint64_t attempts() const { return attempts_; }

 private:
  CoordinatorNode(Options options, Log log, std::unique_ptr<QuicEndpoint> endpoint, std::unique_ptr<RunStore> store, observe::EventLog events);

  void on_link(link::Event& event);
  void on_wakeup();
  void on_time();
  void on_ended_worker(const base::PeerId& peer, const std::string& how);
  /// Ends the run before its first step.
  void give_up(const std::string& why);
  void give(fleet::Event event);
  void carry_out(fleet::Effects effects);
  void on_happening(const fleet::Happening& happening);
  void send(const base::PeerId& peer, const wire::Message& message);
  bool serve(const base::PeerId& peer, const wire::Message& message);
  void answer_status(const base::PeerId& peer);
  void read_slices();
  std::uint64_t bytes_queued(const base::PeerId& peer) const;

  /// What one peer has asked for and we have not yet sent.
  struct Slices {
    std::deque<wire::ObjectRequest> wanted;
    std::size_t being_read = 0;  // by the disk thread
  };

  Options options_;
  Log log_;
  std::unique_ptr<QuicEndpoint> endpoint_;
  std::unique_ptr<RunStore> store_;               // disk thread
  observe::EventLog events_;
  std::unique_ptr<fleet::Brain> brain_;
  std::unique_ptr<StatusBoard> board_;
  Wakeup wakeup_;
  Mailbox<fleet::Event> results_{wakeup_};
  Mailbox<std::pair<base::PeerId, wire::ObjectChunk>> slices_read_{wakeup_};
  std::map<base::PeerId, Slices> slices_;
  std::map<base::PeerId, base::Instant> status_given_;  // to whom, when last
  std::string status_json_;
  base::Instant status_made_;
  std::optional<int> exit_code_;
  std::string last_words_;
  std::string numerics_class_;
  std::atomic<bool> stop_{false};
  base::Instant show_due_;
  base::Instant join_by_;
  std::uint64_t workers_lost_ = 0;
  std::uint64_t attempts_ = 0;
  WorkThread disk_{"disk"};                       // last: ends first, while what it posts into still lives
};

}  // namespace stagecoach::world::real
