// Log: one process's lines in the run's folder, for people.
//
// In:      sentences. Out: a file with the time before each.
// Thread:  any.
// Why:     a run has many processes; what each decided and why must be readable after all of them are gone.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"

namespace spdlog {
class logger;
}

namespace stagecoach::world::real {

class Log {
 public:
  /// Appends to the file at `path`; with `echo`, lines also go to stderr. An empty path logs to stderr only.
  ///
  /// errors: io_error
  static base::Result<Log> open(const std::string& path, bool echo);
  void line(const std::string& text) const;

 private:
  explicit Log(std::shared_ptr<spdlog::logger> logger) : logger_(std::move(logger)) {}
  std::shared_ptr<spdlog::logger> logger_;
};

}  // namespace stagecoach::world::real
