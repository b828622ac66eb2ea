#include "link/memory_endpoint.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace stagecoach::link {

using base::Error;
using base::ErrorCode;
using base::Instant;
using base::PeerId;

std::unique_ptr<MemoryEndpoint> MemoryRoad::make_endpoint(const PeerId& self, const Limits& limits) {
  const Address address{"memory", next_port_++};
  inboxes_.emplace(address, Inbox());
  return std::unique_ptr<MemoryEndpoint>(new MemoryEndpoint(*this, self, limits, address));
}

void MemoryRoad::post(const Address& to, Instant now, Message message) {
  const auto inbox = inboxes_.find(to);
  if (inbox != inboxes_.end()) inbox->second.emplace(now + options_.delay, std::move(message));
}

MemoryEndpoint::MemoryEndpoint(MemoryRoad& road, const PeerId& self, const Limits& limits, Address address)
    : road_(road), self_(self), limits_(limits), address_(std::move(address)), start_(road.prng_.next()),
      uplink_(limits.uplink_bytes_per_s) {}

MemoryEndpoint::~MemoryEndpoint() { road_.inboxes_.erase(address_); }

void MemoryEndpoint::take_in(Instant now) {
  now_ = std::max(now_, now);
  uplink_.advance(now_);
  receive(now_);
  run_timers();
}

void MemoryEndpoint::advance(Instant now) {
  now_ = std::max(now_, now);
  dirty_ = false;
  start_dials();
  take_in(now);
  judge_waiting();
  send_queued();
}

void MemoryEndpoint::dial(const PeerId& peer, std::span<const Address> addresses) {
  if (links_.contains(peer) || dials_.contains(peer)) return;
  if (peer == self_) {
    events_.push_back(LinkDown{peer, {}, DownReason::unreachable, "that is this process's own key"});
    return;
  }
  Dial& dial = dials_[peer];
  for (const Address& address : addresses) dial.attempts.emplace(road_.next_connection_++, address);
  dirty_ = true;
}

void MemoryEndpoint::start_dials() {
  for (auto& [peer, dial] : dials_) {
    if (dial.started) continue;
    dial.started = true;
    dial.gives_up = now_ + limits_.handshake_timeout;
    ++tick_;
    for (const auto& [connection, address] : dial.attempts) {
      Message message;
      message.kind = Message::Kind::dial;
      message.connection = connection;
      message.expects = peer;
      message.greeting = {start_, tick_};
      post(address, std::move(message));
    }
  }
}

base::Result<void> MemoryEndpoint::send(const PeerId& peer, base::Payload frame, SendOptions options) {
  CHECK(frame != nullptr, "a frame has bytes, if only none");
  const auto at = links_.find(peer);
  if (at == links_.end()) return Error{ErrorCode::not_found, "no link to peer " + peer.short_hex() + " is up"};
  Link& link = at->second;
  const std::uint32_t limit = options.priority == Priority::control ? kControlFrameBytesMax : kFrameBytesMax;
  if (frame->size() > limit) {
    return Error{ErrorCode::too_large, "a frame of " + std::to_string(frame->size()) + " bytes is longer than " + std::to_string(limit)};
  }
  if (frame->size() > limits_.send_queue_bytes_max - std::min(link.stats.bytes_queued, limits_.send_queue_bytes_max)) {
    return Error{ErrorCode::unavailable, "the queue to peer " + peer.short_hex() + " is full: try when it has drained"};
  }
  // Control frames keep their order whatever deadline they name.
  if (options.priority == Priority::control) options.deadline = Instant::never();
  link.stats.bytes_queued += frame->size();
  link.queue.emplace(SendOrder{options.priority, options.deadline, next_sequence_++}, std::move(frame));
  dirty_ = true;
  return {};
}

void MemoryEndpoint::close(const PeerId& peer, const std::string& text) {
  give_up_dial(peer);
  const auto at = links_.find(peer);
  if (at == links_.end()) return;
  Message message;
  message.kind = Message::Kind::close;
  message.connection = at->second.connection;
  message.text = text;
  post(at->second.address, std::move(message));
  go_down(peer, DownReason::closed_by_us, text);
}

std::optional<LinkStats> MemoryEndpoint::stats(const PeerId& peer) const {
  const auto at = links_.find(peer);
  if (at == links_.end()) return std::nullopt;
  LinkStats stats = at->second.stats;
  stats.round_trip = road_.options_.delay * 2;
  return stats;
}

std::vector<Event> MemoryEndpoint::take_events() { return std::exchange(events_, {}); }

Instant MemoryEndpoint::next_deadline() const {
  if (dirty_ || !events_.empty()) return now_;
  Instant next = Instant::never();
  const auto& inbox = road_.inboxes_.at(address_);
  if (!inbox.empty()) next = inbox.begin()->first;
  for (const auto& [peer, dial] : dials_) next = std::min(next, dial.gives_up);
  for (const Waiting& waiting : waiting_) next = std::min(next, waiting.gives_up);
  bool queued = false;
  for (const auto& [peer, link] : links_) {
    next = std::min({next, link.heard + limits_.idle_timeout, link.sent + limits_.keep_alive});
    queued = queued || (!link.queue.empty() && has_room(link));
  }
  return queued ? std::min(next, uplink_.ready_at()) : next;
}

void MemoryEndpoint::receive(Instant now) {
  auto& inbox = road_.inboxes_.at(address_);
  std::vector<Message> due;
  const auto end = inbox.upper_bound(now);
  for (auto at = inbox.begin(); at != end; ++at) due.push_back(std::move(at->second));
  inbox.erase(inbox.begin(), end);
  if (road_.options_.reorder) {
    std::vector<std::size_t> places;
    for (std::size_t i = 0; i < due.size(); ++i) {
      if (due[i].kind == Message::Kind::frame && due[i].priority != Priority::control) places.push_back(i);
    }
    for (std::size_t i = places.size(); i > 1; --i) std::swap(due[places[i - 1]], due[places[road_.prng_.below(i)]]);
  }
  for (const Message& message : due) take(message);
}

void MemoryEndpoint::take(const Message& message) {
  Link* link = find(message);
  if (link != nullptr) link->heard = now_;
  switch (message.kind) {
    case Message::Kind::dial: return take_dial(message, now_ + limits_.handshake_timeout);
    case Message::Kind::greeting: return take_greeting(message);
    case Message::Kind::close: return take_close(message);
    case Message::Kind::ping: return;
    case Message::Kind::wrong_key:
      return fail_attempt(message.expects, message.connection, DownReason::wrong_identity,
                          "peer " + message.from.short_hex() + " answered instead of " + message.expects.short_hex());
    case Message::Kind::taken:
      if (link != nullptr) {
        link->on_the_road_bytes -= message.bytes;
        link->stats.bytes_queued -= message.bytes;
      }
      return;
    case Message::Kind::frame: {
      if (link == nullptr) return;
      link->stats.bytes_received += message.frame->size();
      events_.push_back(FrameArrived{message.from, link->generation, message.priority, message.frame});
      Message taken;
      taken.kind = Message::Kind::taken;
      taken.connection = message.connection;
      taken.bytes = message.frame->size();
      post(message.from_address, std::move(taken));
      return;
    }
  }
}

void MemoryEndpoint::take_dial(const Message& message, Instant gives_up) {
  Message answer;
  answer.connection = message.connection;
  answer.expects = message.expects;
  if (message.expects != self_) {
    answer.kind = Message::Kind::wrong_key;
    return post(message.from_address, std::move(answer));
  }
  answer.kind = Message::Kind::close;
  const auto up = links_.find(message.from);
  const Standing here{self_, message.from, dials_.contains(message.from),
                      up == links_.end() ? std::nullopt : std::optional(up->second.theirs)};
  const Verdict verdict = judge(here, message.greeting);
  if (verdict == Verdict::refuse) {
    answer.text = "another link of these two peers is up";
    return post(message.from_address, std::move(answer));
  }
  if (verdict == Verdict::wait) {
    if (waiting_.size() < limits_.handshakes_max) waiting_.push_back({message, gives_up});
    return;
  }
  if (verdict == Verdict::accept && links_.size() >= limits_.links_max) {
    answer.text = "this peer has as many links as it may have";
    return post(message.from_address, std::move(answer));
  }
  if (verdict == Verdict::replace) go_down(message.from, DownReason::peer_restarted, "a new link of the same key took its place");
  give_up_dial(message.from);
  answer.kind = Message::Kind::greeting;
  answer.greeting = {start_, ++tick_};
  post(message.from_address, std::move(answer));
  come_up(message, false);
}

void MemoryEndpoint::take_greeting(const Message& message) {
  const auto dial = dials_.find(message.from);
  if (dial == dials_.end() || !dial->second.attempts.contains(message.connection)) {
    Message gone;
    gone.kind = Message::Kind::close;
    gone.connection = message.connection;
    gone.text = "this dial was given up";
    return post(message.from_address, std::move(gone));
  }
  dial->second.attempts.erase(message.connection);
  give_up_dial(message.from);
  come_up(message, true);
}

void MemoryEndpoint::take_close(const Message& message) {
  if (find(message) != nullptr) return go_down(message.from, DownReason::closed_by_peer, message.text);
  std::erase_if(waiting_, [&](const Waiting& w) { return w.dial.connection == message.connection; });
  fail_attempt(message.from, message.connection, DownReason::unreachable, "the peer refused: " + message.text);
}

void MemoryEndpoint::fail_attempt(const PeerId& peer, std::uint64_t connection, DownReason reason, const std::string& text) {
  const auto at = dials_.find(peer);
  if (at == dials_.end() || at->second.attempts.erase(connection) == 0) return;
  Dial& dial = at->second;
  if (dial.reason != DownReason::wrong_identity) {
    dial.reason = reason;
    dial.text = text;
  }
}

void MemoryEndpoint::judge_waiting() {
  for (Waiting& waiting : std::exchange(waiting_, {})) {
    if (waiting.gives_up > now_) take_dial(waiting.dial, waiting.gives_up);
  }
}

void MemoryEndpoint::run_timers() {
  for (auto at = dials_.begin(); at != dials_.end();) {
    const auto dial = at++;
    if (!dial->second.started) continue;
    if (!dial->second.attempts.empty() && dial->second.gives_up > now_) continue;
    events_.push_back(LinkDown{dial->first, {}, dial->second.reason, dial->second.text});
    dials_.erase(dial);
  }
  for (auto at = links_.begin(); at != links_.end();) {
    auto& [peer, link] = *at++;
    if (link.heard + limits_.idle_timeout <= now_) {
      go_down(peer, DownReason::idle, "nothing was heard for the idle time-out");
    } else if (link.sent + limits_.keep_alive <= now_) {
      link.sent = now_;
      Message ping;
      ping.connection = link.connection;
      post(link.address, std::move(ping));
    }
  }
}

bool MemoryEndpoint::has_room(const Link& link) const {
  return link.on_the_road_bytes == 0 || link.on_the_road_bytes < road_.options_.window_bytes;
}

bool MemoryEndpoint::urgent_waits() const {
  return std::any_of(links_.begin(), links_.end(), [&](const auto& entry) {
    const Link& link = entry.second;
    return !link.queue.empty() && link.queue.begin()->first.priority != Priority::bulk && has_room(link);
  });
}

void MemoryEndpoint::send_queued() {
  bool moved = true;
  while (moved) {
    moved = false;
    for (auto& [peer, link] : links_) {
      if (link.queue.empty() || !has_room(link) || !uplink_.may_send()) continue;
      auto next = link.queue.begin();
      const auto first_bulk = link.queue.lower_bound(SendOrder{Priority::bulk, Instant::from_ns(std::numeric_limits<std::int64_t>::min()), 0});
      const bool bulk_waits = first_bulk != link.queue.end();
      const bool contended = urgent_waits();
      if (contended && bulk_waits && floor_.bulk_is_due()) next = first_bulk;
      const bool bulk = next->first.priority == Priority::bulk;
      if (bulk && contended && !floor_.bulk_is_due()) continue;
      const std::uint64_t bytes = next->second->size();
      if (!bulk) floor_.urgent_sent(bytes);
      if (bulk && contended) floor_.bulk_sent(bytes);
      transmit(peer, link, next);
      moved = true;
    }
  }
}

void MemoryEndpoint::transmit(const PeerId& peer, Link& link, std::map<SendOrder, base::Payload>::iterator frame) {
  Message message;
  message.kind = Message::Kind::frame;
  message.connection = link.connection;
  message.expects = peer;
  message.priority = frame->first.priority;
  message.frame = std::move(frame->second);
  link.queue.erase(frame);
  const std::uint64_t bytes = message.frame->size();
  link.on_the_road_bytes += bytes;
  link.stats.bytes_sent += bytes;
  link.stats.packets_sent += 1;
  link.sent = now_;
  uplink_.sent(bytes);
  post(link.address, std::move(message));
}

void MemoryEndpoint::come_up(const Message& message, bool dialled) {
  Link& link = links_[message.from];
  link.connection = message.connection;
  link.address = message.from_address;
  link.generation = LinkGeneration(++generations_);
  link.theirs = message.greeting;
  link.heard = link.sent = now_;
  events_.push_back(LinkUp{message.from, link.generation, link.address, dialled});
}

void MemoryEndpoint::go_down(const PeerId& peer, DownReason reason, const std::string& text) {
  const auto at = links_.find(peer);
  events_.push_back(LinkDown{peer, at->second.generation, reason, text});
  links_.erase(at);
}

void MemoryEndpoint::give_up_dial(const PeerId& peer) {
  const auto at = dials_.find(peer);
  if (at == dials_.end()) return;
  for (const auto& [connection, address] : at->second.attempts) {
    Message gone;
    gone.kind = Message::Kind::close;
    gone.connection = connection;
    gone.text = "this dial was given up";
    post(address, std::move(gone));
  }
  dials_.erase(at);
}

void MemoryEndpoint::post(const Address& to, Message message) {
  message.from = self_;
  message.from_address = address_;
  road_.post(to, now_, std::move(message));
}

MemoryEndpoint::Link* MemoryEndpoint::find(const Message& message) {
  const auto at = links_.find(message.from);
  return at != links_.end() && at->second.connection == message.connection ? &at->second : nullptr;
}

}  // namespace stagecoach::link
