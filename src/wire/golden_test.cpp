// Golden frames: tests/golden/frames/<message>.hex holds the bytes of one filled frame of each type.
//
// A difference means that peers of two builds misunderstand each other. If the format is meant to change, raise
// kProtocolVersion, run this program once with STAGECOACH_WRITE_GOLDEN=1 in the environment, and read the difference
// before committing it.
#include <gtest/gtest.h>

#include <concepts>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "wire/test_frames.h"

namespace stagecoach::wire {
namespace {

std::string to_hex(const base::Bytes& bytes) {
  constexpr std::size_t kBytesPerLine = 16;
  const char* digits = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto byte = std::to_integer<unsigned>(bytes[i]);
    text += digits[byte >> 4];
    text += digits[byte & 15];
    text += (i + 1) % kBytesPerLine == 0 || i + 1 == bytes.size() ? '\n' : ' ';
  }
  return text;
}

std::string path_of(const std::string& name) { return STAGECOACH_GOLDEN_DIR "/frames/" + name + ".hex"; }

// Claim: every message type encodes to the bytes of its golden file.
TEST(Golden, frames_have_the_recorded_bytes) {
  const char* write = std::getenv("STAGECOACH_WRITE_GOLDEN");
  for (const Message& message : test::samples()) {
    const std::string hex = to_hex(encode(message));
    if (write != nullptr && std::string(write) == "1") {
      std::ofstream(path_of(name_of(message)), std::ios::binary) << hex;
    }
    std::ifstream file(path_of(name_of(message)), std::ios::binary);
    ASSERT_TRUE(file) << path_of(name_of(message))
                      << " is missing: a new message type needs a golden file (see the top of golden_test.cpp)";
    std::stringstream recorded;
    recorded << file.rdbuf();
    EXPECT_EQ(hex, recorded.str()) << "the bytes of " << name_of(message) << " changed";
  }
}

/// The message in the golden file of M.
template <class M>
M golden() {
  std::ifstream file(path_of(Traits<M>::text), std::ios::binary);
  base::Bytes frame;
  for (unsigned byte = 0; file >> std::hex >> byte;) frame.push_back(static_cast<std::byte>(byte));
  auto message = decode(frame);
  CHECK(message.ok() && std::holds_alternative<M>(*message), "a golden file holds a frame of its type");
  return std::get<M>(*message);
}

// A golden value shows its place among the values of its frame: u64 8100…05, f64 5.5, text "t5" and bytes 05… stand
// fifth.
template <std::unsigned_integral T>
int place(T v) {
  return static_cast<int>(v & 0xff);
}
int place(double v) { return static_cast<int>(v); }
int place(const base::Bytes32& v) { return v.bytes[0]; }
int place(const std::string& v) { return std::stoi(v.substr(1)); }
int place(const base::Payload& v) { return std::to_integer<int>(v->at(0)); }
template <class Tag>
int place(const base::Id<Tag>& v) {
  return place(v.value());
}

/// The fields stand in the frame in this order, and no others with them.
template <class M, class... Fields>
void expect_order(const M&, std::set<std::string>& seen, const Fields&... fields) {
  std::vector<int> counted(sizeof...(fields));
  std::iota(counted.begin(), counted.end(), 1);
  EXPECT_EQ((std::vector<int>{place(fields)...}), counted) << Traits<M>::text;
  seen.insert(Traits<M>::text);
}

template <class M, class... Fields>
void expect_stamped_order(const M& m, std::set<std::string>& seen, const Fields&... fields) {
  const Stamps& s = m.stamps;
  expect_order(m, seen, s.stage, s.step, s.attempt, s.from_view, s.to_view, s.microbatch, s.number, s.version, s.tokens,
               fields...);
}

void expect_control_orders(std::set<std::string>& seen) {
  const auto hello = golden<Hello>();
  const auto &at = hello.addresses.at(0), &then = hello.addresses.at(1);
  expect_order(hello, seen, hello.protocol_version, hello.run, hello.incarnation, hello.version, hello.attempt,
               hello.numerics_class, at.host, at.port, then.host, then.port);
  const auto assign = golden<Assign>();
  const auto &state = assign.state.at(0), &more = assign.state.at(1);
  const auto &shard = assign.shards.at(0), &last = assign.shards.at(1);
  expect_order(assign, seen, assign.term, assign.run, assign.config_id, assign.layout_id, assign.config_text,
               assign.split_ends.at(0), assign.split_ends.at(1), assign.stage, assign.version, state.name, state.bytes,
               state.sha256, more.name, more.bytes, more.sha256, shard.name, shard.bytes, shard.sha256, last.name,
               last.bytes, last.sha256);
  const auto ready = golden<Ready>();
  expect_order(ready, seen, ready.version, ready.numerics_class);
  const auto view = golden<View>();
  const auto &left = view.stages.at(0), &right = view.stages.at(1);
  const auto &first = left.members.at(0), &second = right.members.at(0);
  const auto &row = view.table.at(0), &next = view.table.at(1);
  expect_order(view, seen, view.term, view.fence_number, view.attempt, view.committed, left.stage, left.number,
               first.peer, first.incarnation, first.addresses.at(0).host, first.addresses.at(0).port, right.stage,
               right.number, second.peer, second.incarnation, second.addresses.at(0).host, second.addresses.at(0).port,
               row.step, row.microbatch, row.owner, next.step, next.microbatch, next.owner, view.reason);
  const auto lease = golden<Lease>();
  expect_order(lease, seen, lease.term, lease.attempt, lease.view, lease.step, lease.ranges.at(0).first,
               lease.ranges.at(0).count, lease.ranges.at(1).first, lease.ranges.at(1).count);
  const auto prepared = golden<Prepared>();
  const auto& norms = prepared.norms;
  const auto& losses = prepared.losses;
  expect_order(prepared, seen, prepared.step, prepared.attempt, prepared.view, prepared.hash, norms.at(0).tensor,
               norms.at(0).sum_of_squares, norms.at(1).tensor, norms.at(1).sum_of_squares, losses.at(0).microbatch,
               losses.at(0).loss_sum, losses.at(1).microbatch, losses.at(1).loss_sum);
  const auto commit = golden<Commit>();
  expect_order(commit, seen, commit.term, commit.step, commit.attempt, commit.view, commit.hash, commit.global_norm);
  const auto evicted = golden<Evicted>();
  expect_order(evicted, seen, evicted.term, evicted.incarnation, evicted.reason);
  const auto trouble = golden<Trouble>();
  expect_order(trouble, seen, trouble.attempt, trouble.partner, trouble.text);
  const auto finish = golden<Finish>();
  expect_order(finish, seen, finish.term, finish.reason);
}

void expect_service_orders(std::set<std::string>& seen) {
  const auto save = golden<SaveRequest>();
  expect_order(save, seen, save.term, save.version);
  const auto chunk = golden<StateChunk>();
  expect_order(chunk, seen, chunk.version, chunk.tensor, chunk.tensors, chunk.name, chunk.shape.at(0),
               chunk.shape.at(1), chunk.offset, chunk.bytes);
  const auto request = golden<ObjectRequest>();
  expect_order(request, seen, request.sha256, request.offset, request.length);
  const auto object = golden<ObjectChunk>();
  expect_order(object, seen, object.sha256, object.offset, object.bytes);
  const auto t = golden<Telemetry>();
  expect_order(t, seen, t.attempt, t.version, t.busy_ns, t.running_ns, t.service_max_ns, t.queued, t.offered,
               t.accepted, t.forwarded, t.accumulated, t.reduced, t.committed, t.bytes_sent, t.bytes_received, t.waiting);
  expect_order(golden<StatusRequest>(), seen);
  const auto status = golden<StatusReply>();
  expect_order(status, seen, status.json);
}

void expect_data_orders(std::set<std::string>& seen) {
  const auto offer = golden<Offer>();
  expect_stamped_order(offer, seen, offer.tokens, offer.boundary);
  expect_stamped_order(golden<Accepted>(), seen);
  expect_stamped_order(golden<Released>(), seen);
  const auto gradient = golden<Gradient>();
  expect_stamped_order(gradient, seen, gradient.boundary_gradient);
  const auto bits = golden<Bits>();
  expect_stamped_order(bits, seen, bits.words.at(0), bits.words.at(1));
  const auto part = golden<Part>();
  expect_stamped_order(part, seen, part.shard, part.sums);
  const auto sum = golden<Sum>();
  expect_stamped_order(sum, seen, sum.shard, sum.sums);
}

// Claim: the recorded bytes mean what docs/formats/frames.md says, field by field and by name. (Two fields of one kind
// that changed places in fields() encode a filled sample to the same bytes; only their names tell.)
TEST(Golden, recorded_bytes_decode_into_the_named_fields) {
  std::set<std::string> seen;
  expect_control_orders(seen);
  expect_service_orders(seen);
  expect_data_orders(seen);
  EXPECT_EQ(seen.size(), std::variant_size_v<Message>) << "a new message type needs its order written down here";
}

}  // namespace
}  // namespace stagecoach::wire
