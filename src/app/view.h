// Shows a run: a live screen in a terminal, plain lines elsewhere, one text for `stagecoach status`.
//
// In:      RunStatus; the size of the terminal.
// Out:     text; TerminalView also writes it.
// Thread:  one; the caller's.
// Why:     what is shown is a pure function of the status, so that it is tested as a string and can be drawn from any
// machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "app/view_text.h"
#include "observe/run_status.h"

namespace stagecoach::app {

/// The status as lines of at most `options.columns` columns and, where rows is not 0, at most so many lines: stages
/// beyond are counted, then events, waits and curves give way. Columns under 60 show less of each row.
///
/// units: losses in nats per token
std::vector<std::string> render_lines(const observe::RunStatus& status, const ViewOptions& options);

/// The same as one text, a newline after each line: what `stagecoach status` prints.
std::string render_text(const observe::RunStatus& status, const ViewOptions& options);

/// Progress as lines for a file or a pipe: one whenever the phase or its reason changes, one per event, one per
/// `print_every` steps.
class PlainView {
 public:
  explicit PlainView(std::uint64_t print_every) : print_every_(print_every == 0 ? 1 : print_every) {}

  /// What is new in `status` since the last call, oldest first.
  std::vector<std::string> lines(const observe::RunStatus& status);

 private:
  std::uint64_t print_every_;
  std::string last_phase_;
  std::uint64_t last_step_ = 0;
  std::vector<std::string> last_events_;
  std::uint64_t last_validation_step_ = 0;
  bool validated_ = false;
};

/// Draws over its own last picture in a terminal; prints PlainView's lines where the descriptor is none.
///
/// The cursor is hidden while the picture lives; close(), or the destructor, shows it again below the last picture.
/// A signal handler that ends the process at once may write kRestoreTerminal itself.
class TerminalView {
 public:
  struct Options {
    int descriptor = 1;
    std::uint64_t print_every = 10;
    bool force_plain = false;  // plain lines in a terminal too
  };
  static constexpr std::string_view kRestoreTerminal = "\x1b[?25h\x1b[0m\r\n";

  explicit TerminalView(Options options);
  ~TerminalView();
  TerminalView(const TerminalView&) = delete;
  TerminalView& operator=(const TerminalView&) = delete;

  bool live() const { return live_; }
  /// Draws or prints. Cheap where nothing changed; meant to be called a few times a second. Where the other end of the
  /// descriptor is gone, it is silent from then on: a closed pipe does not end a run.
  void show(const observe::RunStatus& status);
  /// Prints `line` above the picture (or as it is).
  void say(const std::string& line);
  void close();

 private:
  void draw(const std::vector<std::string>& lines, const ViewOptions& options);
  void write_all(std::string_view text);

  Options options_;
  bool live_ = false;
  bool broken_ = false;
  bool cursor_hidden_ = false;
  PlainView plain_;
  ViewOptions size_;
  std::vector<std::string> picture_;
};

/// The size and abilities of the terminal behind `descriptor`: 80 × 24 without one. Colour unless NO_COLOR is set or
/// TERM is dumb; block characters where the locale's variables name UTF-8.
ViewOptions terminal_options(int descriptor);

}  // namespace stagecoach::app
