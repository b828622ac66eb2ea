// The event log of a run: what happened, one JSON object a line, in `events.jsonl` of the run's folder.
//
// In:      typed events. Out: lines; and events again from lines.
// Thread:  one at a time; the owner decides which.
// Why:     the log is a product: tests, pages and people read it, and a run's losses are compared by the bits it holds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"

namespace stagecoach::observe {

inline constexpr std::size_t kEventLineBytesMax = 64u << 10;
inline constexpr std::size_t kEventFieldsMax = 64;

enum class EventKind : std::uint8_t {
  run_started,         // name, config_id, step, steps, stages, replicas
  worker_joined,       // peer, incarnation, stage, address
  worker_lost,         // peer, stage, reason
  view,                // stage, number, term, attempt, members
  attempt_opened,      // attempt, step, reason
  step_committed,      // step, attempt, loss, loss_bits, global_norm
  evaluated,           // step, loss, loss_bits
  checkpoint_written,  // step, path
  run_finished,        // step, reason
};
std::string_view to_string(EventKind kind);

using FieldValue = std::variant<bool, std::int64_t, std::uint64_t, double, std::string>;
struct Field {
  std::string name;
  FieldValue value;
  bool operator==(const Field&) const = default;
};

struct Event {
  std::int64_t unix_ms = 0;
  EventKind kind = EventKind::run_started;
  std::vector<Field> fields;

  bool operator==(const Event&) const = default;
  /// Null where there is no field of that name.
  const FieldValue* find(std::string_view name) const;
};

/// The IEEE-754 bits of `value` as 16 hexadecimal digits: equal losses have equal bits, whatever a decimal print shows.
std::string bits_of(double value);

Event step_committed(std::int64_t unix_ms, std::uint64_t step, std::uint64_t attempt, double loss, double global_norm);
/// `step`: whose weights were measured.
Event evaluated(std::int64_t unix_ms, std::uint64_t step, double loss);

/// One line without its newline: {"time_ms":…,"kind":"…",fields in their order}. A number that is not finite becomes
/// null, bytes that are no UTF-8 are replaced, strings beyond 4 KiB are cut, and shorter where the line would pass
/// kEventLineBytesMax: the line always reads back.
std::string to_line(const Event& event);

/// Reads a line; fields come in the order of the line, null fields are left out, integers from 0 on come as uint64.
///
/// errors: corrupt  not such a line, or of a kind unknown here · too_large
base::Result<Event> parse_event(std::string_view line);

/// For people: "step 12 committed: loss 2.3456", "worker ab12cd34 lost: …".
std::string describe(const Event& event);

struct ReadEvents {
  std::vector<Event> events;
  std::size_t damaged_lines = 0;  // e.g. the last line of a process that was killed while it wrote
};
/// errors: not_found · io_error
base::Result<ReadEvents> read_events(const std::string& path);

/// Appends events to a file. Lines gather in a buffer of `buffer_bytes_max`; whole lines only are written, each flush
/// with one write.
///
/// owns: the file descriptor. Destruction flushes and drops what cannot be written.
class EventLog {
 public:
  /// Opens for appending. A last line without its newline is closed off first, so that it spoils itself only.
  ///
  /// errors: io_error · out_of_space
  static base::Result<EventLog> open(const std::string& path, std::size_t buffer_bytes_max = 256u << 10);
  EventLog(EventLog&& other) noexcept;
  EventLog& operator=(EventLog&& other) noexcept;
  ~EventLog();

  /// Takes the event into the buffer; a full buffer is flushed first.
  ///
  /// errors: those of flush(): the event was not taken, what was buffered stays
  base::Result<void> append(const Event& event);

  /// Hands the buffered lines to the operating system.
  ///
  /// errors: out_of_space · io_error  what was not written stays buffered: call again
  base::Result<void> flush();

 private:
  EventLog(int descriptor, std::string path, std::size_t buffer_bytes_max);
  int descriptor_ = -1;
  std::string path_;
  std::size_t buffer_bytes_max_ = 0;
  std::string buffer_;
};

}  // namespace stagecoach::observe
