// Files: whole, durable or mapped, with the operating system's refusals as errors an operator can act on.
//
// In/out:  paths and bytes. Nothing here throws.
// Thread:  any, one object per user. Writing waits for the disk: never from the loop thread.
// Why:     "complete or it does not exist" takes the same four steps everywhere: write, sync, rename, sync the folder.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace stagecoach::base {

/// The error of a system call that failed with `error_number` (errno) while it tried to `action` the file at `path`.
///
/// errors: not_found (ENOENT) · already_exists (EEXIST) · out_of_space (ENOSPC, EDQUOT, EFBIG) · io_error (all others)
Error file_error(const std::string& action, const std::filesystem::path& path, int error_number);

/// Writes one new file from front to back. Destroyed before finish(), it leaves an incomplete file: write where nobody
/// looks.
class FileWriter {
 public:
  /// errors: already_exists  a file is there · not_found  the folder is not · out_of_space · io_error
  static Result<FileWriter> create(const std::filesystem::path& path);
  FileWriter(FileWriter&& other) noexcept;
  FileWriter& operator=(FileWriter&& other) noexcept;
  ~FileWriter();

  /// errors: out_of_space · io_error
  Result<void> write(std::span<const std::byte> bytes);
  /// Waits until the bytes are on the disk and closes the file.
  ///
  /// errors: out_of_space · io_error
  Result<void> finish();

 private:
  FileWriter(int descriptor, std::filesystem::path path) : descriptor_(descriptor), path_(std::move(path)) {}
  int descriptor_ = -1;
  std::filesystem::path path_;
};

/// A file's bytes without a copy. Whoever shortens the file meanwhile takes the process down (SIGBUS): map only
/// finished files.
class MappedFile {
 public:
  /// errors: not_found · io_error
  static Result<MappedFile> open(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile(const std::byte* data, std::size_t size) : data_(data), size_(size) {}
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Held by one process at a time, given back when the object or the process ends, however it ends.
class FileLock {
 public:
  struct Options {
    bool wait = false;  // for the present holder
  };
  /// Takes the lock on `path`, creating the file where there is none; one that may only be read will do.
  ///
  /// errors: unavailable  somebody holds it, and `wait` is not set · io_error and the others of file_error
  static Result<FileLock> take(const std::filesystem::path& path, Options options);
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  ~FileLock();

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_ = -1;
};

/// All bytes of a file of at most `bytes_max`.
///
/// errors: not_found · too_large · io_error
Result<std::string> read_text_file(const std::filesystem::path& path, std::size_t bytes_max);

/// Writes a text file that takes the place of one of that name. Not in one step: for what nobody reads meanwhile, or reads again.
///
/// errors: not_found  the folder is not there · out_of_space · io_error
Result<void> replace_text_file(const std::filesystem::path& path, std::string_view text);

/// Gives all bytes of a file to `take`, piece by piece: unlike a mapping, a bad sector is an error here and not the end
/// of the process.
///
/// errors: not_found · io_error
Result<void> read_in_pieces(const std::filesystem::path& path,
                            const std::function<void(std::span<const std::byte>)>& take);

/// Makes what was created, renamed or removed in `directory` last through a crash.
///
/// errors: io_error and the others of file_error
Result<void> sync_directory(const std::filesystem::path& directory);

/// Creates `directory` and those above it; fine where it is already there.
///
/// errors: as file_error
Result<void> make_directories(const std::filesystem::path& directory);

/// Removes `path` and all in it; fine where nothing is there.
///
/// errors: as file_error
Result<void> remove_tree(const std::filesystem::path& path);

/// Memory that this machine could give out now without swapping, as Linux estimates it; 0 where it does not say.
std::int64_t free_memory_bytes();

}  // namespace stagecoach::base
