// lab_probe: sends numbered datagrams from one network namespace to another and says what became of them.
//
// In:      two namespaces, the receiver's address, how many datagrams of which size at which rate, how many a system call.
// Out:     one line of JSON: sent, received, twice, overtaken, runs of losses, delays in microseconds, the rate at which they arrived.
// Threads: one sends, one receives; both read one clock, so that a one-way delay needs no synchronisation.
// Why:     the emulator's promises are about single packets, which no stream of TCP shows.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"

namespace stagecoach::lab {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr const char* kUsage =
    "usage: lab_probe from=NETNS to=NETNS address=A.B.C.D packets=N bytes=SIZE rate=BITS_PER_S [batch=N]\n"
    "SIZE is a datagram's payload, 24 to 1472; rate counts IP packets; batch is the datagrams a system call (UDP_SEGMENT)";
constexpr std::size_t kHeaderBytes = 28;  // IPv4 and UDP
constexpr int kQuietAtEndMs = 1500;       // longer than any delay that a self-test asks for
constexpr int kSocketBufferBytes = 8 << 20;

struct Stamp {
  std::uint64_t number;
  std::int64_t sent_ns;
};

struct Options {
  std::string from;
  std::string to;
  in_addr address{};
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
  std::uint64_t bits_per_s = 0;
  std::uint64_t batch = 1;
};

struct Arrival {
  std::uint64_t number;
  std::int64_t delay_ns;
  std::int64_t at_ns;
};

std::int64_t now_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1'000'000'000ll + t.tv_nsec;
}

Error system_error(const std::string& doing) { return Error{ErrorCode::io_error, doing + ": " + std::strerror(errno)}; }

Result<Options> parse(int count, char** words) {
  Options options;
  std::map<std::string, std::uint64_t*> numbers{
      {"packets", &options.packets}, {"bytes", &options.bytes}, {"rate", &options.bits_per_s}, {"batch", &options.batch}};
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    const auto sign = word.find('=');
    const std::string key = word.substr(0, sign);
    const std::string value = sign == std::string::npos ? "" : word.substr(sign + 1);
    const auto number = numbers.find(key);
    bool good = false;
    if (number != numbers.end()) {
      const auto [end, status] = std::from_chars(value.data(), value.data() + value.size(), *number->second);
      good = status == std::errc() && end == value.data() + value.size();
    } else if (key == "from" || key == "to") {
      (key == "from" ? options.from : options.to) = value;
      good = !value.empty();
    } else if (key == "address") {
      good = ::inet_pton(AF_INET, value.c_str(), &options.address) == 1;
    }
    if (!good) return Error{ErrorCode::invalid_argument, "\"" + word + "\" is not understood\n" + kUsage};
  }
  const bool sized = options.bytes >= 24 && options.bytes <= 1472 && options.batch >= 1 && options.batch * options.bytes <= 65'000;
  if (options.from.empty() || options.to.empty() || options.packets == 0 || options.bits_per_s == 0 || !sized || options.batch > 64) {
    return Error{ErrorCode::invalid_argument, kUsage};
  }
  return options;
}

/// A UDP socket of the namespace at `path`.
Result<int> socket_in(const std::string& path) {
  const int home = ::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  const int away = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (home < 0 || away < 0 || ::setns(away, CLONE_NEWNET) != 0) return system_error("entering " + path + " (this needs root)");
  const int made = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const bool back = ::setns(home, CLONE_NEWNET) == 0;
  ::close(home);
  ::close(away);
  if (made < 0 || !back) return system_error("a socket in " + path);
  ::setsockopt(made, SOL_SOCKET, SO_RCVBUFFORCE, &kSocketBufferBytes, sizeof kSocketBufferBytes);
  ::setsockopt(made, SOL_SOCKET, SO_SNDBUFFORCE, &kSocketBufferBytes, sizeof kSocketBufferBytes);
  return made;
}

void send_all(int socket, const Options& options) {
  ::prctl(PR_SET_TIMERSLACK, 1);
  std::vector<std::byte> batch(options.bytes * options.batch);
  const int segment = static_cast<int>(options.bytes);
  if (options.batch > 1) ::setsockopt(socket, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment);
  const double step_ns = static_cast<double>((options.bytes + kHeaderBytes) * 8) * 1e9 / static_cast<double>(options.bits_per_s);
  const std::int64_t begin = now_ns();
  for (std::uint64_t number = 0; number < options.packets;) {
    const std::int64_t due = begin + static_cast<std::int64_t>(step_ns * static_cast<double>(number));
    const timespec wake{due / 1'000'000'000, due % 1'000'000'000};
    ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, nullptr);
    const std::uint64_t count = std::min(options.batch, options.packets - number);
    for (std::uint64_t i = 0; i < count; ++i) {
      const Stamp stamp{number + i, now_ns()};
      std::memcpy(batch.data() + i * options.bytes, &stamp, sizeof stamp);
    }
    number += count;
    while (::send(socket, batch.data(), count * options.bytes, 0) < 0 && (errno == EINTR || errno == ENOBUFS)) {
    }
  }
}

/// What arrives until nothing has for a while after `sent_all`.
std::vector<Arrival> receive_all(int socket, const std::atomic<bool>& sent_all) {
  std::vector<Arrival> arrivals;
  std::vector<std::byte> room(1u << 16);
  const timeval patience{0, kQuietAtEndMs * 1000 / 2};
  ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  const int join = 1;
  ::setsockopt(socket, IPPROTO_UDP, UDP_GRO, &join, sizeof join);
  for (int quiet = 0; quiet < 2;) {
    iovec piece{room.data(), room.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(socket, &message, 0);
    if (got <= 0) {
      quiet = sent_all ? quiet + 1 : 0;
      continue;
    }
    const std::int64_t at = now_ns();
    std::size_t size = static_cast<std::size_t>(got);
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
      int joined = 0;
      if (header->cmsg_level == IPPROTO_UDP && header->cmsg_type == UDP_GRO) {
        std::memcpy(&joined, CMSG_DATA(header), sizeof joined);
        size = static_cast<std::size_t>(joined);
      }
    }
    for (std::size_t begin = 0; begin + sizeof(Stamp) <= static_cast<std::size_t>(got); begin += size) {
      Stamp stamp{};
      std::memcpy(&stamp, room.data() + begin, sizeof stamp);
      arrivals.push_back({stamp.number, at - stamp.sent_ns, at});
    }
  }
  return arrivals;
}

double percentile_us(const std::vector<std::int64_t>& sorted, double share) {
  if (sorted.empty()) return 0;
  return static_cast<double>(sorted[static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1))]) * 1e-3;
}

/// The rate while datagrams arrived, without the first of them: it only starts the clock.
double arrival_bits_per_s(const std::vector<Arrival>& arrivals, std::size_t bytes) {
  if (arrivals.empty() || arrivals.back().at_ns == arrivals.front().at_ns) return 0;
  const auto later = std::count_if(arrivals.begin(), arrivals.end(), [&](const Arrival& a) { return a.at_ns > arrivals.front().at_ns; });
  return static_cast<double>(later) * static_cast<double>(bytes + kHeaderBytes) * 8e9 / static_cast<double>(arrivals.back().at_ns - arrivals.front().at_ns);
}

void report(const Options& options, const std::vector<Arrival>& arrivals) {
  std::vector<char> seen(options.packets, 0);
  std::uint64_t twice = 0;
  std::uint64_t overtaken = 0;
  std::uint64_t highest = 0;
  std::vector<std::int64_t> delays;
  for (const Arrival& arrival : arrivals) {
    if (arrival.number >= options.packets) continue;
    if (seen[arrival.number]) {
      ++twice;
      continue;
    }
    seen[arrival.number] = 1;
    if (arrival.number < highest) ++overtaken;
    highest = std::max(highest, arrival.number);
    delays.push_back(arrival.delay_ns);
  }
  std::uint64_t runs = 0;
  for (std::size_t i = 0; i < seen.size(); ++i) runs += !seen[i] && (i == 0 || seen[i - 1]) ? 1 : 0;
  std::sort(delays.begin(), delays.end());
  std::printf("{\"sent\": %llu, \"received\": %zu, \"twice\": %llu, \"overtaken\": %llu, \"loss_runs\": %llu, \"delay_us\": {\"p1\": %.1f, "
              "\"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f}, \"bits_per_s\": %.0f}\n",
              static_cast<unsigned long long>(options.packets), delays.size(), static_cast<unsigned long long>(twice),
              static_cast<unsigned long long>(overtaken), static_cast<unsigned long long>(runs), percentile_us(delays, 0.01),
              percentile_us(delays, 0.5), percentile_us(delays, 0.99), percentile_us(delays, 1), arrival_bits_per_s(arrivals, options.bytes));
}

Result<void> run(const Options& options) {
  const auto receiver = socket_in(options.to);
  if (!receiver.ok()) return receiver.error();
  const auto sender = socket_in(options.from);
  if (!sender.ok()) return sender.error();
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr = options.address;
  if (::bind(receiver.value(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) return system_error("listening in " + options.to);
  socklen_t size = sizeof to;
  if (::getsockname(receiver.value(), reinterpret_cast<sockaddr*>(&to), &size) != 0 ||
      ::connect(sender.value(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
    return system_error("reaching " + options.to);
  }
  std::atomic<bool> sent_all = false;
  std::vector<Arrival> arrivals;
  sched_param lowest{};
  lowest.sched_priority = 1;
  // Refused where the kernel shares real time otherwise: then a busy machine shows in the delays.
  ::sched_setscheduler(0, SCHED_RR, &lowest);
  std::thread receiving([&] { arrivals = receive_all(receiver.value(), sent_all); });
  send_all(sender.value(), options);
  sent_all = true;
  receiving.join();
  report(options, arrivals);
  return {};
}

int start(int count, char** words) {
  const auto options = parse(count, words);
  const auto done = options.ok() ? run(options.value()) : Result<void>(options.error());
  if (done.ok()) return 0;
  std::fprintf(stderr, "lab_probe: %s\n", done.error().message.c_str());
  return 1;
}

}  // namespace
}  // namespace stagecoach::lab

int main(int count, char** words) { return stagecoach::lab::start(count, words); }
