// The messages of PROTOCOL.md, as plain structs.
//
// In/out:  values that brains make and read; wire/codec.h turns them into frames and back.
// Thread:  any.
// Why:     one list of everything that peers can say, each with the bounds that a decoder enforces before it allocates.
//
// Every message type has a number for good; a number is never used for anything else. Data messages carry Stamps in the frame
// header, control messages carry their fields in the body. docs/formats/frames.md has the bytes.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "link/link.h"

namespace stagecoach::wire {

inline constexpr std::uint16_t kProtocolVersion = 1;

// Bounds. What breaks one is refused before memory is taken for it.
inline constexpr std::size_t kStagesMax = 1024;
inline constexpr std::size_t kMembersMax = 1024;           // of one stage
inline constexpr std::size_t kAddressesMax = 8;            // of one peer
inline constexpr std::size_t kTextMax = 4096;
inline constexpr std::size_t kConfigTextMax = 64 * 1024;
inline constexpr std::size_t kStatusTextMax = 1000 * 1024;
inline constexpr std::size_t kMicrobatchesMax = 8192;      // of one step, validation included
inline constexpr std::size_t kBitmapWordsMax = kMicrobatchesMax / 64;
inline constexpr std::size_t kNormsMax = 16384;            // parameter tensors of one stage
inline constexpr std::size_t kRangesMax = 1024;
inline constexpr std::size_t kObjectsMax = 4096;
inline constexpr std::size_t kChunkBytesMax = 4u << 20;
inline constexpr std::size_t kTokenBytesMax = 16u << 20;
inline constexpr std::size_t kTensorBytesMax = 192u << 20;

/// What a data frame belongs to (PROTOCOL B0): older in attempt or either view is dropped, newer is parked.
struct Stamps {
  base::StageIndex stage;          // of the sender
  base::Step step;
  base::Attempt attempt;
  base::ViewNumber from_view;      // of the sender's stage
  base::ViewNumber to_view;        // of the receiver's stage
  base::MicrobatchIndex microbatch;
  std::uint32_t number = 0;        // naming number of an offer and its answers (PROTOCOL B1)
  base::WeightVersion version;     // the weights that the payload was computed on
  std::uint32_t tokens = 0;        // B·S of the microbatch
  bool operator==(const Stamps&) const = default;
};

enum class MessageType : std::uint8_t {
  hello = 1, assign = 2, ready = 3, view = 4, lease = 5, prepared = 6, commit = 7, evicted = 8, trouble = 9,
  fence = 10, report = 11, sync = 12,  // reserved for local repair (PROTOCOL B2): a decoder refuses them by name
  offer = 13, accepted = 14, released = 15, gradient = 16, bits = 17, part = 18, sum = 19,
  save_request = 20, state_chunk = 21, object_request = 22, object_chunk = 23,
  telemetry = 24, status_request = 25, status_reply = 26, finish = 27,
};

// ---- worker ↔ coordinator ----

/// worker → coordinator, first on every new link: the whole state of the worker.
struct Hello {
  std::uint16_t protocol_version = kProtocolVersion;
  base::RunId run;                        // 0 = does not know yet
  base::Incarnation incarnation;
  bool in_view = false;
  base::WeightVersion version;
  base::Attempt attempt;
  std::string numerics_class;             // empty until the device is open
  std::vector<link::Address> addresses;   // where other workers may dial it; the coordinator adds what it sees
  template <class V> void fields(V& v) {
    v(protocol_version), v(run), v(incarnation), v(in_view), v(version), v(attempt);
    v.text(numerics_class, kTextMax), v.list(addresses, kAddressesMax);
  }
};

/// A file that a joiner may fetch by its hash.
struct ObjectRef {
  std::string name;
  std::uint64_t bytes = 0;
  base::Sha256 sha256;
  template <class V> void fields(V& v) { v.text(name, kTextMax), v(bytes), v(sha256); }
};

/// coordinator → worker: what to become. The worker makes itself ready (fetches, loads) and answers `ready`.
struct Assign {
  base::Term term;
  base::RunId run;
  base::ConfigId config_id;
  base::Sha256 layout_id;
  std::string config_text;                // model::canonical_text: a joiner needs no config file
  std::vector<std::uint64_t> split_ends;  // last layer + 1 of each stage
  base::StageIndex stage;
  base::WeightVersion version;            // to start from; 0 = the seeded init
  std::vector<ObjectRef> state;           // checkpoint files that hold this stage's tensors, where version > 0
  std::vector<ObjectRef> shards;          // token shards and their manifest, at stage 0
  template <class V> void fields(V& v) {
    v(term), v(run), v(config_id), v(layout_id), v.text(config_text, kConfigTextMax), v.list(split_ends, kStagesMax);
    v(stage), v(version), v.list(state, kObjectsMax), v.list(shards, kObjectsMax);
  }
};

/// worker → coordinator: loaded and able to work from `version`.
struct Ready {
  base::WeightVersion version;
  std::string numerics_class;
  template <class V> void fields(V& v) { v(version), v.text(numerics_class, kTextMax); }
};

struct Member {
  base::PeerId peer;
  base::Incarnation incarnation;
  std::vector<link::Address> addresses;
  bool operator==(const Member&) const = default;
  template <class V> void fields(V& v) { v(peer), v(incarnation), v.list(addresses, kAddressesMax); }
};

struct StageView {
  base::StageIndex stage;
  base::ViewNumber number;
  std::vector<Member> members;  // in view order: shard owners are named by position
  bool operator==(const StageView&) const = default;
  template <class V> void fields(V& v) { v(stage), v(number), v.list(members, kMembersMax); }
};

/// Who owns what from now on (PROTOCOL B2). Empty in a new attempt; filled by local repair later.
struct OwnerRow {
  base::Step step;
  base::MicrobatchIndex microbatch;
  base::PeerId owner;
  template <class V> void fields(V& v) { v(step), v(microbatch), v(owner); }
};

/// coordinator → worker: the members of its own stage and of the stages beside it, under a new attempt.
struct View {
  base::Term term;
  std::uint64_t fence_number = 0;
  base::Attempt attempt;
  base::Step committed;             // the newest committed step
  std::vector<StageView> stages;    // s − 1, s, s + 1, as far as they exist
  std::vector<OwnerRow> table;
  std::string reason;               // why this view was opened, for people
  template <class V> void fields(V& v) {
    v(term), v(fence_number), v(attempt), v(committed), v.list(stages, 3), v.list(table, kMicrobatchesMax);
    v.text(reason, kTextMax);
  }
};

/// [first, first + count) of a step's microbatches.
struct MicrobatchRange {
  base::MicrobatchIndex first;
  std::uint64_t count = 0;
  template <class V> void fields(V& v) { v(first), v(count); }
};

/// coordinator → head: these microbatches of `step` are yours in this attempt.
struct Lease {
  base::Term term;
  base::Attempt attempt;
  base::ViewNumber view;
  base::Step step;
  std::vector<MicrobatchRange> ranges;
  template <class V> void fields(V& v) { v(term), v(attempt), v(view), v(step), v.list(ranges, kRangesMax); }
};

struct NormEntry {
  base::TensorIndex tensor;
  double sum_of_squares = 0;
  template <class V> void fields(V& v) { v(tensor), v(sum_of_squares); }
};

struct LossEntry {
  base::MicrobatchIndex microbatch;
  double loss_sum = 0;  // nats, summed over the microbatch's tokens
  template <class V> void fields(V& v) { v(microbatch), v(loss_sum); }
};

/// worker → coordinator: holds the whole reduced gradient of its stage (PROTOCOL B5).
struct Prepared {
  base::Step step;
  base::Attempt attempt;
  base::ViewNumber view;
  std::uint64_t hash = 0;             // of the reduced sums
  std::vector<NormEntry> norms;
  std::vector<LossEntry> losses;      // tail: of the microbatches that this worker owned
  template <class V> void fields(V& v) {
    v(step), v(attempt), v(view), v(hash), v.list(norms, kNormsMax), v.list(losses, kMicrobatchesMax);
  }
};

/// coordinator → worker: the step is written down; apply it (PROTOCOL B6). Names the receiver's own stage's result.
struct Commit {
  base::Term term;
  base::Step step;
  base::Attempt attempt;
  base::ViewNumber view;
  std::uint64_t hash = 0;
  double global_norm = 0;
  template <class V> void fields(V& v) { v(term), v(step), v(attempt), v(view), v(hash), v(global_norm); }
};

/// coordinator → worker: this incarnation is out, for good, and why.
struct Evicted {
  base::Term term;
  base::Incarnation incarnation;
  std::string reason;
  template <class V> void fields(V& v) { v(term), v(incarnation), v.text(reason, kTextMax); }
};

enum class TroubleKind : std::uint8_t {
  link_down = 0,       // a link to a member of the view was up and went down
  unreachable = 1,     // a link to a member did not come up in time
  device_failed = 2,   // this worker's own device failed: another one may do better
  broken_books = 3,    // an overlap, a hole, two different tensors for one microbatch
  bad_numbers = 4,     // NaN, inf or a gradient beyond fixed64: the same on any worker
};

/// worker → coordinator: something that only a new view can mend.
struct Trouble {
  base::Attempt attempt;
  TroubleKind kind = TroubleKind::link_down;
  base::PeerId partner;  // zero where there is none
  std::string text;
  template <class V> void fields(V& v) { v(attempt), v.enumeration(kind, 4), v(partner), v.text(text, kTextMax); }
};

/// coordinator → worker: the run is over; exit with 0.
struct Finish {
  base::Term term;
  std::string reason;
  template <class V> void fields(V& v) { v(term), v.text(reason, kTextMax); }
};

/// coordinator → one member of a stage: stream your state of exactly this version.
struct SaveRequest {
  base::Term term;
  base::WeightVersion version;
  template <class V> void fields(V& v) { v(term), v(version); }
};

/// worker → coordinator: a slice of one tensor of a stage's state.
struct StateChunk {
  base::WeightVersion version;
  std::uint32_t tensor = 0;       // 0 … tensors − 1
  std::uint32_t tensors = 0;      // in all
  std::string name;
  std::uint8_t dtype = 0;         // base::DType
  std::vector<std::uint64_t> shape;
  std::uint64_t offset = 0;       // bytes before this slice
  base::Payload bytes;
  template <class V> void fields(V& v) {
    v(version), v(tensor), v(tensors), v.text(name, kTextMax), v.enumeration(dtype, 3), v.list(shape, 8), v(offset);
    v.payload(bytes, kChunkBytesMax);
  }
};

struct ObjectRequest {
  base::Sha256 sha256;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  template <class V> void fields(V& v) { v(sha256), v(offset), v(length); }
};

struct ObjectChunk {
  base::Sha256 sha256;
  std::uint64_t offset = 0;
  base::Payload bytes;  // null = the coordinator does not have it
  template <class V> void fields(V& v) { v(sha256), v(offset), v.payload(bytes, kChunkBytesMax); }
};

/// worker → coordinator, about once a second: what `status` shows and what hang detection reads.
struct Telemetry {
  base::Attempt attempt;
  base::WeightVersion version;
  std::uint64_t busy_ns = 0;             // device time used since the worker started
  std::uint64_t running_ns = 0;          // age of the operation on the device now; 0 = idle
  std::uint64_t service_max_ns = 0;      // longest operation finished so far
  std::uint32_t queued = 0;              // operations waiting for the device
  std::uint32_t offered = 0, accepted = 0, forwarded = 0, accumulated = 0;  // microbatches of open steps by furthest state
  std::uint32_t reduced = 0;             // contributions and sums of open reduces that it holds
  std::uint64_t committed = 0;           // microbatches that it accumulated in steps that are committed
  std::uint64_t bytes_sent = 0, bytes_received = 0;
  std::string waiting;                   // what it waits for and why; empty = nothing
  template <class V> void fields(V& v) {
    v(attempt), v(version), v(busy_ns), v(running_ns), v(service_max_ns), v(queued), v(offered), v(accepted), v(forwarded);
    v(accumulated), v(reduced), v(committed), v(bytes_sent), v(bytes_received), v.text(waiting, kTextMax);
  }
};

struct StatusRequest {
  template <class V> void fields(V&) {}
};

struct StatusReply {
  std::string json;
  template <class V> void fields(V& v) { v.text(json, kStatusTextMax); }
};

// ---- worker ↔ worker: all carry Stamps ----

/// s → s + 1: the boundary tensor, with the token ids (the tail needs the labels). Names the receiver owner at its stage.
struct Offer {
  Stamps stamps;
  base::Payload tokens;
  base::Payload boundary;
  template <class V> void fields(V& v) { v.payload(tokens, kTokenBytesMax), v.payload(boundary, kTensorBytesMax); }
};
/// s + 1 → s: owned; the sender need not offer it again.
struct Accepted {
  Stamps stamps;
  template <class V> void fields(V&) {}
};
/// s + 1 → s: not accumulated, never will be, under this naming number (PROTOCOL B1).
struct Released {
  Stamps stamps;
  template <class V> void fields(V&) {}
};
/// s + 1 → s: the gradient of the boundary tensor, to the worker that offered it.
struct Gradient {
  Stamps stamps;
  base::Payload boundary_gradient;
  template <class V> void fields(V& v) { v.payload(boundary_gradient, kTensorBytesMax); }
};
/// Same stage: which microbatches the sender has accumulated.
struct Bits {
  Stamps stamps;
  std::vector<std::uint64_t> words;  // bit m of word m / 64
  template <class V> void fields(V& v) { v.list(words, kBitmapWordsMax); }
};
/// Same stage, to the owner of a shard: the sender's contribution to it.
struct Part {
  Stamps stamps;
  base::ShardIndex shard;
  base::Payload sums;
  template <class V> void fields(V& v) { v(shard), v.payload(sums, kTensorBytesMax); }
};
/// Same stage, from the owner of a shard to all: the group's sum.
struct Sum {
  Stamps stamps;
  base::ShardIndex shard;
  base::Payload sums;
  template <class V> void fields(V& v) { v(shard), v.payload(sums, kTensorBytesMax); }
};

using Message = std::variant<Hello, Assign, Ready, View, Lease, Prepared, Commit, Evicted, Trouble, Offer, Accepted, Released,
                             Gradient, Bits, Part, Sum, SaveRequest, StateChunk, ObjectRequest, ObjectChunk, Telemetry,
                             StatusRequest, StatusReply, Finish>;

/// The number and the class of each message type.
template <class M> struct Traits;
#define STAGECOACH_MESSAGE(Struct, name, priority_name, has_stamps)                  \
  template <> struct Traits<Struct> {                                                \
    static constexpr MessageType type = MessageType::name;                           \
    static constexpr link::Priority priority = link::Priority::priority_name;        \
    static constexpr bool stamped = has_stamps;                                      \
    static constexpr const char* text = #name;                                       \
  }
STAGECOACH_MESSAGE(Hello, hello, control, false);
STAGECOACH_MESSAGE(Assign, assign, control, false);
STAGECOACH_MESSAGE(Ready, ready, control, false);
STAGECOACH_MESSAGE(View, view, control, false);
STAGECOACH_MESSAGE(Lease, lease, control, false);
STAGECOACH_MESSAGE(Prepared, prepared, control, false);
STAGECOACH_MESSAGE(Commit, commit, control, false);
STAGECOACH_MESSAGE(Evicted, evicted, control, false);
STAGECOACH_MESSAGE(Trouble, trouble, control, false);
STAGECOACH_MESSAGE(Offer, offer, forward, true);
STAGECOACH_MESSAGE(Accepted, accepted, control, true);
STAGECOACH_MESSAGE(Released, released, control, true);
STAGECOACH_MESSAGE(Gradient, gradient, backward, true);
STAGECOACH_MESSAGE(Bits, bits, control, true);
STAGECOACH_MESSAGE(Part, part, backward, true);   // a stage waits for its reduce as for a gradient
STAGECOACH_MESSAGE(Sum, sum, backward, true);
STAGECOACH_MESSAGE(SaveRequest, save_request, control, false);
STAGECOACH_MESSAGE(StateChunk, state_chunk, bulk, false);
STAGECOACH_MESSAGE(ObjectRequest, object_request, control, false);
STAGECOACH_MESSAGE(ObjectChunk, object_chunk, bulk, false);
STAGECOACH_MESSAGE(Telemetry, telemetry, control, false);
STAGECOACH_MESSAGE(StatusRequest, status_request, control, false);
STAGECOACH_MESSAGE(StatusReply, status_reply, control, false);
STAGECOACH_MESSAGE(Finish, finish, control, false);
#undef STAGECOACH_MESSAGE

/// "offer", "commit", …
const char* name_of(const Message& message);
/// The class that the message travels in.
link::Priority priority_of(const Message& message);
/// The stamps of a data message; null for a control message.
const Stamps* stamps_of(const Message& message);

}  // namespace stagecoach::wire
