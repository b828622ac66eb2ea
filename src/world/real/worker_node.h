// WorkerNode: a worker in the real world: its brain, a QUIC endpoint, a device on the compute thread, files on the disk thread.
//
// In:      who we are, the join link, where to keep files. Out: an exit code when the run is over, left or lost.
// Thread:  run() is the loop thread; request_leave() from any thread or a signal handler.
// Why:     all I/O of a worker is here, so that the brain has none.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "link/identity.h"
#include "world/real/device.h"
#include "world/real/log.h"
#include "world/real/loop.h"
#include "world/real/mailbox.h"
#include "world/real/objects.h"
#include "world/real/paced_device.h"
#include "world/real/quic_endpoint.h"
#include "world/real/trace_file.h"
#include "world/real/work_thread.h"

namespace stagecoach::world::real {

class WorkerNode {
 public:
  struct Options {
    link::JoinLink join;
    link::Address bind;                          // where other workers reach us
    std::optional<link::Address> advertise;      // as told to them; port 0 = the bound one; missing = the bound address
    std::filesystem::path cache;                 // of fetched files
    Device::Options device;
    std::optional<PacedDevice::Options> paced;   // instead of a device
    std::filesystem::path trace;                 // where to write what it did; empty = nowhere
    link::Limits limits;
  };

  /// errors: unavailable  the port is in use · those of QuicEndpoint::open and TraceFile::create
  static base::Result<std::unique_ptr<WorkerNode>> make(const link::Identity& identity, Options options, Log log);

  /// Works until the run ends. Returns the exit code; the reason is in the log and in last_words().
  int run();
  const std::string& last_words() const { return last_words_; }
  /// Leaves the run in order. Safe in a signal handler.
  void request_leave();

 private:
  /// What another thread has to say: an event, and for the trace when the device worked on it. One value, so that the loop is woken once.
  struct Told {
    worker::Event event;
    struct Work { base::OpId op; base::Instant began, ended; };
    std::optional<Work> work;
  };

  WorkerNode(const link::Identity& identity, Options options, Log log, std::unique_ptr<QuicEndpoint> endpoint);

  void on_link(link::Event& event);
  void on_wakeup();
  void give(worker::Event event);
  void carry_out(worker::Effects effects);
  void send(const wire::Send& send);
  void prepare(worker::Prepare& prepare);
  void open_device();
  void run_on_device(worker::Compute work);
  worker::Tick tick() const;

  Options options_;
  Log log_;
  std::unique_ptr<QuicEndpoint> endpoint_;
  std::unique_ptr<worker::Brain> brain_;
  Wakeup wakeup_;
  Mailbox<Told> told_{wakeup_};
  Mailbox<std::function<void()>> calls_{wakeup_};
  std::optional<worker::Prepare> assigned_;
  std::unique_ptr<ObjectFetcher> fetcher_;
  Device device_;                                   // compute thread
  std::optional<PacedDevice> paced_;                // compute thread, instead of it
  paced::TensorSizes sizes_;                        // of paced tensors
  std::optional<TraceFile> trace_;
  std::optional<int> exit_code_;
  std::string last_words_;
  std::atomic<bool> leave_{false};
  std::map<base::PeerId, std::pair<std::uint64_t, std::uint64_t>> traffic_;
  WorkThread disk_{"disk"};
  WorkThread compute_{"compute"};                   // last: ends first, while what it posts into still lives
};

}  // namespace stagecoach::world::real
