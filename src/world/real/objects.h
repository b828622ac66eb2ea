// Objects: files known by their SHA-256, given out by the coordinator and fetched by joiners.
//
// In:      ObjectRefs of an assignment, requests and chunks. Out: local files whose hashes were checked.
// Thread:  ObjectServer: disk. ObjectFetcher: loop, with its writes on the disk thread.
// Why:     a worker needs nothing but the link to join: state and token shards come over the same road as everything else, and a
//          file that is here already, whoever brought it, is never fetched twice.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "wire/messages.h"
#include "world/real/work_thread.h"

namespace stagecoach::world::real {

/// Reads slices of the files that it was told of, and of no others.
class ObjectServer {
 public:
  /// Hashes the file and offers it under `name`.
  ///
  /// errors: those of reading the file
  base::Result<wire::ObjectRef> offer(const std::filesystem::path& path, const std::string& name);
  /// The slice asked for, cut to 1 MiB; no bytes where the file is unknown or cannot be read.
  wire::ObjectChunk read(const wire::ObjectRequest& request) const;

 private:
  std::map<base::Sha256, std::filesystem::path> files_;
};

/// Gives fetched objects their names in a folder of the cache, by links where the file system has them and by copies elsewhere.
/// Files of those names that are there already are replaced: they may be other bytes than those that were checked.
///
/// errors: corrupt  a name is no plain file name · io_error and the others of base::file_error
/// thread: any; waits for the disk
base::Result<std::filesystem::path> lay_out_objects(const std::filesystem::path& cache, const std::vector<wire::ObjectRef>& objects);

/// Fetches a list of objects into a cache folder, a bounded number of slices at a time.
class ObjectFetcher {
 public:
  struct Options {
    std::filesystem::path cache;  // files lie in it under their hash
    WorkThread* disk = nullptr;
    std::function<void(wire::ObjectRequest)> request;                     // sends to the coordinator
    std::function<void(std::function<void()>)> on_loop;                   // runs a closure on the loop thread
    std::function<void(base::Result<void>)> done;                         // once, on the loop thread
  };
  explicit ObjectFetcher(Options options);

  void start(std::vector<wire::ObjectRef> objects);
  /// A chunk arrived.
  void on_chunk(wire::ObjectChunk& chunk);
  /// The link to the coordinator is new: what was asked for and did not come is asked for again.
  void on_new_link();
  std::filesystem::path path_of(const wire::ObjectRef& object) const { return options_.cache / object.sha256.hex(); }
  bool busy() const { return busy_; }

 private:
  void next_object();
  void pump();
  void finish_object();
  void end(base::Result<void> result);
  std::filesystem::path partial() const;

  Options options_;
  std::string suffix_;                              // of this fetcher's unfinished files
  std::deque<wire::ObjectRef> queue_;
  bool busy_ = false;
  std::uint64_t asked_ = 0;                         // bytes of the object in hand that were asked for
  std::uint64_t written_ = 0;
  std::map<std::uint64_t, std::uint32_t> waiting_;  // offset → length of slices under way
};

}  // namespace stagecoach::world::real
