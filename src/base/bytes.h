// Bytes, shared payloads, and bounded little-endian reading and writing.
//
// In/out:  byte buffers. All integers on wires and disks are little-endian.
// Thread:  any; a Payload's bytes never change once it is made.
// Why:     decoders bound every length before they use it; this is the only place where raw bytes become numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace stagecoach::base {

using Bytes = std::vector<std::byte>;

/// Immutable bytes that several holders may keep: a boundary tensor in custody, in a frame, in a kernel's queue.
/// A null Payload means "none"; an empty one is zero bytes long.
using Payload = std::shared_ptr<const Bytes>;

inline Payload make_payload(Bytes bytes) { return std::make_shared<const Bytes>(std::move(bytes)); }

/// True where both are null, or both hold the same bytes.
inline bool same_bytes(const Payload& a, const Payload& b) {
  if (!a || !b) return !a && !b;
  return a == b || (a->size() == b->size() && std::memcmp(a->data(), b->data(), a->size()) == 0);
}

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Appends little-endian values to a buffer it owns.
class ByteWriter {
 public:
  void u8(std::uint8_t v) { out_.push_back(static_cast<std::byte>(v)); }
  void u16(std::uint16_t v) { little_endian(v, 2); }
  void u32(std::uint32_t v) { little_endian(v, 4); }
  void u64(std::uint64_t v) { little_endian(v, 8); }
  void f64(double v) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &v, sizeof bits);
    u64(bits);
  }
  void raw(std::span<const std::byte> bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }
  std::size_t size() const { return out_.size(); }
  Bytes take() { return std::move(out_); }

 private:
  void little_endian(std::uint64_t v, int count) {
    for (int i = 0; i < count; ++i) out_.push_back(static_cast<std::byte>(v >> (8 * i)));
  }
  Bytes out_;
};

/// Reads little-endian values; past the end it returns zeros and `ok()` turns false, for good.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::uint8_t u8() { return static_cast<std::uint8_t>(little_endian(1)); }
  std::uint16_t u16() { return static_cast<std::uint16_t>(little_endian(2)); }
  std::uint32_t u32() { return static_cast<std::uint32_t>(little_endian(4)); }
  std::uint64_t u64() { return little_endian(8); }
  double f64() {
    const std::uint64_t bits = u64();
    double v = 0;
    std::memcpy(&v, &bits, sizeof v);
    return v;
  }
  /// The next `count` bytes as a view into the input; empty and not ok if there are fewer.
  std::span<const std::byte> raw(std::size_t count) {
    if (count > remaining()) {
      fail();
      return {};
    }
    auto view = bytes_.subspan(at_, count);
    at_ += count;
    return view;
  }
  std::size_t remaining() const { return bytes_.size() - at_; }
  bool ok() const { return ok_; }
  /// Marks the input as malformed: a bound was broken.
  void fail() {
    ok_ = false;
    at_ = bytes_.size();
  }
  /// Every byte was read and none was missing.
  bool finished() const { return ok_ && remaining() == 0; }

 private:
  std::uint64_t little_endian(std::size_t count) {
    auto view = raw(count);
    std::uint64_t v = 0;
    for (std::size_t i = 0; i < view.size(); ++i) v |= static_cast<std::uint64_t>(view[i]) << (8 * i);
    return v;
  }
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
  bool ok_ = true;
};

}  // namespace stagecoach::base
