#include "wire/codec.h"

#include <type_traits>

#include "digest/digest.h"

namespace stagecoach::wire {

using base::Bytes;
using base::Error;
using base::ErrorCode;
using base::Result;

namespace {

/// Appends fields. Takes mutable references because the messages have one fields() for both directions.
class Writer {
 public:
  explicit Writer(base::ByteWriter& out) : out_(out) {}

  void operator()(bool& v) { out_.u8(v ? 1 : 0); }
  void operator()(std::uint8_t& v) { out_.u8(v); }
  void operator()(std::uint16_t& v) { out_.u16(v); }
  void operator()(std::uint32_t& v) { out_.u32(v); }
  void operator()(std::uint64_t& v) { out_.u64(v); }
  void operator()(double& v) { out_.f64(v); }
  template <class Tag>
  void operator()(base::Id<Tag>& v) { out_.u64(v.value()); }
  void operator()(base::Bytes32& v) { out_.raw(std::as_bytes(std::span(v.bytes))); }
  void operator()(link::Address& v) { text(v.host, 255), out_.u16(v.port); }
  template <class T>
    requires requires(T& t, Writer& w) { t.fields(w); }
  void operator()(T& v) { v.fields(*this); }

  template <class E>
  void enumeration(E& v, std::uint8_t) { out_.u8(static_cast<std::uint8_t>(v)); }
  void text(std::string& v, std::size_t limit) {
    CHECK(v.size() <= limit, "a text that we send is within its bound");
    out_.u32(static_cast<std::uint32_t>(v.size()));
    out_.raw(base::as_bytes(v));
  }
  template <class T>
  void list(std::vector<T>& v, std::size_t limit) {
    CHECK(v.size() <= limit, "a list that we send is within its bound");
    out_.u32(static_cast<std::uint32_t>(v.size()));
    for (T& item : v) (*this)(item);
  }
  void payload(base::Payload& v, std::size_t limit) {
    out_.u8(v ? 1 : 0);
    if (!v) return;
    CHECK(v->size() <= limit, "a payload that we send is within its bound");
    out_.u32(static_cast<std::uint32_t>(v->size()));
    out_.raw(*v);
  }

 private:
  base::ByteWriter& out_;
};

/// Reads fields; every bound is tested before memory is taken.
class Reader {
 public:
  explicit Reader(base::ByteReader& in) : in_(in) {}

  void operator()(bool& v) {
    const std::uint8_t byte = in_.u8();
    if (byte > 1) in_.fail();
    v = byte == 1;
  }
  void operator()(std::uint8_t& v) { v = in_.u8(); }
  void operator()(std::uint16_t& v) { v = in_.u16(); }
  void operator()(std::uint32_t& v) { v = in_.u32(); }
  void operator()(std::uint64_t& v) { v = in_.u64(); }
  void operator()(double& v) { v = in_.f64(); }
  template <class Tag>
  void operator()(base::Id<Tag>& v) { v = base::Id<Tag>(in_.u64()); }
  void operator()(base::Bytes32& v) {
    const auto bytes = in_.raw(v.bytes.size());
    if (bytes.size() == v.bytes.size()) std::memcpy(v.bytes.data(), bytes.data(), bytes.size());
  }
  void operator()(link::Address& v) { text(v.host, 255), v.port = in_.u16(); }
  template <class T>
    requires requires(T& t, Reader& r) { t.fields(r); }
  void operator()(T& v) { v.fields(*this); }

  template <class E>
  void enumeration(E& v, std::uint8_t largest) {
    const std::uint8_t byte = in_.u8();
    if (byte > largest) in_.fail();
    v = static_cast<E>(byte <= largest ? byte : 0);
  }
  void text(std::string& v, std::size_t limit) {
    const std::size_t length = in_.u32();
    if (length > limit) return in_.fail();
    v = std::string(base::as_text(in_.raw(length)));
  }
  template <class T>
  void list(std::vector<T>& v, std::size_t limit) {
    const std::size_t count = in_.u32();
    // Every item takes at least one byte, so a count beyond what is left is a lie, whatever the bound allows.
    if (count > limit || count > in_.remaining()) return in_.fail();
    v.clear();
    for (std::size_t i = 0; i < count && in_.ok(); ++i) (*this)(v.emplace_back());
  }
  void payload(base::Payload& v, std::size_t limit) {
    bool present = false;
    (*this)(present);
    v = nullptr;
    if (!present) return;
    const std::size_t length = in_.u32();
    if (length > limit) return in_.fail();
    const auto bytes = in_.raw(length);
    if (in_.ok()) v = base::make_payload(Bytes(bytes.begin(), bytes.end()));
  }

 private:
  base::ByteReader& in_;
};

constexpr std::size_t kHashAt = kFrameHeaderBytes - 8;

void write_header(base::ByteWriter& out, MessageType type, link::Priority priority, const Stamps& s) {
  CHECK(s.stage.value() <= 0xffffffff, "a stage index fits its four bytes of the header");
  out.u32(kFrameMagic);
  out.u8(static_cast<std::uint8_t>(kProtocolVersion));
  out.u8(static_cast<std::uint8_t>(type));
  out.u8(static_cast<std::uint8_t>(priority));
  out.u8(0);   // reserved, must be zero
  out.u32(0);  // body length, filled in when it is known
  out.u32(s.tokens);
  out.u32(static_cast<std::uint32_t>(s.stage.value()));
  out.u32(s.number);
  out.u64(s.step.value());
  out.u64(s.attempt.value());
  out.u64(s.from_view.value());
  out.u64(s.to_view.value());
  out.u64(s.microbatch.value());
  out.u64(s.version.value());
  out.u64(0);  // hash, filled in last
}

void put_little_endian(Bytes& bytes, std::size_t at, std::uint64_t value, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) bytes[at + i] = static_cast<std::byte>(value >> (8 * i));
}

/// xxh3 over the header before the hash and the body, in this order.
std::uint64_t frame_hash(std::span<const std::byte> frame) {
  const std::uint64_t header = digest::xxh3(frame.first(kHashAt));
  const std::uint64_t body = digest::xxh3(frame.subspan(kFrameHeaderBytes));
  return header ^ (body * 0x9e3779b97f4a7c15ull);
}

Error bad(std::string what) { return Error{ErrorCode::corrupt, "frame: " + std::move(what)}; }

Error unknown_type(MessageType type) {
  switch (type) {
    case MessageType::fence: return bad("fence is reserved for local repair, which this version does not speak");
    case MessageType::report: return bad("report is reserved for local repair, which this version does not speak");
    case MessageType::sync: return bad("sync is reserved for local repair, which this version does not speak");
    default: return bad("message type " + std::to_string(static_cast<int>(type)) + " is unknown");
  }
}

template <class M>
Result<Message> read_body(std::span<const std::byte> body, const Stamps& stamps) {
  M message;
  if constexpr (Traits<M>::stamped) {
    message.stamps = stamps;
  } else if (stamps != Stamps{}) {
    return bad(std::string(Traits<M>::text) + " carries stamps, which a control message does not");
  }
  base::ByteReader in(body);
  Reader reader(in);
  message.fields(reader);
  if (!in.finished()) return bad(std::string(Traits<M>::text) + " has a body that is too short, too long or out of bounds");
  return Message(std::move(message));
}

/// Finds the alternative of Message whose number is `type`.
template <std::size_t I = 0>
Result<Message> dispatch(MessageType type, link::Priority priority, std::span<const std::byte> body, const Stamps& stamps) {
  if constexpr (I == std::variant_size_v<Message>) {
    return unknown_type(type);
  } else {
    using M = std::variant_alternative_t<I, Message>;
    if (Traits<M>::type != type) return dispatch<I + 1>(type, priority, body, stamps);
    if (Traits<M>::priority != priority) return bad(std::string(Traits<M>::text) + " came in the wrong class");
    return read_body<M>(body, stamps);
  }
}

}  // namespace

Bytes encode(const Message& message) {
  return std::visit(
      [](const auto& m) {
        using M = std::decay_t<decltype(m)>;
        Stamps stamps;
        if constexpr (Traits<M>::stamped) stamps = m.stamps;
        base::ByteWriter out;
        write_header(out, Traits<M>::type, Traits<M>::priority, stamps);
        Writer writer(out);
        const_cast<M&>(m).fields(writer);  // fields() is shared with the reader; the writer changes nothing
        Bytes frame = out.take();
        put_little_endian(frame, 8, frame.size() - kFrameHeaderBytes, 4);
        put_little_endian(frame, kHashAt, frame_hash(frame), 8);
        return frame;
      },
      message);
}

Result<Message> decode(std::span<const std::byte> frame) {
  if (frame.size() < kFrameHeaderBytes) return bad("shorter than a header");
  base::ByteReader in(frame.first(kFrameHeaderBytes));
  if (in.u32() != kFrameMagic) return bad("wrong magic");
  if (const int version = in.u8(); version != kProtocolVersion) {
    return Error{ErrorCode::mismatch, "the peer speaks protocol version " + std::to_string(version) + ", we speak " +
                                          std::to_string(kProtocolVersion) + ": update the older of the two"};
  }
  const auto type = static_cast<MessageType>(in.u8());
  const auto priority = static_cast<link::Priority>(in.u8());
  if (in.u8() != 0) return bad("a reserved byte is not zero");
  if (in.u32() != frame.size() - kFrameHeaderBytes) return bad("the announced length is not the frame's");
  Stamps stamps;
  stamps.tokens = in.u32();
  stamps.stage = base::StageIndex(in.u32());
  stamps.number = in.u32();
  stamps.step = base::Step(in.u64());
  stamps.attempt = base::Attempt(in.u64());
  stamps.from_view = base::ViewNumber(in.u64());
  stamps.to_view = base::ViewNumber(in.u64());
  stamps.microbatch = base::MicrobatchIndex(in.u64());
  stamps.version = base::WeightVersion(in.u64());
  if (in.u64() != frame_hash(frame)) return bad("the hash does not match: the bytes were changed on the way");
  return dispatch(type, priority, frame.subspan(kFrameHeaderBytes), stamps);
}

const char* name_of(const Message& message) {
  return std::visit([](const auto& m) { return Traits<std::decay_t<decltype(m)>>::text; }, message);
}

link::Priority priority_of(const Message& message) {
  return std::visit([](const auto& m) { return Traits<std::decay_t<decltype(m)>>::priority; }, message);
}

const Stamps* stamps_of(const Message& message) {
  return std::visit(
      [](const auto& m) -> const Stamps* {
        if constexpr (Traits<std::decay_t<decltype(m)>>::stamped) return &m.stamps;
        else return nullptr;
      },
      message);
}

}  // namespace stagecoach::wire
