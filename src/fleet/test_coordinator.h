// A coordinator's brain driven by hand: peers, events, and what came out. For tests.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "fleet/brain.h"

namespace stagecoach::fleet {

inline base::PeerId peer(std::uint8_t n) {
  base::PeerId id;
  id.bytes[0] = n;
  return id;
}

class Coordinator {
 public:
  /// `stages` × `replicas`, two steps of two microbatches, no validation but the last.
  Coordinator(std::uint64_t stages, std::uint64_t replicas) : brain(options(stages, replicas)) {}
  explicit Coordinator(Options given) : brain(std::move(given)) {}

  static Options options(std::uint64_t stages, std::uint64_t replicas) {
    Options o;
    o.config.model.layers = static_cast<std::int64_t>(stages);
    o.config.schedule.steps = 2;
    o.config.batch.microbatches = 2;
    o.config.batch.eval_microbatches = 1;
    o.config.batch.eval_every = 0;
    for (std::uint64_t s = 0; s < stages; ++s) o.split.push_back({static_cast<std::int64_t>(s), static_cast<std::int64_t>(s) + 1});
    o.replicas = replicas;
    o.run = base::RunId(77);
    o.term = base::Term(3);
    return o;
  }

  /// One event, at the present time. What came of it is in `out` until the next one.
  void give(Event event) {
    out = brain.step(std::move(event), now);
    for (const auto& effect : out) {
      if (auto* view = std::get_if<StoreView>(&effect)) store = view->op;
      if (auto* commit = std::get_if<StoreCommit>(&effect)) store = commit->op;
    }
  }
  void say(std::uint8_t from, wire::Message message) { give(wire::MessageArrived{peer(from), std::move(message)}); }
  void hello(std::uint8_t from, wire::Hello h = {}) {
    if (h.incarnation.value() == 0) h.incarnation = base::Incarnation(from);
    say(from, h);
  }
  void join(std::uint8_t from, std::string numerics = "cpu") {
    hello(from);
    say(from, wire::Ready{base::WeightVersion(brain.committed().value()), std::move(numerics)});
  }
  /// Joins peers 1 … n and lets the first view become durable. Peer i sits in stage (i − 1) mod stages.
  void begin(std::uint8_t n) {
    for (std::uint8_t i = 1; i <= n; ++i) join(i);
    stored();
  }
  void stored() { give(StoreDone{store, std::nullopt}); }
  void down(std::uint8_t from, link::DownReason reason) { give(wire::LinkIsDown{peer(from), reason, "test"}); }
  void pass(base::Duration time) {
    now = now + time;
    give(Tick{});
  }
  /// `from` has reduced the open step; `losses` = (microbatch, loss).
  void prepare(std::uint8_t from, std::uint64_t hash, std::vector<wire::LossEntry> losses = {}) {
    const auto stage = brain.workers().at(peer(from)).stage;
    wire::Prepared p;
    p.step = brain.committed().next();
    p.attempt = brain.attempt();
    p.view = brain.views()[stage].number;
    p.hash = hash;
    p.norms.push_back({base::TensorIndex(stage), 9.0});
    p.losses = std::move(losses);
    say(from, p);
  }
  static std::vector<wire::LossEntry> losses(std::uint64_t count) {
    std::vector<wire::LossEntry> all;
    for (std::uint64_t m = 0; m < count; ++m) all.push_back({base::MicrobatchIndex(m), 1.0});
    return all;
  }
  template <class T>
  const T* find() const {
    for (const auto& effect : out)
      if (auto* it = std::get_if<T>(&effect)) return it;
    return nullptr;
  }
  /// The messages of kind M to `to` among what came out last.
  template <class M>
  std::vector<M> sent(std::uint8_t to) const {
    std::vector<M> all;
    for (const auto& effect : out)
      if (auto* send = std::get_if<wire::Send>(&effect); send && send->peer == peer(to))
        if (auto* message = std::get_if<M>(&send->message)) all.push_back(*message);
    return all;
  }
  template <class M>
  std::size_t sent_to_all() const {
    std::size_t n = 0;
    for (const auto& effect : out)
      if (auto* send = std::get_if<wire::Send>(&effect)) n += std::holds_alternative<M>(send->message);
    return n;
  }
  /// Names of what was sent to `to`, in order.
  std::vector<std::string> names(std::uint8_t to) const {
    std::vector<std::string> all;
    for (const auto& effect : out)
      if (auto* send = std::get_if<wire::Send>(&effect); send && send->peer == peer(to)) all.push_back(wire::name_of(send->message));
    return all;
  }
  std::string refusal(std::uint8_t to) const {
    const auto evicted = sent<wire::Evicted>(to);
    return evicted.empty() ? "" : evicted.front().reason;
  }
  std::string exit_text(int code) const {
    const auto* exit = find<wire::Exit>();
    return exit && exit->code == code ? exit->text : "";
  }

  Brain brain;
  base::Instant now;
  Effects out;
  base::OpId store;
};

}  // namespace stagecoach::fleet
