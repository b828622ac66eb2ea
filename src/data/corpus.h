// The text a run learns from: files the user names, or a public-domain book that a Debian package prints.
//
// In:      paths, or nothing. Out: one text.
// Thread:  any; waits for the disk or for the printing program.
// Why:     the first run must need no account, no download and no file to write.
#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "base/result.h"

namespace stagecoach::data {

/// The King James text, one verse a line, as the program of Debian's package bible-kjv prints it (4.4 MB).
///
/// errors: not_found  the program is not installed: says which package, and how to give own files instead
///         corrupt    it failed, or printed something else
///         io_error   it could not be started or read
base::Result<std::string> builtin_corpus_text(const std::string& program = "bible");

/// The files' bytes, in order, with nothing between them.
///
/// errors: not_found · io_error · invalid_argument  no file is named, or all are empty
base::Result<std::string> corpus_text_of_files(std::span<const std::filesystem::path> files);

}  // namespace stagecoach::data
