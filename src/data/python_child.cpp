#include "data/python_child.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "data/bridge_source.h"

extern char** environ;

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::uint64_t kFrameBytesMax = 1u << 30;
constexpr std::size_t kFrameHeaderBytes = 12;
constexpr std::uint32_t kAnswer = 0;
constexpr std::uint32_t kError = 1;

std::string reason(int error_number) { return std::generic_category().message(error_number); }

/// Starts the child with `socket` as its standard input and output. Returns errno's value, 0 where it started.
int spawn(std::vector<std::string> words, int socket, pid_t& child) {
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  int failed = ::posix_spawn_file_actions_init(&actions);
  if (failed != 0) return failed;
  failed = ::posix_spawn_file_actions_adddup2(&actions, socket, STDIN_FILENO);
  if (failed == 0) failed = ::posix_spawn_file_actions_adddup2(&actions, socket, STDOUT_FILENO);
  if (failed == 0) failed = ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  if (failed == 0) failed = ::posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  return failed;
}

}  // namespace

Result<PythonChild> PythonChild::start(const std::string& python, const std::vector<std::string>& arguments) {
  if (python.empty()) {
    return Error{ErrorCode::unavailable, "this needs a Python interpreter, and none is known: name one with --python"};
  }
  int ends[2] = {-1, -1};
  // A socket pair and not two pipes: writing to a child that has died is then an error and not a signal.
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return Error{ErrorCode::io_error, "cannot make a socket pair: " + reason(errno)};
  std::vector<std::string> words = {python, "-c", kBridgeSource};
  words.insert(words.end(), arguments.begin(), arguments.end());
  pid_t child = -1;
  const int failed = spawn(std::move(words), ends[1], child);
  ::close(ends[1]);
  if (failed != 0) {
    ::close(ends[0]);
    return Error{ErrorCode::unavailable,
                 "cannot start the Python interpreter " + python + ": " + reason(failed) + "; name one with --python"};
  }
  return PythonChild(child, ends[0], python);
}

PythonChild::PythonChild(PythonChild&& other) noexcept
    : child_(std::exchange(other.child_, -1)),
      socket_(std::exchange(other.socket_, -1)),
      python_(std::move(other.python_)) {}

PythonChild& PythonChild::operator=(PythonChild&& other) noexcept {
  std::swap(child_, other.child_);
  std::swap(socket_, other.socket_);
  std::swap(python_, other.python_);
  return *this;
}

PythonChild::~PythonChild() {
  if (socket_ >= 0) ::close(socket_);
  if (child_ <= 0) return;
  // It may be in the middle of a row group, and nobody wants the rest.
  ::kill(child_, SIGKILL);
  while (::waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Result<void> PythonChild::send(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return ended();
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
  }
  return {};
}

Result<base::Bytes> PythonChild::receive() {
  std::byte header[kFrameHeaderBytes];
  RETURN_IF_ERROR(read_exactly(header));
  base::ByteReader reader(header);
  const std::uint32_t kind = reader.u32();
  const std::uint64_t length = reader.u64();
  if ((kind != kAnswer && kind != kError) || length > kFrameBytesMax)
    return Error{ErrorCode::internal, "the Python helper sent something that is not an answer"};
  base::Bytes bytes(static_cast<std::size_t>(length));
  RETURN_IF_ERROR(read_exactly(bytes));
  if (kind == kAnswer) return bytes;
  const std::string text(base::as_text(bytes));
  const std::size_t space = text.find(' ');
  const std::string word = text.substr(0, space);
  const std::string sentence = space == std::string::npos ? text : text.substr(space + 1);
  if (word == "missing") {
    return Error{ErrorCode::unavailable, "this needs the Python package " + sentence + ", which " + python_ +
                                             " does not have. Install it: " + python_ + " -m pip install " + sentence};
  }
  return Error{word == "corrupt" ? ErrorCode::corrupt : ErrorCode::internal, sentence};
}

Result<void> PythonChild::read_exactly(std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t count = ::read(socket_, out.data(), out.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return ended();
    out = out.subspan(static_cast<std::size_t>(count));
  }
  return {};
}

Error PythonChild::ended() {
  std::string how = "ended";
  int status = 0;
  if (child_ > 0) {
    ::kill(child_, SIGKILL);  // closed its end and hangs: nothing else is left to do with it
    pid_t reaped = 0;
    while ((reaped = ::waitpid(child_, &status, 0)) < 0 && errno == EINTR) {
    }
    if (reaped == child_ && WIFEXITED(status)) how = "ended with status " + std::to_string(WEXITSTATUS(status));
    if (reaped == child_ && WIFSIGNALED(status))
      how = "was ended by signal " + std::to_string(WTERMSIG(status)) + " (9: perhaps for want of memory)";
    child_ = -1;
  }
  return Error{ErrorCode::internal, "the Python helper (" + python_ + ") " + how + " in the middle of its work"};
}

}  // namespace stagecoach::data
