// See kept_forwards.h.
#include "compute/kept_forwards.h"

#include <set>
#include <utility>

#include "base/files.h"
#include "compute/device.h"

namespace stagecoach::compute {
namespace {

std::int64_t storage_bytes(const std::vector<LayerKept>& layers) {
  std::set<const void*> seen;
  std::int64_t bytes = 0;
  for (const LayerKept& one : layers) {
    for (const at::Tensor& tensor : one.tensors()) {
      if (seen.insert(tensor.storage().data()).second) bytes += static_cast<std::int64_t>(tensor.storage().nbytes());
    }
  }
  return bytes;
}

bool same(const base::Payload& a, const base::Payload& b) { return a == b || (a && b && *a == *b); }

}  // namespace

void KeptForwards::put(const MicrobatchName& name, KeptForward forward) {
  if (const auto found = entries_.find(name); found != entries_.end()) erase(found);
  last_bytes_ = storage_bytes(forward.layers);
  if (!has_room()) return;
  bytes_ += last_bytes_;
  entries_.emplace(name, Entry{std::move(forward), last_bytes_});
}

std::optional<KeptForward> KeptForwards::take(const MicrobatchName& name, base::WeightVersion version, const StageInput& input) {
  const auto found = entries_.find(name);
  if (found == entries_.end()) return std::nullopt;
  KeptForward forward = std::move(found->second.forward);
  erase(found);
  if (forward.version != version || !same(forward.input.tokens, input.tokens) || !same(forward.input.boundary, input.boundary)) {
    return std::nullopt;
  }
  return forward;
}

KeptForwards::Entries::iterator KeptForwards::erase(Entries::iterator entry) {
  bytes_ -= entry->second.bytes;
  return entries_.erase(entry);
}

void KeptForwards::drop_attempts_before(base::Attempt attempt) {
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    entry = entry->first.attempt < attempt ? erase(entry) : std::next(entry);
  }
}

void KeptForwards::drop_steps_to(base::Step step, base::WeightVersion oldest) {
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    entry = entry->first.step <= step || entry->second.forward.version < oldest ? erase(entry) : std::next(entry);
  }
}

void KeptForwards::clear() {
  entries_.clear();
  bytes_ = 0;
}

std::int64_t default_kept_bytes(const at::Device& device) {
  return (device.is_cpu() ? base::free_memory_bytes() : free_device_bytes(device)) / 2;
}

}  // namespace stagecoach::compute
