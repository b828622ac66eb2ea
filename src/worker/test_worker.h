// A worker's brain driven by hand, in the middle of three stages of two replicas each. For tests.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "digest/digest.h"
#include "worker/brain.h"

namespace stagecoach::worker {

// Keys: the coordinator is 100; stage s has the workers 10·s + 1 and 10·s + 2.
inline base::PeerId peer(std::uint8_t n) {
  base::PeerId id;
  id.bytes[0] = n;
  return id;
}
inline constexpr std::uint8_t kCoordinator = 100;
inline constexpr std::size_t kTensorBytes = 16;

inline base::Payload tensor(int fill, std::size_t bytes = kTensorBytes) {
  return base::make_payload(base::Bytes(bytes, static_cast<std::byte>(fill)));
}

class Worker {
 public:
  explicit Worker(std::uint8_t self = 11)
      : self_(self),
        stage_(self / 10),
        brain(Options{peer(self), base::Incarnation(5), peer(kCoordinator), {{"127.0.0.1", 1}}, {{"127.0.0.1", 2}}}) {
    config.model.layers = 3;
    config.model.cut_kind = model::CutKind::none;
    config.model.cut_after.clear();
    config.schedule.steps = 5;
    config.batch.microbatches = 4;
    config.batch.eval_microbatches = 1;
    config.batch.eval_every = 0;
    take(brain.start(now));
  }

  void give(Event event) { take(brain.step(std::move(event), now)); }
  void say(std::uint8_t from, wire::Message message) { give(wire::MessageArrived{peer(from), std::move(message)}); }
  void up(std::uint8_t n) { give(wire::LinkIsUp{peer(n), {}}); }
  void down(std::uint8_t n, link::DownReason reason = link::DownReason::idle) { give(wire::LinkIsDown{peer(n), reason, "test"}); }
  void pass(base::Duration time) {
    now = now + time;
    give(Tick{});
  }

  wire::Assign assign() const {
    wire::Assign a;
    a.term = base::Term(1), a.run = base::RunId(7), a.stage = base::StageIndex(stage_);
    a.config_text = model::canonical_text(config);
    static_cast<base::Bytes32&>(a.config_id) = digest::sha256(a.config_text);
    a.split_ends = {1, 2, 3};
    a.layout_id = digest::sha256(model::canonical_text(model::Split{{0, 1}, {1, 2}, {2, 3}}));
    return a;
  }
  /// Attempt n, and all views' numbers n.
  wire::View view(std::uint64_t n, std::uint64_t committed = 0) const {
    wire::View v;
    v.term = base::Term(1), v.attempt = base::Attempt(n), v.committed = base::Step(committed);
    for (std::uint64_t s = stage_ == 0 ? 0 : stage_ - 1; s <= std::min<std::uint64_t>(stage_ + 1, 2); ++s) {
      wire::StageView stage{base::StageIndex(s), base::ViewNumber(n), {}};
      for (std::uint8_t i = 1; i <= 2; ++i) {
        const auto key = static_cast<std::uint8_t>(10 * s + i);
        stage.members.push_back({peer(key), base::Incarnation(5), {}});
      }
      v.stages.push_back(stage);
    }
    return v;
  }
  PrepareDone prepared() const { return {4, 8, kTensorBytes, stage_ == 0 ? 0 : kTensorBytes, stage_ == 2 ? 0 : kTensorBytes, "cpu", {}}; }
  void assigned() {
    up(kCoordinator);
    say(kCoordinator, assign());
    give(prepared());
  }
  /// In attempt 1, linked to all its partners, with an idle device.
  void begin() {
    assigned();
    say(kCoordinator, view(1));
    for (const auto& stage : view(1).stages)
      for (const auto& member : stage.members)
        if (member.peer != peer(self_)) up(member.peer.bytes[0]);
    finish_all();
  }

  wire::Stamps stamps(std::uint64_t from_stage, std::uint64_t m, std::uint64_t attempt = 1, std::uint64_t step = 1) const {
    wire::Stamps s;
    s.stage = base::StageIndex(from_stage), s.step = base::Step(step), s.attempt = base::Attempt(attempt);
    s.from_view = s.to_view = base::ViewNumber(attempt);
    s.microbatch = base::MicrobatchIndex(m), s.number = 1;
    return s;
  }
  wire::Offer offer(std::uint64_t m, std::uint64_t attempt = 1, std::uint64_t step = 1) const {
    return {stamps(stage_ - 1, m, attempt, step), tensor(1), tensor(static_cast<int>(m) + 2)};
  }
  wire::Gradient gradient(std::uint64_t m, std::uint64_t attempt = 1) const { return {stamps(stage_ + 1, m, attempt), tensor(9)}; }
  /// Whom the newest offer of microbatch m named.
  std::uint8_t named(std::uint64_t m) const {
    return brain.books().at(base::Step(1)).microbatches.at(m).down.named.value_or(peer(0)).bytes[0];
  }

  /// Completes the oldest request on the device.
  void finish(ComputeResult result = {}) {
    ASSERT_FALSE(device.empty());
    const Compute request = device.front();
    device.erase(device.begin());
    if (!result.payload && !std::holds_alternative<Backward>(request.request)) result.payload = tensor(7);
    if (!result.payload) result.payload = tensor(8);
    if (auto* read = std::get_if<ReadSum>(&request.request))
      result.payload = tensor(1, static_cast<std::size_t>(read->slice.last - read->slice.first) * 8);
    if (auto* add = std::get_if<AddParts>(&request.request)) result.payload = add->parts.front();
    if (std::holds_alternative<WriteReduced>(request.request)) result.hash = 55;
    give(ComputeDone{request.op, result, base::Duration::milliseconds(1), std::nullopt});
  }
  void finish_all() {
    while (!device.empty()) finish();
  }
  /// Brings step 1 to prepared alone: all microbatches are ours, the other replica has none.
  void prepare_step() {
    for (std::uint64_t m = 0; m < 4; ++m) say(1, offer(m));
    finish_all();
    for (std::uint64_t m = 0; m < 4; ++m) say(named(m), gradient(m));
    finish_all();
    say(12, wire::Bits{stamps(stage_, 0), {0}});
    finish_all();
    say(12, wire::Part{stamps(stage_, 0), base::ShardIndex(0), tensor(1, 16)});
    finish_all();
    say(12, wire::Sum{stamps(stage_, 0), base::ShardIndex(1), tensor(1, 16)});
    finish_all();
  }
  wire::Commit commit(std::uint64_t step = 1, std::uint64_t hash = 55) const {
    return {base::Term(1), base::Step(step), base::Attempt(1), base::ViewNumber(1), hash, 1.0};
  }

  template <class M>
  std::vector<M> sent(std::uint8_t to) const {
    std::vector<M> all;
    for (const auto& effect : out)
      if (auto* send = std::get_if<wire::Send>(&effect); send && send->peer == peer(to))
        if (auto* message = std::get_if<M>(&send->message)) all.push_back(*message);
    return all;
  }
  template <class T>
  const T* find() const {
    for (const auto& effect : out)
      if (auto* it = std::get_if<T>(&effect)) return it;
    return nullptr;
  }
  std::vector<std::string> names(std::uint8_t to) const {
    std::vector<std::string> all;
    for (const auto& effect : out)
      if (auto* send = std::get_if<wire::Send>(&effect); send && send->peer == peer(to)) all.push_back(wire::name_of(send->message));
    return all;
  }
  std::string exit_text(int code) const {
    const auto* exit = find<wire::Exit>();
    return exit && exit->code == code ? exit->text : "";
  }
  std::string closed(std::uint8_t n) const {
    for (const auto& effect : out)
      if (auto* close = std::get_if<wire::CloseLink>(&effect); close && close->peer == peer(n)) return close->text;
    return "";
  }
  const Microbatch& book(std::uint64_t m) const { return brain.books().at(base::Step(1)).microbatches.at(m); }

 private:
  void take(Effects effects) {
    out = std::move(effects);
    for (const auto& effect : out)
      if (auto* compute = std::get_if<Compute>(&effect)) device.push_back(*compute);
  }
  std::uint8_t self_;
  std::uint64_t stage_;

 public:
  model::TrainConfig config;
  Brain brain;
  base::Instant now;
  Effects out;                   // of the last event
  std::vector<Compute> device;   // requests that are not finished, oldest first
};

}  // namespace stagecoach::worker
