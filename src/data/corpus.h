// The text a run learns from where the user names none: a public-domain book that a Debian package prints.
//
// In:      nothing. Out: one text.
// Thread:  any; waits for the printing program.
// Why:     the first run must need no account, no download and no file to write.
#pragma once

#include <string>

#include "base/result.h"

namespace stagecoach::data {

/// The King James text, one verse a line, as the program of Debian's package bible-kjv prints it (4.4 MB).
///
/// errors: not_found  the program is not installed: says which package, and how to give own files instead
///         corrupt    it failed, or printed something else
///         io_error   it could not be started or read
base::Result<std::string> builtin_corpus_text(const std::string& program = "bible");

}  // namespace stagecoach::data
