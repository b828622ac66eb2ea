#include "world/real/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace stagecoach::world::real {

base::Result<Log> Log::open(const std::string& path, bool echo) {
  try {
    std::vector<spdlog::sink_ptr> sinks;
    if (!path.empty()) sinks.push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(path));
    if (echo || path.empty()) sinks.push_back(std::make_shared<spdlog::sinks::stderr_sink_mt>());
    auto logger = std::make_shared<spdlog::logger>("stagecoach", sinks.begin(), sinks.end());
    logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %v");
    logger->flush_on(spdlog::level::info);
    return Log(std::move(logger));
  } catch (const spdlog::spdlog_ex& failure) {  // the library reports a file that cannot be opened this way
    return base::Error{base::ErrorCode::io_error, "the log file " + path + " cannot be written: " + failure.what()};
  }
}

void Log::line(const std::string& text) const { logger_->info("{}", text); }

}  // namespace stagecoach::world::real
