#include "store/safetensors.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "base/prng.h"
#include "digest/digest.h"
#include "store/test_directory.h"

namespace stagecoach::store {
namespace {

using base::DType;
using base::ErrorCode;
using ::testing::HasSubstr;

class SafetensorsTest : public DirectoryTest {
 protected:
  std::filesystem::path path() const { return directory_ / "tensors.safetensors"; }
};

/// A file with this header and `data_bytes` zeros after it.
std::string file_with(const std::string& header, std::size_t data_bytes) {
  base::ByteWriter length;
  length.u64(header.size());
  return std::string(base::as_text(length.take())) + header + std::string(data_bytes, '\0');
}

TEST_F(SafetensorsTest, TheFileIsThatOfTheFormat) {
  // Claim: byte for byte what the format's README says, put together by hand: the float before the bfloat16, the
  // header padded with spaces to 8 bytes.
  const std::vector<base::NamedTensor> tensors = {
      {"b", {DType::bf16, {2}, payload_of(std::string("\x80\x3f\x00\x40", 4))}},
      float_tensor("w", {1, 2}, {1.0f, -2.0f})};
  const auto written = write_safetensors(path(), tensors, {{"step", "100"}});
  ASSERT_TRUE(written.ok()) << written.error().message;
  const std::string header = R"({"__metadata__":{"step":"100"},"b":{"data_offsets":[8,12],"dtype":"BF16","shape":[2]},)"
                             R"("w":{"data_offsets":[0,8],"dtype":"F32","shape":[1,2]}}   )";
  ASSERT_EQ(header.size() % 8, 0u);
  const std::string expected = std::string(1, static_cast<char>(header.size())) + std::string(7, '\0') + header +
                               std::string("\x00\x00\x80\x3f\x00\x00\x00\xc0\x80\x3f\x00\x40", 12);
  EXPECT_EQ(contents(path()), expected);
  EXPECT_EQ(written->bytes, expected.size());
  EXPECT_EQ(written->sha256, digest::sha256(expected));
}

TEST_F(SafetensorsTest, WhatWasWrittenIsRead) {
  // Claim: all four types, scalars, empty tensors and metadata come back bit for bit, NaN and −0 included.
  const std::vector<base::NamedTensor> tensors = {
      float_tensor("norm", {3}, {std::bit_cast<float>(0x7fc00001u), -0.0f, 1e-45f}),
      {"half", {DType::bf16, {1, 3}, payload_of("abcdef")}},
      {"long", {DType::i64, {}, payload_of("12345678")}},
      {"int", {DType::i32, {2}, payload_of("ABCDEFGH")}},
      {"none", {DType::f32, {4, 0}, payload_of("")}}};
  ASSERT_TRUE(write_safetensors(path(), tensors, {{"a", "1"}, {"b", "text with \"quotes\""}}).ok());
  const auto file = SafetensorsFile::open(path());
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->metadata().at("b"), "text with \"quotes\"");
  ASSERT_EQ(file->entries().size(), tensors.size());
  for (const TensorEntry& entry : file->entries()) {
    const auto original =
        std::find_if(tensors.begin(), tensors.end(), [&](const auto& t) { return t.name == entry.name; });
    ASSERT_NE(original, tensors.end());
    EXPECT_TRUE(same_tensor(file->read(entry), *original)) << entry.name;
  }
}

TEST_F(SafetensorsTest, TensorsThatContradictThemselvesAreNotWritten) {
  // Claim: a name twice, the format's own name, a shape of another size and a missing tensor are refused, and an old
  // file stays.
  const auto good = float_tensor("w", {2}, {1, 2});
  const auto refused = [&](const std::vector<base::NamedTensor>& tensors) {
    return write_safetensors(path(), tensors, {}).error().code == ErrorCode::invalid_argument;
  };
  EXPECT_TRUE(refused({good, good}));
  EXPECT_TRUE(refused({float_tensor("__metadata__", {1}, {1})}));
  EXPECT_TRUE(refused({float_tensor("w", {3}, {1, 2})}));
  EXPECT_TRUE(refused({float_tensor("w", {-2}, {1, 2})}));
  EXPECT_TRUE(refused({{"w", {DType::f32, {0}, nullptr}}}));
  ASSERT_TRUE(write_safetensors(path(), std::span(&good, 1), {}).ok());
  EXPECT_EQ(write_safetensors(path(), std::span(&good, 1), {}).error().code, ErrorCode::already_exists);
}

TEST_F(SafetensorsTest, HostileHeadersAreErrors) {
  // Claim: each way in which a header can lie is refused, with its reason, without reading outside the file.
  const std::string good = R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  ASSERT_TRUE(parse_safetensors(base::as_bytes(file_with(good, 8))).ok());
  struct Case {
    std::string header;
    std::size_t data_bytes;
    const char* reason;
  };
  const Case cases[] = {
      {good, 7, "truncated or too long"},
      {good, 9, "truncated or too long"},
      {"", 8, "not JSON"},
      {"[]", 8, "not JSON"},
      {R"({"w":1})", 0, "not described"},
      {R"({"w":{"dtype":"F32","shape":[2]}})", 8, "not described"},
      {R"({"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8, "bytes that its shape takes"},
      {R"({"w":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8, "no lists of sizes"},
      {R"({"w":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8, "no lists of sizes"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, "no lists of sizes"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}})", 8, "no lists of sizes"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}})", 8, "no lists of sizes"},
      {R"({"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0,
       "bytes that its shape takes"},
      {R"({"w":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})", 8, "element type"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12, "gap"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"v":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
       12, "gap"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
       8, "twice"},
      {R"({"__metadata__":{"a":1}})", 0, "metadata"},
  };
  for (const Case& c : cases) {
    const auto header = parse_safetensors(base::as_bytes(file_with(c.header, c.data_bytes)));
    ASSERT_FALSE(header.ok()) << c.header;
    EXPECT_THAT(header.error().message, HasSubstr(c.reason)) << c.header;
  }
  for (const std::string& file :
       {std::string("short"), std::string(8, '\xff'), std::string("\x09\0\0\0\0\0\0\0{}", 10)}) {
    EXPECT_EQ(parse_safetensors(base::as_bytes(file)).error().code, ErrorCode::corrupt);
  }
}

TEST_F(SafetensorsTest, DamagedFilesNeverGiveTensorsOutsideTheFile) {
  // Claim: 20,000 random damages (bytes changed, cut off, doubled) either fail or describe tensors inside the file.
  const std::vector<base::NamedTensor> tensors = {float_tensor("w", {2, 2}, {1, 2, 3, 4}), float_tensor("v", {1}, {5})};
  ASSERT_TRUE(write_safetensors(path(), tensors, {{"k", "v"}}).ok());
  const std::string good = contents(path());
  base::Prng prng(11);
  for (int round = 0; round < 20'000; ++round) {
    std::string bad = good;
    for (std::uint64_t i = 0; i <= prng.below(3); ++i) bad[prng.below(bad.size())] = static_cast<char>(prng.next());
    if (prng.below(4) == 0) bad.resize(prng.below(bad.size()));
    if (prng.below(4) == 0) bad += bad.substr(prng.below(bad.size() + 1));
    const auto header = parse_safetensors(base::as_bytes(bad));
    if (!header.ok()) continue;
    for (const TensorEntry& entry : header->entries) {
      ASSERT_LE(entry.begin, entry.end);
      ASSERT_LE(header->data_offset + entry.end, bad.size());
      ASSERT_EQ(*tensor_size_bytes(entry.dtype, entry.shape), entry.end - entry.begin);
    }
  }
}

}  // namespace
}  // namespace stagecoach::store
