// The live state of a run as one plain value: what `stagecoach status`, the terminal view and the page show.
//
// In:      filled by the coordinator's process; or the JSON text of docs/formats/status.md, from a peer or a file.
// Out:     that JSON text; a checked RunStatus.
// Thread:  any; plain values.
// Why:     every face of a run (terminal, lines, JSON) shows the same numbers because it is made from this one struct.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace stagecoach::observe {

/// Bounds of one status: what lies beyond is left out when writing and refused when reading.
inline constexpr std::size_t kStatusTextBytesMax = 16u << 20;
inline constexpr std::size_t kStagesMax = 1024;
inline constexpr std::size_t kMembersMax = 256;  // of one stage
inline constexpr std::size_t kWaitsMax = 256;
inline constexpr std::size_t kEventsMax = 64;
inline constexpr std::size_t kHistoryMax = 256;     // points of one curve
inline constexpr std::size_t kTextBytesMax = 1024;  // of one string

enum class Phase : std::uint8_t {
  starting,   // the process prepares: shards, address, folder
  gathering,  // not all workers have joined
  training,
  recovering,  // an attempt was voided; its successor has not begun
  saving,      // a checkpoint is being written and nothing else happens
  finished,    // the last step is committed
  stopped,     // ended before the last step, on request or for want of workers
};
std::string_view to_string(Phase phase);

enum class MemberState : std::uint8_t {
  joining,  // admitted, not yet in a view
  loading,  // fetches weights
  ready,    // in the view, without work
  working,
  lost,  // evicted or gone; stays in the list for a while so that one can see it
};
std::string_view to_string(MemberState state);

/// How far the open microbatches of one member are; each is counted once, at the furthest state it has reached.
struct MicrobatchCounts {
  std::uint64_t offered = 0;      // named to it, not yet accepted
  std::uint64_t accepted = 0;     // here, forward not done
  std::uint64_t forwarded = 0;    // forward done, z in custody
  std::uint64_t accumulated = 0;  // gradient added, dz in custody
  std::uint64_t committed = 0;    // of the steps committed so far
  bool operator==(const MicrobatchCounts&) const = default;
};

struct MemberStatus {
  std::string peer;  // the first digits of the PeerId
  std::uint64_t incarnation = 0;
  std::string address;  // "host:port" as the coordinator sees it
  MemberState state = MemberState::joining;
  std::string reason;  // why it is in that state
  std::uint64_t weight_version = 0;
  double busy_fraction = 0;        // of the time since the last report its device computed; 0 … 1
  std::uint64_t queue_length = 0;  // microbatches that wait for compute
  MicrobatchCounts microbatches;
  double bytes_in_per_s = 0;
  double bytes_out_per_s = 0;
  std::optional<double> round_trip_ms;  // to the coordinator
  bool operator==(const MemberStatus&) const = default;
};

struct StageStatus {
  std::uint64_t view = 0;  // view number; 0 = no view yet
  std::uint64_t first_layer = 0;
  std::uint64_t end_layer = 0;  // layers [first_layer, end_layer)
  std::vector<MemberStatus> members;
  bool operator==(const StageStatus&) const = default;
};

/// Something that does not go on, and what it needs.
struct Wait {
  std::string who;
  std::string what_for;
  double waiting_s = 0;
  std::string reason;
  bool operator==(const Wait&) const = default;
};

/// One point of a loss curve.
struct LossPoint {
  std::uint64_t step = 0;
  double nats_per_token = 0;
  bool operator==(const LossPoint&) const = default;
};

struct CheckpointStatus {
  std::uint64_t step = 0;
  std::string path;
  bool operator==(const CheckpointStatus&) const = default;
};

struct RunStatus {
  std::string run_id;
  std::string config_id;
  std::string name;  // the run folder's
  Phase phase = Phase::starting;
  std::string reason;  // "5 of 8 workers have joined", "attempt 3: worker ab12cd34 was lost"
  std::uint64_t term = 0;
  std::uint64_t attempt = 0;
  std::uint64_t step = 0;            // last committed
  std::uint64_t steps = 0;           // of the whole run
  std::optional<double> train_loss;  // nats per token, of the last committed step
  std::optional<double> train_loss_smoothed;
  std::optional<LossPoint> validation_loss;   // the newest; its step is the one whose weights were measured
  std::vector<LossPoint> train_history;       // oldest first
  std::vector<LossPoint> validation_history;  // oldest first
  std::uint64_t tokens = 0;                   // trained on in committed steps, repeats not counted
  double tokens_per_s = 0;                    // recent
  std::optional<double> eta_s;
  double elapsed_s = 0;  // of this start of the coordinator
  std::int64_t started_unix_ms = 0;
  std::vector<StageStatus> stages;
  std::vector<Wait> waits;
  std::vector<std::string> events;             // oldest first
  std::optional<CheckpointStatus> checkpoint;  // newest complete
  bool operator==(const RunStatus&) const = default;
};

/// Appends a point; beyond kHistoryMax every second one but the newest is dropped, so that the curve stays whole and
/// gets coarser.
void add_point(std::vector<LossPoint>& history, LossPoint point);

/// Appends an event line; beyond kEventsMax the oldest goes.
void add_event(RunStatus& status, std::string line);

/// One JSON object in one line (docs/formats/status.md). Lists and strings beyond the bounds are cut, keeping the
/// newest; numbers that are not finite become null or 0; bytes that are no UTF-8 are replaced: the text always reads
/// back.
std::string to_json(const RunStatus& status);

/// Reads what to_json() writes. Unknown fields are passed over, so that an older program reads a newer one's status.
///
/// errors: too_large  the text, a list or a string is beyond its bound: the sender is not honest or not ours
///         corrupt    not JSON, or a field is missing, of the wrong type or out of range: names it
base::Result<RunStatus> status_from_json(std::string_view text);

}  // namespace stagecoach::observe
