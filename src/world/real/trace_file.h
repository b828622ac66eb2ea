// TraceFile: what a worker did, written down for the accounts (docs/formats/trace.md).
//
// In:      its brain after each turn, requests, their times, messages. Out: a file of lines.
// Thread:  loop.
// Why:     the account of a run needs every worker's times on one clock; a process on another machine has another one, so that a trace
//          is asked for where that is known to be one, and is no part of every run.
#pragma once

#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "base/result.h"
#include "worker/tracer.h"

namespace stagecoach::world::real {

class TraceFile {
 public:
  /// Begins the file anew; its first line names the worker.
  ///
  /// errors: io_error
  static base::Result<TraceFile> create(const std::filesystem::path& path, const base::PeerId& self);

  void arrived(const wire::Message& message, base::Instant now);
  void given(const worker::Brain& brain, base::OpId op, const worker::ComputeRequest& request);
  void done(base::OpId op, base::Instant began, base::Instant ended);
  void stepped(const worker::Brain& brain, base::StageIndex stage, base::Instant now);
  void flush() { std::fflush(file_.get()); }

 private:
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  explicit TraceFile(std::FILE* file);
  void write(base::Instant at, observe::TraceEvent event);

  std::unique_ptr<std::FILE, Closer> file_;
  base::Duration since_1970_;  // what the monotonic clock lacks
  worker::Tracer tracer_;
  std::map<base::OpId, observe::trace::Worked> given_;
};

}  // namespace stagecoach::world::real
