// Reads every byte of a folder of shards and compares it with what its manifest says.
//
// In:      a folder. Out: everything that is wrong with it.
// Thread:  any; waits for the disk, at the speed of hashing.
// Why:     whoever got shards from elsewhere, or has a disk to doubt, wants all problems and not the first.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/shard_manifest.h"

namespace stagecoach::data {

struct ShardCheck {
  ShardManifest manifest;
  std::vector<std::string> problems;  // each a sentence that names a file
  std::uint64_t bytes = 0;            // that were read
};

/// Checks lengths, headers, hashes, ids, document positions, the mark at each document's end, and the tokenizer's file.
///
/// errors: not_found  no shards there · corrupt, mismatch  the manifest itself cannot be used · io_error
base::Result<ShardCheck> check_shards(const std::filesystem::path& directory,
                                      const std::function<void(std::size_t shard, std::size_t shards)>& progress = {});

/// manifest.json of `directory`.
///
/// errors: as check_shards
base::Result<ShardManifest> read_shard_manifest(const std::filesystem::path& directory);

}  // namespace stagecoach::data
