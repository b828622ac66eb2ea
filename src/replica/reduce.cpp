#include "replica/reduce.h"

#include <algorithm>

#include "base/check.h"

namespace stagecoach::replica {

using base::Payload;
using base::PeerId;
using base::ShardIndex;

std::uint64_t shard_count(std::int64_t bytes, std::uint64_t members, std::int64_t shard_bytes_max) {
  if (bytes <= 0 || members == 0) return 0;
  const std::int64_t per_member = (bytes + static_cast<std::int64_t>(members) - 1) / static_cast<std::int64_t>(members);
  const std::int64_t needed = (per_member + shard_bytes_max - 1) / shard_bytes_max;
  const std::int64_t overlapping = std::min(kRoundsMin, per_member / kShardBytesMin);
  return members * static_cast<std::uint64_t>(std::max<std::int64_t>({needed, overlapping, 1}));
}

Slice slice_of(std::int64_t elements, std::uint64_t shards, ShardIndex shard) {
  // Difference of rounded-down ends: slices differ by at most one element and cover everything.
  const auto end = [&](std::uint64_t k) {
    return static_cast<std::int64_t>(static_cast<unsigned __int128>(elements) * k / shards);
  };
  return Slice{end(shard.value()), end(shard.value() + 1)};
}

Reduce::Reduce(Options options) : options_(std::move(options)) {
  CHECK(is_member(options_.self), "only a member of the view reduces in it");
  shards_ = shard_count(options_.elements * options_.element_bytes, options_.members.size(), options_.shard_bytes_max);
}

const PeerId& Reduce::owner(ShardIndex shard) const { return options_.members[shard.value() % options_.members.size()]; }

bool Reduce::is_member(const PeerId& peer) const {
  return std::find(options_.members.begin(), options_.members.end(), peer) != options_.members.end();
}

Actions Reduce::bits_from(const PeerId& member, const Bitmap& bits) {
  if (!is_member(member)) return {};
  auto [it, fresh] = bitmaps_.try_emplace(member, Bitmap(options_.bits));
  it->second.merge(bits);
  for (const auto& [other, theirs] : bitmaps_) {
    if (other != member && theirs.overlaps(it->second))
      return {Broken{"a microbatch was accumulated twice, by " + other.short_hex() + " and " + member.short_hex()}};
  }
  if (started_ || bitmaps_.size() < options_.members.size()) return {};
  std::uint64_t count = 0;
  for (const auto& [peer, theirs] : bitmaps_) count += theirs.count();
  if (count > options_.required) return {Broken{"the group's bitmaps hold more microbatches than the step has"}};
  return count == options_.required ? start() : Actions{};
}

Actions Reduce::start() {
  started_ = true;
  Actions out;
  if (shards_ == 0 || alone()) {
    whole_ = true;
    out.push_back(Whole{});
    return out;
  }
  // Other members' shards first: their owners wait for them, ours we add ourselves.
  for (int ours = 0; ours < 2; ++ours) {
    for (std::uint64_t k = 0; k < shards_; ++k) {
      const ShardIndex shard(k);
      if ((owner(shard) == options_.self) == (ours == 1)) out.push_back(ReadShard{shard, slice(shard)});
    }
  }
  return out;
}

Actions Reduce::shard_read(ShardIndex shard, Payload sums) {
  Actions out;
  if (owner(shard) == options_.self) contribute(options_.self, shard, std::move(sums), out);
  else out.push_back(SendPart{owner(shard), shard, std::move(sums)});
  return out;
}

Actions Reduce::part_from(const PeerId& member, ShardIndex shard, Payload sums) {
  Actions out;
  if (!is_member(member) || shard.value() >= shards_ || owner(shard) != options_.self) {
    out.push_back(Broken{"a contribution for shard " + std::to_string(shard.value()) + " came to the wrong worker"});
    return out;
  }
  contribute(member, shard, std::move(sums), out);
  return out;
}

void Reduce::contribute(const PeerId& member, ShardIndex shard, Payload sums, Actions& out) {
  const Slice range = slice(shard);
  if (!sums || sums->size() != static_cast<std::size_t>((range.last - range.first) * options_.element_bytes)) {
    out.push_back(Broken{"a contribution for shard " + std::to_string(shard.value()) + " has the wrong length"});
    return;
  }
  auto& parts = parts_[shard];
  if (!parts.emplace(member, std::move(sums)).second) return;  // a repeat
  if (parts.size() < options_.members.size()) return;
  AddParts add{shard, {}};
  for (const PeerId& peer : options_.members) add.parts.push_back(parts.at(peer));
  out.push_back(std::move(add));
}

Actions Reduce::parts_added(ShardIndex shard, Payload sums) {
  Actions out;
  for (const PeerId& peer : options_.members)
    if (peer != options_.self) out.push_back(SendSum{peer, shard, sums});
  keep_sum(shard, std::move(sums), out);
  return out;
}

Actions Reduce::sum_from(const PeerId& member, ShardIndex shard, Payload sums) {
  Actions out;
  const Slice range = shard.value() < shards_ ? slice(shard) : Slice{};
  if (shard.value() >= shards_ || owner(shard) != member || member == options_.self || !sums ||
      sums->size() != static_cast<std::size_t>((range.last - range.first) * options_.element_bytes)) {
    out.push_back(Broken{"a sum of shard " + std::to_string(shard.value()) + " came from the wrong worker or in the wrong length"});
    return out;
  }
  keep_sum(shard, std::move(sums), out);
  return out;
}

void Reduce::keep_sum(ShardIndex shard, Payload sums, Actions& out) {
  const auto [it, fresh] = sums_.emplace(shard, sums);
  if (!fresh) {
    if (!base::same_bytes(it->second, sums))
      out.push_back(Broken{"two different sums of shard " + std::to_string(shard.value())});
    return;
  }
  if (sums_.size() < shards_) return;
  whole_ = true;
  out.push_back(Whole{});
}

std::uint64_t Reduce::taken() const {
  std::uint64_t out = sums_.size();
  for (const auto& [shard, parts] : parts_) out += parts.size();
  return out;
}

std::string Reduce::waiting_for() const {
  if (whole_) return "";
  std::uint64_t have = 0;
  std::string missing;
  for (const PeerId& peer : options_.members) {
    const auto it = bitmaps_.find(peer);
    if (it == bitmaps_.end()) missing += (missing.empty() ? "" : ", ") + peer.short_hex();
    else have += it->second.count();
  }
  if (!missing.empty()) return "bitmaps of " + missing;
  if (!started_) return std::to_string(options_.required - have) + " microbatches of the group";
  return std::to_string(shards_ - sums_.size()) + " shards of the reduce";
}

}  // namespace stagecoach::replica
