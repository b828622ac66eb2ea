#include "world/real/loopback.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "digest/digest.h"

namespace stagecoach::world::real {
namespace {

constexpr std::size_t kHeadersBytesMax = 48;  // IPv6 and UDP

std::string first_word(const char* path) {
  std::ifstream file(path);
  std::string word;
  file >> word;
  return word;
}

}  // namespace

std::uint64_t loopback_id() {
  const std::string start = first_word("/proc/sys/kernel/random/boot_id");
  const std::string largest = first_word("/sys/class/net/lo/mtu");
  std::error_code failed;
  const std::string network = std::filesystem::read_symlink("/proc/self/ns/net", failed).string();  // "net:[4026531833]"
  if (start.empty() || failed || std::strtoull(largest.c_str(), nullptr, 10) < kHomeDatagramBytes + kHeadersBytesMax) return 0;
  const base::Sha256 name = digest::sha256("stagecoach loopback " + start + " " + network);
  std::uint64_t id = 0;
  std::memcpy(&id, name.bytes.data(), sizeof id);
  return id;
}

}  // namespace stagecoach::world::real
