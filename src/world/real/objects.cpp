#include "world/real/objects.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <random>

#include "base/files.h"
#include "digest/digest.h"

namespace stagecoach::world::real {

using base::Error;
using base::ErrorCode;
using base::Result;
namespace fs = std::filesystem;

namespace {
constexpr std::uint32_t kSliceBytes = 1u << 20;
constexpr std::size_t kSlicesUnderWay = 8;
constexpr std::string_view kPartial = ".partial";
/// Nobody writes a file for so long: its process died.
constexpr std::chrono::hours kPartialAgeMax{24};

/// Process numbers are no names: containers that share a cache share them too.
std::string random_suffix() {
  std::random_device source;
  return std::to_string(static_cast<std::uint64_t>(source()) << 32 | source());
}

void remove_old_partials(const fs::path& cache) {
  std::error_code error;
  const auto now = fs::file_time_type::clock::now();
  for (fs::directory_iterator it(cache, error), end; !error && it != end; it.increment(error)) {
    if (!it->path().filename().string().ends_with(kPartial)) continue;
    std::error_code gone;  // by another worker that tidies the same cache
    const auto written = it->last_write_time(gone);
    if (!gone && now - written > kPartialAgeMax) fs::remove(it->path(), gone);
  }
}

Result<void> sync_file(const fs::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return base::file_error("open", path, errno);
  const int failed = ::fsync(file) != 0 ? errno : 0;
  ::close(file);
  if (failed != 0) return base::file_error("write to the disk", path, failed);
  return {};
}

/// Makes `to` the file `from`, whatever `to` was before.
Result<void> name_file(const fs::path& from, const fs::path& to) {
  const fs::path fresh = to.string() + "." + random_suffix() + std::string(kPartial);
  std::error_code error;
  fs::create_hard_link(from, fresh, error);
  if (error) fs::create_symlink(fs::absolute(from), fresh, error);
  if (error) fs::copy_file(from, fresh, error);
  if (error) return base::file_error("name a fetched file", to, error.value());
  fs::rename(fresh, to, error);
  // Of two names of one file, rename() leaves both: the fresh one goes in any case.
  std::error_code gone;
  fs::remove(fresh, gone);
  if (error) return base::file_error("name a fetched file", to, error.value());
  return {};
}

Result<void> write_at(const fs::path& path, std::uint64_t offset, const base::Bytes& bytes) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return base::file_error("write", path, errno);
  std::size_t at = 0;
  while (at < bytes.size()) {
    const ssize_t n = ::pwrite(file, bytes.data() + at, bytes.size() - at, static_cast<off_t>(offset + at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      ::close(file);
      return base::file_error("write", path, error);
    }
    at += static_cast<std::size_t>(n);
  }
  ::close(file);
  return {};
}

/// True where the file is there with these bytes.
bool holds(const fs::path& path, const wire::ObjectRef& object) {
  std::error_code error;
  if (fs::file_size(path, error) != object.bytes || error) return false;
  const auto file = base::MappedFile::open(path);
  return file.ok() && digest::sha256(file->bytes()) == object.sha256;
}
}  // namespace

Result<wire::ObjectRef> ObjectServer::offer(const fs::path& path, const std::string& name) {
  auto file = base::MappedFile::open(path);
  if (!file) return file.error();
  wire::ObjectRef ref{name, file->bytes().size(), digest::sha256(file->bytes())};
  files_[ref.sha256] = path;
  return ref;
}

wire::ObjectChunk ObjectServer::read(const wire::ObjectRequest& request) const {
  wire::ObjectChunk chunk{request.sha256, request.offset, nullptr};
  const auto it = files_.find(request.sha256);
  if (it == files_.end()) return chunk;
  const int file = ::open(it->second.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return chunk;
  base::Bytes bytes(std::min(request.length, kSliceBytes));
  std::size_t at = 0;
  while (at < bytes.size()) {
    const ssize_t n = ::pread(file, bytes.data() + at, bytes.size() - at, static_cast<off_t>(request.offset + at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    at += static_cast<std::size_t>(n);
  }
  ::close(file);
  bytes.resize(at);
  if (at > 0) chunk.bytes = base::make_payload(std::move(bytes));
  return chunk;
}

Result<fs::path> lay_out_objects(const fs::path& cache, const std::vector<wire::ObjectRef>& objects) {
  fs::path folder = cache / "shards";
  for (const auto& object : objects)
    if (object.name == "manifest.json") folder = cache / ("shards-" + object.sha256.hex());
  RETURN_IF_ERROR(base::make_directories(folder));
  for (const auto& object : objects) {
    // Names come from the coordinator: only plain file names may become paths.
    if (object.name.empty() || object.name.find('/') != std::string::npos || object.name.front() == '.')
      return Error{ErrorCode::corrupt, "the coordinator names a file \"" + object.name + "\""};
    RETURN_IF_ERROR(name_file(cache / object.sha256.hex(), folder / object.name));
  }
  return folder;
}

ObjectFetcher::ObjectFetcher(Options options) : options_(std::move(options)), suffix_(random_suffix()) {}

void ObjectFetcher::start(std::vector<wire::ObjectRef> objects) {
  queue_.assign(objects.begin(), objects.end());
  busy_ = true;
  std::error_code error;
  fs::create_directories(options_.cache, error);
  if (error) return end(Error{ErrorCode::io_error, "the cache folder " + options_.cache.string() + " cannot be made: " + error.message()});
  options_.disk->post([cache = options_.cache] { remove_old_partials(cache); });
  next_object();
}

fs::path ObjectFetcher::partial() const {
  // Several workers of one machine may share the cache: each writes a file of its own and renames it when it is whole.
  return options_.cache / (queue_.front().sha256.hex() + "." + suffix_ + std::string(kPartial));
}

void ObjectFetcher::next_object() {
  asked_ = written_ = 0;
  waiting_.clear();
  if (queue_.empty()) return end({});
  const wire::ObjectRef object = queue_.front();
  options_.disk->post([this, object, path = path_of(object)] {
    const bool here = holds(path, object);
    options_.on_loop([this, here] {
      if (!busy_) return;
      if (here) {
        queue_.pop_front();
        return next_object();
      }
      pump();
    });
  });
}

void ObjectFetcher::pump() {
  const wire::ObjectRef& object = queue_.front();
  while (waiting_.size() < kSlicesUnderWay && asked_ < object.bytes) {
    const auto length = static_cast<std::uint32_t>(std::min<std::uint64_t>(kSliceBytes, object.bytes - asked_));
    waiting_[asked_] = length;
    options_.request({object.sha256, asked_, length});
    asked_ += length;
  }
  if (written_ == object.bytes) finish_object();
}

void ObjectFetcher::on_chunk(wire::ObjectChunk& chunk) {
  if (!busy_ || queue_.empty() || chunk.sha256 != queue_.front().sha256) return;
  const auto it = waiting_.find(chunk.offset);
  if (it == waiting_.end()) return;  // came twice, over an old link and a new one
  if (!chunk.bytes || chunk.bytes->size() != it->second)
    return end(Error{ErrorCode::not_found, "the coordinator does not give " + queue_.front().name + ": its file is gone or was cut"});
  waiting_.erase(it);
  options_.disk->post([this, path = partial(), offset = chunk.offset, bytes = std::move(chunk.bytes)] {
    auto result = write_at(path, offset, *bytes);
    options_.on_loop([this, result = std::move(result), length = bytes->size()] {
      if (!busy_) return;
      if (!result.ok()) return end(result.error());
      written_ += length;
      pump();
    });
  });
}

void ObjectFetcher::on_new_link() {
  if (!busy_ || queue_.empty()) return;
  for (const auto& [offset, length] : waiting_) options_.request({queue_.front().sha256, offset, length});
}

void ObjectFetcher::finish_object() {
  const wire::ObjectRef object = queue_.front();
  options_.disk->post([this, object, from = partial(), to = path_of(object)] {
    Result<void> result;
    if (holds(from, object)) {
      result = sync_file(from);  // a name must not outlive a crash that its bytes do not
      if (result.ok() && ::rename(from.c_str(), to.c_str()) != 0) result = base::file_error("rename", from, errno);
    } else if (!holds(to, object)) {
      result = Error{ErrorCode::corrupt, object.name + " arrived with another hash than announced"};
    }
    ::unlink(from.c_str());  // where it still is, it is of no use
    options_.on_loop([this, result = std::move(result)] {
      if (!busy_) return;
      if (!result.ok()) return end(result.error());
      queue_.pop_front();
      next_object();
    });
  });
}

void ObjectFetcher::end(Result<void> result) {
  busy_ = false;
  queue_.clear();
  options_.done(std::move(result));
}

}  // namespace stagecoach::world::real
