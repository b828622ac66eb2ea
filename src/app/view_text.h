// Pieces of text for a terminal: widths, bars, curves, numbers a person reads at a glance.
//
// In:      values, and text from peers and files. Out: text without control characters, of a known width.
// Thread:  any; pure functions.
// Why:     a peer's name or reason must not move the cursor or change colours; every string passes printable() here
// first.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "observe/run_status.h"

namespace stagecoach::app {

/// How a text will be shown.
struct ViewOptions {
  std::size_t columns = 80;
  std::size_t rows = 24;  // 0 = as many as it takes
  bool colour = false;
  bool unicode = true;  // bars and curves in block characters; ASCII otherwise
};

/// The text with control characters, direction marks and bytes that are no UTF-8 replaced by '?'.
std::string printable(std::string_view text);

/// Columns a printable text takes, colour sequences not counted; wide scripts count two a character.
std::size_t width_of(std::string_view text);

/// At most `columns` columns of a printable text, with "…" (or "~") as the last where something was cut off. Colour
/// sequences are kept whole and switched off at the cut.
std::string clipped(std::string_view text, std::size_t columns, const ViewOptions& options);

/// clipped(), then filled with spaces up to `columns`.
std::string padded(std::string_view text, std::size_t columns, const ViewOptions& options);

/// A bar of `columns` characters, filled to `fraction` (0 … 1).
std::string bar(double fraction, std::size_t columns, const ViewOptions& options);

/// The curve's newest values in at most `columns` characters, lowest to highest; empty without points.
std::string sparkline(const std::vector<observe::LossPoint>& points, std::size_t columns, const ViewOptions& options);

/// "0 B/s", "12.3 kB/s", "4.56 GB/s".
std::string bytes_per_s_text(double bytes_per_s);
/// "512 B", "2.05 kB", "1.23 MB".
std::string bytes_text(double bytes);
/// "999", "12.3k", "1.23M".
std::string count_text(double count);
/// "1.2 s" under ten seconds, then "42 s", "3 min 07 s", "2 h 05 min", "4 d 03 h".
std::string duration_text(double seconds);
/// "2.3456", or "–" where there is none.
std::string loss_text(const std::optional<double>& loss, const ViewOptions& options);

}  // namespace stagecoach::app
