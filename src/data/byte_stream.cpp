#include "data/byte_stream.h"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/files.h"
#include "digest/digest.h"

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::size_t kRawBytes = 1u << 18;

/// The file itself, hashed as it is read.
class RawFile {
 public:
  explicit RawFile(const Input& input) : name_(input.name) {}
  ~RawFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  RawFile(const RawFile&) = delete;
  RawFile& operator=(const RawFile&) = delete;

  Result<void> open(const std::filesystem::path& path) {
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor_ < 0) return base::file_error("open", path, errno);
    return {};
  }

  Result<std::size_t> read(std::span<char> out) {
    ssize_t count = 0;
    do {
      count = ::read(descriptor_, out.data(), out.size());
    } while (count < 0 && errno == EINTR);
    if (count < 0) return base::file_error("read", name_, errno);
    const auto taken = static_cast<std::size_t>(count);
    hash_.update(std::as_bytes(out.first(taken)));
    bytes_ += taken;
    return taken;
  }

  Result<SourceEnd> end() {
    std::vector<char> rest(kRawBytes);
    while (true) {
      auto count = read(rest);
      if (!count) return count.error();
      if (*count == 0) return SourceEnd{bytes_, hash_.finish()};
    }
  }
  std::uint64_t bytes() const { return bytes_; }

 private:
  std::string name_;
  int descriptor_ = -1;
  std::uint64_t bytes_ = 0;
  digest::Sha256Stream hash_;
};

class PlainStream final : public ByteStream {
 public:
  explicit PlainStream(const Input& input) : file_(input) {}
  Result<void> open(const Input& input) { return file_.open(input.path); }
  Result<std::size_t> read(std::span<char> out) override { return file_.read(out); }
  std::uint64_t raw_bytes() const override { return file_.bytes(); }
  Result<SourceEnd> end() override { return file_.end(); }

 private:
  RawFile file_;
};

/// What both decompressors share: a window onto the compressed file.
class PackedStream : public ByteStream {
 public:
  explicit PackedStream(const Input& input) : file_(input), raw_(kRawBytes) {}
  Result<void> open(const Input& input) { return file_.open(input.path); }
  std::uint64_t raw_bytes() const override { return file_.bytes() - waiting().size(); }
  Result<SourceEnd> end() override { return file_.end(); }

  Result<std::size_t> read(std::span<char> out) override {
    while (true) {
      if (waiting().empty() && !at_end_) {
        auto count = file_.read(raw_);
        if (!count) return count.error();
        from_ = 0;
        to_ = *count;
        at_end_ = *count == 0;
      }
      if (at_end_ && !in_the_middle()) return std::size_t{0};
      auto made = unpack(out);
      if (!made || *made > 0) return made;
      if (at_end_) return damaged(std::string("ends in the middle of its ") + format() + " data");
    }
  }

 protected:
  /// Unpacks from waiting() into `out`, consuming what it took.
  virtual Result<std::size_t> unpack(std::span<char> out) = 0;
  /// True where the compressed data promise more.
  virtual bool in_the_middle() const = 0;
  virtual const char* format() const = 0;

  std::span<char> waiting() const { return {const_cast<char*>(raw_.data()) + from_, to_ - from_}; }
  void consumed(std::size_t count) { from_ += count; }
  Error damaged(const std::string& what) const {
    return {ErrorCode::corrupt, what + " (at byte " + std::to_string(raw_bytes()) + " of the file)"};
  }

 private:
  RawFile file_;
  std::vector<char> raw_;
  std::size_t from_ = 0, to_ = 0;
  bool at_end_ = false;
};

class GzipStream final : public PackedStream {
 public:
  explicit GzipStream(const Input& input) : PackedStream(input) {
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    CHECK(::inflateInit2(&state_, kGzipOnly) == Z_OK, "zlib begins");
  }
  ~GzipStream() override { ::inflateEnd(&state_); }

 protected:
  Result<std::size_t> unpack(std::span<char> out) override {
    if (!in_member_) {  // a further member begins
      if (waiting().empty()) return std::size_t{0};
      ::inflateReset(&state_);
      in_member_ = true;
    }
    const std::span<char> in = waiting();
    state_.next_in = reinterpret_cast<Bytef*>(in.data());
    state_.avail_in = static_cast<uInt>(in.size());
    state_.next_out = reinterpret_cast<Bytef*>(out.data());
    const auto room = static_cast<uInt>(std::min<std::size_t>(out.size(), 1u << 30));
    state_.avail_out = room;
    const int result = ::inflate(&state_, Z_NO_FLUSH);
    consumed(in.size() - state_.avail_in);
    if (result == Z_STREAM_END) in_member_ = false;
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
      return damaged(std::string("is not gzip, or damaged: ") + (state_.msg ? state_.msg : "unknown reason"));
    return static_cast<std::size_t>(room - state_.avail_out);
  }
  bool in_the_middle() const override { return in_member_; }
  const char* format() const override { return "gzip"; }

 private:
  z_stream state_{};
  bool in_member_ = true;  // an empty file is cut off, too
};

class ZstdStream final : public PackedStream {
 public:
  explicit ZstdStream(const Input& input) : PackedStream(input), state_(ZSTD_createDStream(), &ZSTD_freeDStream) {
    CHECK(state_ != nullptr, "zstd begins");
  }

 protected:
  Result<std::size_t> unpack(std::span<char> out) override {
    ZSTD_inBuffer in{waiting().data(), waiting().size(), 0};
    ZSTD_outBuffer to{out.data(), out.size(), 0};
    const std::size_t result = ZSTD_decompressStream(state_.get(), &to, &in);
    consumed(in.pos);
    if (ZSTD_isError(result)) return damaged(std::string("is not zstd, or damaged: ") + ZSTD_getErrorName(result));
    // 0 where a frame has ended; asking again without input is the begin of a frame that does not come.
    if (in.pos > 0 || to.pos > 0) in_frame_ = result != 0;
    return to.pos;
  }
  bool in_the_middle() const override { return in_frame_; }
  const char* format() const override { return "zstd"; }

 private:
  std::unique_ptr<ZSTD_DStream, decltype(&ZSTD_freeDStream)> state_;
  bool in_frame_ = true;
};

class MemoryStream final : public ByteStream {
 public:
  explicit MemoryStream(std::string_view text) : text_(text) {}
  Result<std::size_t> read(std::span<char> out) override {
    const std::size_t count = std::min(out.size(), text_.size() - at_);
    std::memcpy(out.data(), text_.data() + at_, count);
    at_ += count;
    return count;
  }
  std::uint64_t raw_bytes() const override { return at_; }
  Result<SourceEnd> end() override { return SourceEnd{text_.size(), digest::sha256(text_)}; }

 private:
  std::string_view text_;
  std::size_t at_ = 0;
};

template <class Stream>
Result<std::unique_ptr<ByteStream>> opened(const Input& input) {
  auto stream = std::make_unique<Stream>(input);
  RETURN_IF_ERROR(stream->open(input));
  return std::unique_ptr<ByteStream>(std::move(stream));
}

}  // namespace

Result<std::unique_ptr<ByteStream>> ByteStream::open(const Input& input) {
  if (input.path.empty()) return std::unique_ptr<ByteStream>(std::make_unique<MemoryStream>(input.memory));
  switch (input.compression) {
    case Compression::none:
      return opened<PlainStream>(input);
    case Compression::gzip:
      return opened<GzipStream>(input);
    case Compression::zstd:
      return opened<ZstdStream>(input);
  }
  return Error{ErrorCode::internal, "an unknown compression"};
}

}  // namespace stagecoach::data
