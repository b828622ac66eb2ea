// The file behind EventLog: whole lines, appended.

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "observe/event.h"

namespace stagecoach::observe {
namespace {

base::Error system_error(const std::string& path, int reason) {
  const bool full = reason == ENOSPC || reason == EDQUOT || reason == EFBIG;
  return {
      full ? base::ErrorCode::out_of_space : base::ErrorCode::io_error,
      "event log " + path + ": " + std::strerror(reason) + (full ? "; free some space, nothing written was lost" : "")};
}

/// True where the file is not empty and its last byte is no newline.
bool ends_torn(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file || file.tellg() <= 0) return false;
  file.seekg(-1, std::ios::end);
  return file.get() != '\n';
}

}  // namespace

base::Result<EventLog> EventLog::open(const std::string& path, std::size_t buffer_bytes_max) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) return system_error(path, errno);
  EventLog log(descriptor, path, buffer_bytes_max);
  if (ends_torn(path)) log.buffer_.push_back('\n');
  return log;
}

EventLog::EventLog(int descriptor, std::string path, std::size_t buffer_bytes_max)
    : descriptor_(descriptor), path_(std::move(path)), buffer_bytes_max_(buffer_bytes_max) {}

EventLog::EventLog(EventLog&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      path_(std::move(other.path_)),
      buffer_bytes_max_(other.buffer_bytes_max_),
      buffer_(std::move(other.buffer_)) {}

EventLog& EventLog::operator=(EventLog&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(path_, other.path_);
  std::swap(buffer_bytes_max_, other.buffer_bytes_max_);
  std::swap(buffer_, other.buffer_);
  return *this;
}

EventLog::~EventLog() {
  if (descriptor_ < 0) return;
  if (auto flushed = flush(); !flushed) buffer_.clear();
  ::close(descriptor_);
}

base::Result<void> EventLog::append(const Event& event) {
  const std::string line = to_line(event) + "\n";
  if (buffer_.size() + line.size() > buffer_bytes_max_) RETURN_IF_ERROR(flush());
  buffer_ += line;
  return {};
}

base::Result<void> EventLog::flush() {
  while (!buffer_.empty()) {
    const ssize_t written = ::write(descriptor_, buffer_.data(), buffer_.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return system_error(path_, errno);
    }
    buffer_.erase(0, static_cast<std::size_t>(written));
  }
  return {};
}

base::Result<ReadEvents> read_events(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const int reason = errno;
  if (!file) {
    base::Error error = system_error(path, reason);
    if (reason == ENOENT) error.code = base::ErrorCode::not_found;
    return error;
  }
  ReadEvents out;
  std::string line;
  while (std::getline(file, line)) {
    if (line.empty()) continue;
    if (auto event = parse_event(line))
      out.events.push_back(std::move(*event));
    else
      ++out.damaged_lines;
  }
  if (file.bad()) return base::Error{base::ErrorCode::io_error, "event log " + path + ": reading failed"};
  return out;
}

}  // namespace stagecoach::observe
