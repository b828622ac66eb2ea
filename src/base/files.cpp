#include "base/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>

namespace stagecoach::base {
namespace {

constexpr mode_t kFileMode = 0644;
constexpr std::size_t kPieceBytes = 1u << 18;

void close_descriptor(int& descriptor) {
  if (descriptor >= 0) ::close(descriptor);
  descriptor = -1;
}

int open_retrying(const std::filesystem::path& path, int flags) {
  int descriptor = -1;
  do {
    descriptor = ::open(path.c_str(), flags | O_CLOEXEC, kFileMode);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

}  // namespace

Error file_error(const std::string& action, const std::filesystem::path& path, int error_number) {
  const std::string sentence =
      "cannot " + action + " " + path.string() + ": " + std::generic_category().message(error_number);
  switch (error_number) {
    case ENOENT:
      return Error{ErrorCode::not_found, sentence};
    case EEXIST:
      return Error{ErrorCode::already_exists, sentence};
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return Error{ErrorCode::out_of_space, sentence};
    default:
      return Error{ErrorCode::io_error, sentence};
  }
}

Result<FileWriter> FileWriter::create(const std::filesystem::path& path) {
  const int descriptor = open_retrying(path, O_WRONLY | O_CREAT | O_EXCL);
  if (descriptor < 0) return file_error("create", path, errno);
  return FileWriter(descriptor, path);
}

FileWriter::FileWriter(FileWriter&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), path_(std::move(other.path_)) {}

FileWriter& FileWriter::operator=(FileWriter&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(path_, other.path_);
  return *this;
}

FileWriter::~FileWriter() { close_descriptor(descriptor_); }

Result<void> FileWriter::write(std::span<const std::byte> bytes) {
  CHECK(descriptor_ >= 0, "a finished file is not written to");
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return file_error("write", path_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

Result<void> FileWriter::finish() {
  CHECK(descriptor_ >= 0, "a file is finished once");
  if (::fsync(descriptor_) != 0) return file_error("write to the disk", path_, errno);
  // A network file system may report a full disk only here.
  if (::close(std::exchange(descriptor_, -1)) != 0) return file_error("close", path_, errno);
  return {};
}

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  int descriptor = open_retrying(path, O_RDONLY);
  if (descriptor < 0) return file_error("open", path, errno);
  struct stat info{};
  int refusal = ::fstat(descriptor, &info) != 0 ? errno : 0;
  if (refusal == 0 && !S_ISREG(info.st_mode)) refusal = S_ISDIR(info.st_mode) ? EISDIR : ENODEV;
  if (refusal != 0) {
    close_descriptor(descriptor);
    return file_error("read", path, refusal);
  }
  const auto size = static_cast<std::size_t>(info.st_size);
  void* data = nullptr;
  if (size > 0) data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  const int error_number = errno;
  close_descriptor(descriptor);
  if (data == MAP_FAILED) return file_error("map", path, error_number);
  return MappedFile(static_cast<const std::byte*>(data), size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

Result<FileLock> FileLock::take(const std::filesystem::path& path, Options options) {
  int descriptor = open_retrying(path, O_RDWR | O_CREAT);
  // A file that only may be read can be locked too; network file systems want it writable, so that is tried first.
  if (descriptor < 0 && (errno == EACCES || errno == EPERM || errno == EROFS)) descriptor = open_retrying(path, O_RDONLY);
  if (descriptor < 0) return file_error("open", path, errno);
  FileLock lock(descriptor);
  int locked = 0;
  do {
    locked = ::flock(descriptor, options.wait ? LOCK_EX : LOCK_EX | LOCK_NB);
  } while (locked != 0 && errno == EINTR);
  if (locked == 0) return lock;
  if (errno == EWOULDBLOCK) {
    return Error{ErrorCode::unavailable, path.parent_path().string() + " is in use by another process (it holds " +
                                             path.filename().string() + "): wait for it or stop it"};
  }
  return file_error("lock", path, errno);
}

FileLock::FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

FileLock::~FileLock() { close_descriptor(descriptor_); }

Result<std::string> read_text_file(const std::filesystem::path& path, std::size_t bytes_max) {
  auto file = MappedFile::open(path);
  if (!file.ok()) return file.error();
  if (file->bytes().size() > bytes_max) {
    return Error{ErrorCode::too_large, path.string() + " has " + std::to_string(file->bytes().size()) +
                                           " bytes, more than the " + std::to_string(bytes_max) +
                                           " that are read here"};
  }
  return std::string(as_text(file->bytes()));
}

Result<void> read_in_pieces(const std::filesystem::path& path,
                            const std::function<void(std::span<const std::byte>)>& take) {
  int descriptor = open_retrying(path, O_RDONLY);
  if (descriptor < 0) return file_error("open", path, errno);
  Bytes piece(kPieceBytes);
  ssize_t count = 0;
  do {
    count = ::read(descriptor, piece.data(), piece.size());
    if (count > 0) take(std::span(piece).first(static_cast<std::size_t>(count)));
  } while (count > 0 || (count < 0 && errno == EINTR));
  const int error_number = errno;
  close_descriptor(descriptor);
  if (count < 0) return file_error("read", path, error_number);
  return {};
}

Result<void> sync_directory(const std::filesystem::path& directory) {
  int descriptor = open_retrying(directory, O_RDONLY | O_DIRECTORY);
  if (descriptor < 0) return file_error("open", directory, errno);
  const int synced = ::fsync(descriptor);
  const int error_number = errno;
  close_descriptor(descriptor);
  if (synced != 0) return file_error("write to the disk", directory, error_number);
  return {};
}

Result<void> make_directories(const std::filesystem::path& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return file_error("create", directory, error.value());
  return {};
}

Result<void> replace_text_file(const std::filesystem::path& path, std::string_view text) {
  std::error_code error;
  std::filesystem::remove(path, error);  // a refusal shows at create()
  auto file = FileWriter::create(path);
  if (!file) return file.error();
  RETURN_IF_ERROR(file->write(as_bytes(text)));
  return file->finish();
}

Result<void> remove_tree(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) return file_error("remove", path, error.value());
  return {};
}

std::int64_t free_memory_bytes() {
  std::FILE* file = std::fopen("/proc/meminfo", "r");
  if (!file) return 0;
  long long kibibytes = 0;
  char line[128];
  while (kibibytes == 0 && std::fgets(line, sizeof line, file)) {
    if (std::sscanf(line, "MemAvailable: %lld kB", &kibibytes) != 1) kibibytes = 0;
  }
  std::fclose(file);
  return kibibytes * 1024;
}

}  // namespace stagecoach::base
