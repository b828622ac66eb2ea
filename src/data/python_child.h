// A Python process that does what only a Python package can: reading Parquet, and tokenizers of tokenizer.json.
//
// In:      an interpreter and what it shall do. Out: frames of bytes, ours and its.
// Thread:  one at a time; waits for the child.
// Why:     shards are written by one program in one format; Python hands it texts or ids and decides nothing.
//
// A frame to the child is what the child's side of the task reads (bridge.py). A frame from it is u32 kind (0 = answer,
// 1 = error), u64 length, that many bytes. An error's bytes are a word of bridge.py's list and a sentence.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace stagecoach::data {

class PythonChild {
 public:
  /// Starts `python` on bridge.py with `arguments`. What it writes to its standard error is dropped: it reports
  /// by frames.
  ///
  /// errors: unavailable  there is no such interpreter: says how to name one · io_error
  static base::Result<PythonChild> start(const std::string& python, const std::vector<std::string>& arguments);
  PythonChild(PythonChild&& other) noexcept;
  PythonChild& operator=(PythonChild&& other) noexcept;
  /// Ends the child and waits for it.
  ~PythonChild();

  /// errors: internal  the child has ended
  base::Result<void> send(std::span<const std::byte> bytes);

  /// The next answer's bytes.
  ///
  /// errors: unavailable  a Python package is missing: says which, and how to install it
  ///         corrupt      the child cannot read its input: its sentence
  ///         internal     the child ended, or sent something else
  base::Result<base::Bytes> receive();

 private:
  PythonChild(pid_t child, int socket, std::string python)
      : child_(child), socket_(socket), python_(std::move(python)) {}
  base::Result<void> read_exactly(std::span<std::byte> out);
  base::Error ended();

  pid_t child_ = -1;
  int socket_ = -1;
  std::string python_;
};

}  // namespace stagecoach::data
