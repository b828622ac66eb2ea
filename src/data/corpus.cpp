#include "data/corpus.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <system_error>

extern char** environ;

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::size_t kOutputBytesMax = 64u << 20;
constexpr std::size_t kBuiltinBytesMin = 4'000'000;
constexpr std::string_view kBuiltinBegins = "Ge1:1 In the beginning";
constexpr std::string_view kInstead = ", or name text files of your own as the corpus";

std::string reason(int error_number) { return std::generic_category().message(error_number); }

/// Starts `program` with its output into a pipe, whose reading end goes to `output`. Returns errno's value, 0 where it
/// started.
int start(const std::string& program, const std::string& passages, pid_t& child, int& output) {
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno;
  posix_spawn_file_actions_t actions;
  int failed = ::posix_spawn_file_actions_init(&actions);
  if (failed == 0) {
    failed = ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (failed == 0) failed = ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    if (failed == 0) failed = ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    // -f switches the layout for people off: a verse a line, its place in front.
    std::string name = program, flat = "-f", range = passages;
    char* arguments[] = {name.data(), flat.data(), range.data(), nullptr};
    if (failed == 0) failed = ::posix_spawnp(&child, program.c_str(), &actions, nullptr, arguments, environ);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  ::close(ends[1]);
  if (failed != 0) {
    ::close(ends[0]);
    return failed;
  }
  output = ends[0];
  return 0;
}

/// Reads to the end or to the bound. Returns errno's value.
int read_all(int descriptor, std::string& text) {
  char piece[1 << 16];
  while (text.size() <= kOutputBytesMax) {
    const ssize_t count = ::read(descriptor, piece, sizeof piece);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    if (count == 0) return 0;
    text.append(piece, static_cast<std::size_t>(count));
  }
  return 0;
}

}  // namespace

Result<std::string> builtin_corpus_text(const std::string& program) {
  pid_t child = 0;
  int output = -1;
  if (const int failed = start(program, "gen1:1-rev22:21", child, output); failed == ENOENT) {
    return Error{ErrorCode::not_found, "the built-in corpus is printed by the program \"" + program +
                                           "\", which is not installed: apt-get install bible-kjv" +
                                           std::string(kInstead)};
  } else if (failed != 0) {
    return Error{ErrorCode::io_error, "cannot start \"" + program + "\": " + reason(failed) + std::string(kInstead)};
  }
  std::string text;
  const int read_failed = read_all(output, text);
  // Closed before the wait: a program that prints without end then ends on the broken pipe.
  ::close(output);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (read_failed != 0) {
    return Error{ErrorCode::io_error, "cannot read what \"" + program + "\" prints: " + reason(read_failed)};
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || text.size() < kBuiltinBytesMin ||
      !text.starts_with(kBuiltinBegins)) {
    return Error{
        ErrorCode::corrupt,
        "\"" + program + "\" printed " + std::to_string(text.size()) +
            " bytes that are not the King James text: install the packages bible-kjv and bible-kjv-text again" +
            std::string(kInstead)};
  }
  return text;
}

}  // namespace stagecoach::data
