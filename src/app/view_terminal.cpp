// TerminalView: the only part of the view that knows a descriptor.

#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "app/view.h"

namespace stagecoach::app {
namespace {

bool locale_is_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') continue;
    const std::string_view text(value);
    return text.find("UTF-8") != std::string_view::npos || text.find("utf8") != std::string_view::npos ||
           text.find("UTF8") != std::string_view::npos || text.find("utf-8") != std::string_view::npos;
  }
  return false;
}

bool is_terminal(int descriptor) {
  const char* term = std::getenv("TERM");
  return ::isatty(descriptor) == 1 && term != nullptr && std::strcmp(term, "dumb") != 0;
}

}  // namespace

ViewOptions terminal_options(int descriptor) {
  ViewOptions out;
  winsize size{};
  if (::ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
    out.columns = std::clamp<std::size_t>(size.ws_col, 20, 400);
    out.rows = std::max<std::size_t>(size.ws_row, 4);
  }
  const char* no_colour = std::getenv("NO_COLOR");
  out.colour = is_terminal(descriptor) && (no_colour == nullptr || *no_colour == '\0');
  out.unicode = locale_is_utf8();
  return out;
}

TerminalView::TerminalView(Options options)
    : options_(options), live_(!options.force_plain && is_terminal(options.descriptor)), plain_(options.print_every) {}

TerminalView::~TerminalView() { close(); }

void TerminalView::show(const observe::RunStatus& status) {
  if (!live_) {
    std::string text;
    for (const std::string& line : plain_.lines(status)) text += line + "\n";
    write_all(text);
    return;
  }
  ViewOptions options = terminal_options(options_.descriptor);
  options.rows -= 1;  // the line below the picture, where the cursor rests
  draw(render_lines(status, options), options);
}

void TerminalView::draw(const std::vector<std::string>& lines, const ViewOptions& options) {
  const bool resized = options.columns != size_.columns || options.rows != size_.rows;
  if (!resized && lines == picture_) return;
  // Synchronised output (mode 2026) keeps terminals that know it from showing half a picture; others pass over it.
  std::string text = "\x1b[?2026h";
  if (!cursor_hidden_) text += "\x1b[?25l";
  cursor_hidden_ = true;
  if (!picture_.empty()) {
    // After a resize the terminal has wrapped the old lines anew: their places are unknown, only a clean screen is
    // certain.
    if (resized)
      text += "\x1b[2J\x1b[H";
    else
      text += fmt::format("\r\x1b[{}A", picture_.size());
  }
  for (const std::string& line : lines) text += line + "\x1b[K\r\n";
  text += "\x1b[J\x1b[?2026l";
  size_ = options;
  picture_ = lines;
  write_all(text);
}

void TerminalView::say(const std::string& line) {
  if (!live_ || picture_.empty()) {
    write_all(line + "\n");
    return;
  }
  const std::vector<std::string> picture = std::move(picture_);
  picture_.clear();
  write_all(fmt::format("\r\x1b[{}A\x1b[J{}\r\n", picture.size(), line));
  draw(picture, size_);
}

void TerminalView::close() {
  if (!cursor_hidden_) return;
  write_all("\x1b[?25h\x1b[0m");
  cursor_hidden_ = false;
  picture_.clear();
}

void TerminalView::write_all(std::string_view text) {
  while (!text.empty() && !broken_) {
    const ssize_t written = ::write(options_.descriptor, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN) {
      pollfd ready{options_.descriptor, POLLOUT, 0};
      ::poll(&ready, 1, 100);
      continue;
    }
    broken_ = true;
  }
}

}  // namespace stagecoach::app
