// link_peer: one end of a link for bench/link.
//
// In:      listen HOST:PORT: waits for one peer, answers its messages, and ends with the link.
//          dial HOST:PORT seconds=N [bulk=yes] [messages=yes] [gap_ms=N] [message_bytes=N]: sends for so long. `bulk` keeps frames of the
//          lowest priority queued; `messages` sends one boundary message after the other, each when the one before is answered and
//          gap_ms have passed.
//          Either end also takes seed=N: the key. A dialler takes peer_seed=N, the key of the other end.
// Out:     one line of JSON. A listener's: bytes of whole frames by tenths of a second. A dialler's: the time from each message's send()
//          to the answer of the other end's application, packets sent and lost, the round trip.
// Thread:  the loop's.
// Why:     it is the endpoint and the loop of the program itself, without brains and devices, so that what is measured is the road.
#include <array>
#include <charconv>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "link/identity.h"
#include "world/real/loop.h"
#include "world/real/quic_endpoint.h"

namespace stagecoach::bench {
namespace {

using base::Duration;
using base::Error;
using base::ErrorCode;
using base::Instant;
using base::Result;
using link::Priority;
using world::real::monotonic_now;

constexpr const char* kUsage =
    "usage: link_peer listen HOST:PORT [seed=N]\n"
    "       link_peer dial HOST:PORT seconds=N [bulk=yes] [messages=yes] [gap_ms=N] [message_bytes=N] [seed=N] [peer_seed=N]";
constexpr std::size_t kBulkFrameBytes = 1u << 20;
constexpr std::size_t kBulkQueuedBytes = 96u << 20;  // more than a window, so that the link is never short of it
constexpr Duration kSample = Duration::milliseconds(100);
constexpr Duration kLook = Duration::milliseconds(2);  // how often the queue of bulk is filled up

struct Options {
  bool dial = false;
  link::Address address;
  std::uint64_t seed = 1;
  std::uint64_t peer_seed = 2;
  std::uint64_t seconds = 0;
  std::uint64_t gap_ms = 100;
  std::uint64_t message_bytes = 2'304'000;  // 8,000 tokens of 144 numbers in bf16: Orion-100B's boundary
  bool bulk = false;
  bool messages = false;
};

Result<Options> parse(int count, char** words) {
  const Error usage{ErrorCode::invalid_argument, kUsage};
  if (count < 3) return usage;
  Options options;
  options.dial = std::string(words[1]) == "dial";
  if (!options.dial && std::string(words[1]) != "listen") return usage;
  const std::string where = words[2];
  const auto colon = where.rfind(':');
  if (colon == std::string::npos) return usage;
  options.address.host = where.substr(0, colon);
  std::map<std::string, std::uint64_t*> numbers{{"seed", &options.seed},       {"peer_seed", &options.peer_seed}, {"seconds", &options.seconds},
                                                {"gap_ms", &options.gap_ms},   {"message_bytes", &options.message_bytes}};
  const auto number = [](const std::string& text, auto& into) {
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), into);
    return status == std::errc() && end == text.data() + text.size();
  };
  if (!number(where.substr(colon + 1), options.address.port)) return usage;
  for (int i = 3; i < count; ++i) {
    const std::string word = words[i];
    const auto sign = word.find('=');
    const std::string key = word.substr(0, sign);
    const std::string value = sign == std::string::npos ? "" : word.substr(sign + 1);
    const auto known = numbers.find(key);
    if (key == "bulk" || key == "messages") {
      (key == "bulk" ? options.bulk : options.messages) = value == "yes";
    } else if (known == numbers.end() || !number(value, *known->second)) {
      return usage;
    }
  }
  if (options.message_bytes < 8 || options.message_bytes > link::kFrameBytesMax || (options.dial && options.seconds == 0)) return usage;
  return options;
}

link::Identity identity_of(std::uint64_t number) {
  std::array<std::uint8_t, 32> seed{};
  for (std::size_t i = 0; i < 8; ++i) seed[i] = static_cast<std::uint8_t>(number >> (8 * i));
  auto identity = link::Identity::from_seed(seed);
  CHECK(identity.ok(), "any 32 bytes are an Ed25519 seed");
  return std::move(identity).value();
}

base::Payload numbered_frame(std::uint64_t number, std::size_t bytes) {
  base::ByteWriter writer;
  writer.u64(number);
  base::Bytes frame = writer.take();
  frame.resize(bytes);
  return base::make_payload(std::move(frame));
}

class Peer {
 public:
  Peer(const Options& options, world::real::QuicEndpoint& endpoint)
      : options_(options), endpoint_(endpoint), bulk_(numbered_frame(0, kBulkFrameBytes)) {}

  void on_link(link::Event& event) {
    if (const auto* up = std::get_if<link::LinkUp>(&event)) on_up(*up);
    if (auto* frame = std::get_if<link::FrameArrived>(&event)) on_frame(*frame);
    if (const auto* down = std::get_if<link::LinkDown>(&event)) on_down(*down);
  }

  void on_time() {
    const Instant now = monotonic_now();
    if (options_.dial && up_) {
      stats_ = endpoint_.stats(peer_).value_or(stats_);
      if (now >= ends_) {
        endpoint_.close(peer_, "measured");
        return;
      }
      fill_bulk();
      if (options_.messages && !waiting_ && now >= next_message_) send_message(now);
    }
    while (!options_.dial && up_ && now >= next_sample_) {
      samples_.push_back(received_);
      next_sample_ = next_sample_ + kSample;
    }
    next_look_ = now + kLook;
  }

  Instant next_deadline() const { return up_ ? next_look_ : Instant::never(); }
  bool done() const { return done_; }
  const std::string& failure() const { return failure_; }
  void report() const {
    if (!options_.dial) {
      std::printf("{\"sample_ms\": %lld, \"bytes\": [", static_cast<long long>(kSample.ns() / 1'000'000));
      for (std::size_t i = 0; i < samples_.size(); ++i) std::printf("%s%llu", i == 0 ? "" : ", ", static_cast<unsigned long long>(samples_[i]));
      std::printf("]}\n");
      return;
    }
    std::printf("{\"packets_sent\": %llu, \"packets_lost\": %llu, \"round_trip_ms\": %.3f, \"message_ms\": [",
                static_cast<unsigned long long>(stats_.packets_sent), static_cast<unsigned long long>(stats_.packets_lost),
                stats_.round_trip.seconds_f64() * 1e3);
    for (std::size_t i = 0; i < latencies_.size(); ++i) std::printf("%s%.3f", i == 0 ? "" : ", ", latencies_[i].seconds_f64() * 1e3);
    std::printf("]}\n");
  }

 private:
  void on_up(const link::LinkUp& up) {
    up_ = true;
    peer_ = up.peer;
    next_look_ = monotonic_now();
    next_message_ = next_look_;
    next_sample_ = next_look_ + kSample;
    ends_ = next_look_ + Duration::seconds(static_cast<std::int64_t>(options_.seconds));
  }

  void on_frame(link::FrameArrived& arrived) {
    received_ += arrived.frame->size();
    base::ByteReader reader(*arrived.frame);
    const std::uint64_t number = reader.u64();
    if (arrived.priority == Priority::forward) {
      // The link may be down already: then nobody waits for the answer.
      (void)endpoint_.send(peer_, numbered_frame(number, 8), {Priority::control});
    }
    if (arrived.priority == Priority::control && waiting_ && number == messages_) {
      const Instant now = monotonic_now();
      waiting_ = false;
      latencies_.push_back(now - sent_at_);
      next_message_ = now + Duration::milliseconds(static_cast<std::int64_t>(options_.gap_ms));
      next_look_ = std::min(next_look_, next_message_);
    }
  }

  void on_down(const link::LinkDown& down) {
    done_ = true;
    const bool agreed = down.reason == link::DownReason::closed_by_us || down.reason == link::DownReason::closed_by_peer;
    if (!agreed || !up_) failure_ = "the link is down: " + to_string(down.reason) + ": " + down.text;
    up_ = false;
  }

  void fill_bulk() {
    if (!options_.bulk) return;
    for (std::uint64_t queued = stats_.bytes_queued; queued < kBulkQueuedBytes; queued += kBulkFrameBytes) {
      if (!endpoint_.send(peer_, bulk_, {Priority::bulk}).ok()) return;
    }
  }

  void send_message(Instant now) {
    base::Payload frame = numbered_frame(++messages_, options_.message_bytes);
    sent_at_ = now;
    waiting_ = true;
    const auto sent = endpoint_.send(peer_, std::move(frame), {Priority::forward});
    if (!sent.ok()) failure_ = sent.error().message;
  }

  const Options& options_;
  world::real::QuicEndpoint& endpoint_;
  const base::Payload bulk_;
  base::PeerId peer_;
  bool up_ = false;
  bool done_ = false;
  std::string failure_;
  Instant next_look_;
  Instant ends_;
  Instant next_message_;
  Instant sent_at_;
  bool waiting_ = false;
  std::uint64_t messages_ = 0;
  std::vector<Duration> latencies_;
  link::LinkStats stats_;
  Instant next_sample_;
  std::uint64_t received_ = 0;
  std::vector<std::uint64_t> samples_;
};

Result<void> run(const Options& options) {
  world::real::QuicEndpoint::Options how;
  how.bind = options.dial ? link::Address{"0.0.0.0", 0} : options.address;
  auto endpoint = world::real::QuicEndpoint::open(identity_of(options.seed), std::move(how));
  if (!endpoint.ok()) return endpoint.error();
  Peer peer(options, **endpoint);
  const world::real::Wakeup wakeup;
  world::real::Loop loop(**endpoint, (*endpoint)->fd(), wakeup,
                         {[&](link::Event& event) { peer.on_link(event); }, [] {}, [&] { peer.on_time(); },
                          [&] { return peer.next_deadline(); }, [&] { return peer.done(); }});
  if (options.dial) {
    (*endpoint)->dial(identity_of(options.peer_seed).peer_id(), std::span(&options.address, 1));
  } else {
    std::printf("listening on %u\n", (*endpoint)->local_address().port);
    std::fflush(stdout);
  }
  loop.run();
  loop.say_goodbye("measured", Duration::milliseconds(200));
  if (!peer.failure().empty()) return Error{ErrorCode::unavailable, peer.failure()};
  peer.report();
  return {};
}

int start(int count, char** words) {
  const auto options = parse(count, words);
  const auto done = options.ok() ? run(options.value()) : Result<void>(options.error());
  if (done.ok()) return 0;
  std::fprintf(stderr, "link_peer: %s\n", done.error().message.c_str());
  return 1;
}

}  // namespace
}  // namespace stagecoach::bench

int main(int count, char** words) { return stagecoach::bench::start(count, words); }
