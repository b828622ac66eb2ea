// Sample messages and forged frames for this folder's tests and fuzzers.
//
// In:      a message type, by its place in wire::Message. Out: a message with every field filled, and where its parts
// lie in bytes. Thread:  any; pure. Why:     the visitors here go through fields() without the codec's reader and
// writer, so that they can tell when those are wrong,
//          and cover a new message type without a line being written for it. Not part of the program.
#pragma once

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "digest/digest.h"
#include "wire/codec.h"

namespace stagecoach::wire::test {

/// Every field of the header by its offset (docs/formats/frames.md), so that a moved field is noticed.
inline constexpr std::size_t kVersionAt = 4, kTypeAt = 5, kClassAt = 6, kReservedAt = 7, kLengthAt = 8, kStampsAt = 12,
                             kHashAt = 72;

inline void put(base::Bytes& bytes, std::size_t at, std::uint64_t value, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) bytes[at + i] = static_cast<std::byte>(value >> (8 * i));
}

/// Makes the hash right, as a hostile peer can.
inline void rehash(base::Bytes& frame) {
  const std::span<const std::byte> bytes(frame);
  const std::uint64_t body = digest::xxh3(bytes.subspan(kFrameHeaderBytes));
  put(frame, kHashAt, digest::xxh3(bytes.first(kHashAt)) ^ (body * 0x9e3779b97f4a7c15ull), 8);
}

/// Makes length and hash right, whatever else was done to the frame.
inline void seal(base::Bytes& frame) {
  put(frame, kLengthAt, frame.size() - kFrameHeaderBytes, 4);
  rehash(frame);
}

inline constexpr std::size_t kNoField = std::numeric_limits<std::size_t>::max();

/// Fills a message so that every number in it is different and no two bytes of a number are swapped unnoticed.
class Filler {
 public:
  /// `full` is the place, in the order of visits, of the one text, list or payload that gets as many elements as its
  /// bound allows.
  explicit Filler(std::size_t full = kNoField) : full_(full) {}

  void operator()(bool& v) { v = true; }
  void operator()(std::uint8_t& v) { v = static_cast<std::uint8_t>(++count_); }
  void operator()(std::uint16_t& v) { v = static_cast<std::uint16_t>(0x2100 + ++count_); }
  void operator()(std::uint32_t& v) { v = 0x41000000u + ++count_; }
  void operator()(std::uint64_t& v) { v = 0x8100000000000000u + ++count_; }
  void operator()(double& v) { v = ++count_ + 0.5; }
  template <class Tag>
  void operator()(base::Id<Tag>& v) {
    v = base::Id<Tag>(0x8100000000000000u + ++count_);
  }
  void operator()(base::Bytes32& v) { std::iota(v.bytes.begin(), v.bytes.end(), static_cast<std::uint8_t>(++count_)); }
  void operator()(link::Address& v) { text(v.host, 255), (*this)(v.port); }
  template <class T>
    requires requires(T& t, Filler& f) { t.fields(f); }
  void operator()(T& v) {
    v.fields(*this);
  }

  template <class E>
  void enumeration(E& v, std::uint8_t largest) {
    v = static_cast<E>(largest);
  }
  void text(std::string& v, std::size_t limit) {
    const bool is_full = next_is_full();
    v = "t" + std::to_string(++count_);
    if (is_full) v.resize(limit, 'x');
  }
  template <class T>
  void list(std::vector<T>& v, std::size_t limit) {
    v.assign(next_is_full() ? limit : depth_ == 0 ? 2 : 1, T{});
    ++depth_;
    for (T& item : v) (*this)(item);
    --depth_;
  }
  void payload(base::Payload& v, std::size_t limit) {
    const std::size_t bytes = next_is_full() ? limit : 3;
    v = base::make_payload(base::Bytes(bytes, static_cast<std::byte>(++count_)));
  }
  void stamps(Stamps& s) {
    auto& [stage, step, attempt, from_view, to_view, microbatch, number, version, tokens] = s;
    stage = base::StageIndex(0x41000000u + ++count_);
    (*this)(step), (*this)(attempt), (*this)(from_view), (*this)(to_view), (*this)(microbatch), (*this)(number),
        (*this)(version);
    (*this)(tokens);
  }

 private:
  bool next_is_full() { return lengths_++ == full_; }
  std::size_t full_;
  std::size_t lengths_ = 0;
  std::uint32_t count_ = 0;
  int depth_ = 0;
};

/// Writes down every value in a message as text: what a round trip must not change.
class Lister {
 public:
  std::vector<std::string> values;
  std::size_t own_fields = 0;  // of the message itself, not of what is in it

  template <class T>
    requires std::is_arithmetic_v<T>
  void operator()(T& v) {
    add(std::to_string(v));
  }
  template <class Tag>
  void operator()(base::Id<Tag>& v) {
    add(std::to_string(v.value()));
  }
  void operator()(base::Bytes32& v) { add(v.hex()); }
  void operator()(link::Address& v) { add(v.host + " port " + std::to_string(v.port)); }
  template <class T>
    requires requires(T& t, Lister& l) { t.fields(l); }
  void operator()(T& v) {
    own_fields += depth_ == 0;
    ++depth_;
    v.fields(*this);
    --depth_;
  }
  template <class E>
  void enumeration(E& v, std::uint8_t) {
    add(std::to_string(static_cast<int>(v)));
  }
  void text(std::string& v, std::size_t) { add(v); }
  template <class T>
  void list(std::vector<T>& v, std::size_t) {
    add("list of " + std::to_string(v.size()));
    ++depth_;
    for (T& item : v) (*this)(item);
    --depth_;
  }
  void payload(base::Payload& v, std::size_t) { add(v ? "payload " + std::string(base::as_text(*v)) : "none"); }

 private:
  void add(std::string value) {
    own_fields += depth_ == 0;
    values.push_back(std::move(value));
  }
  int depth_ = 0;
};

/// Computes where the parts of a body lie, from the sizes in docs/formats/frames.md.
class Ruler {
 public:
  struct Length {        // a u32 that counts elements
    std::size_t at = 0;  // in the frame
    std::size_t count = 0;
    std::size_t limit = 0;
    std::size_t last_begin = 0;  // of the last element
    std::size_t end = 0;         // of the last element
  };
  struct Choice {  // a byte of which only 0 … largest are legal
    std::size_t at = 0;
    std::uint8_t largest = 0;
  };
  std::vector<Length> lengths;  // in the order of visits: Filler's `full` counts the same way
  std::vector<Choice> choices;
  std::size_t at = kFrameHeaderBytes;

  void operator()(bool&) { choice(1); }
  template <class T>
    requires std::is_arithmetic_v<T>
  void operator()(T&) {
    at += sizeof(T);
  }
  template <class Tag>
  void operator()(base::Id<Tag>&) {
    at += 8;
  }
  void operator()(base::Bytes32&) { at += 32; }
  void operator()(link::Address& v) { text(v.host, 255), at += 2; }
  template <class T>
    requires requires(T& t, Ruler& r) { t.fields(r); }
  void operator()(T& v) {
    v.fields(*this);
  }
  template <class E>
  void enumeration(E&, std::uint8_t largest) {
    choice(largest);
  }
  void text(std::string& v, std::size_t limit) { elements(v.size(), limit); }
  template <class T>
  void list(std::vector<T>& v, std::size_t limit) {
    const std::size_t index = lengths.size();
    lengths.push_back({at, v.size(), limit});
    at += 4;
    for (T& item : v) {
      lengths[index].last_begin = at;
      (*this)(item);
    }
    lengths[index].end = at;
  }
  void payload(base::Payload& v, std::size_t limit) {
    choice(1);
    if (v) elements(v->size(), limit);
  }

 private:
  void choice(std::uint8_t largest) { choices.push_back({at++, largest}); }
  void elements(std::size_t count, std::size_t limit) {
    const std::size_t first = at + 4;
    lengths.push_back({at, count, limit, first + count - (count > 0), first + count});
    at = first + count;
  }
};

/// The I-th message type, filled.
template <std::size_t I>
Message filled(std::size_t full = kNoField) {
  using M = std::variant_alternative_t<I, Message>;
  M message;
  Filler filler(full);
  if constexpr (Traits<M>::stamped) filler.stamps(message.stamps);
  message.fields(filler);
  return message;
}

/// Calls `f` with one index constant per message type.
template <class F>
void for_each_type(F f) {
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    (f(std::integral_constant<std::size_t, I>{}), ...);
  }(std::make_index_sequence<std::variant_size_v<Message>>{});
}

/// One filled message of each type.
inline std::vector<Message> samples() {
  std::vector<Message> all;
  for_each_type([&](auto index) { all.push_back(filled<index()>()); });
  return all;
}

/// One message of each type as it is born: zeros, empty texts and lists, no payloads.
inline std::vector<Message> empty_samples() {
  std::vector<Message> all;
  for_each_type([&](auto index) { all.emplace_back(std::variant_alternative_t<index(), Message>{}); });
  return all;
}

/// Lets `visitor` (a Lister or a Ruler) see the fields of `message`.
template <class V>
V visited(Message message, V visitor = {}) {
  std::visit([&](auto& m) { m.fields(visitor); }, message);
  return visitor;
}

}  // namespace stagecoach::wire::test
