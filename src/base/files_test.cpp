#include "base/files.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "base/ids.h"

namespace stagecoach::base {
namespace {

class FilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "stagecoach-files-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
  }
  void TearDown() override { ASSERT_TRUE(remove_tree(directory_).ok()); }
  std::filesystem::path directory_;
};

TEST_F(FilesTest, WhatIsWrittenInPiecesIsReadWhole) {
  // Claim: pieces come out joined in order, through the mapping and through the copy; a written file is not
  // overwritten.
  const auto path = directory_ / "file";
  auto writer = FileWriter::create(path);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE(writer->write(as_bytes("post")).ok());
  ASSERT_TRUE(writer->write({}).ok());
  ASSERT_TRUE(writer->write(as_bytes("horn")).ok());
  ASSERT_TRUE(writer->finish().ok());
  EXPECT_EQ(*read_text_file(path, 8), "posthorn");
  EXPECT_EQ(as_text(MappedFile::open(path)->bytes()), "posthorn");
  EXPECT_EQ(read_text_file(path, 7).error().code, ErrorCode::too_large);
  EXPECT_EQ(FileWriter::create(path).error().code, ErrorCode::already_exists);
  EXPECT_TRUE(sync_directory(directory_).ok());
}

TEST_F(FilesTest, ATextTakesThePlaceOfTheOneBefore) {
  // Claim: whether a file was there or not, and whether it was longer or shorter; without its folder there is an error.
  const auto path = directory_ / "file";
  for (const std::string_view text : {"cart", "stagecoach", ""}) {
    ASSERT_TRUE(replace_text_file(path, text).ok());
    EXPECT_EQ(*read_text_file(path, 100), text);
  }
  EXPECT_EQ(replace_text_file(directory_ / "nowhere" / "file", "").error().code, ErrorCode::not_found);
}

TEST_F(FilesTest, RefusalsNameThePathAndTheReason) {
  // Claim: each kind of refusal has the code that a caller acts on, and its sentence names the file.
  const auto missing = directory_ / "missing";
  const auto result = MappedFile::open(missing);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::not_found);
  EXPECT_NE(result.error().message.find(missing.string()), std::string::npos);
  EXPECT_EQ(MappedFile::open(directory_).error().code, ErrorCode::io_error);
  EXPECT_EQ(file_error("write", missing, ENOSPC).code, ErrorCode::out_of_space);
  EXPECT_EQ(file_error("write", missing, EFBIG).code, ErrorCode::out_of_space);
  EXPECT_EQ(file_error("write", missing, EIO).code, ErrorCode::io_error);
}

TEST_F(FilesTest, PiecesMakeTheWholeFile) {
  // Claim: a file longer than one piece is given in order and whole; a folder and a missing file are errors.
  std::string text;
  for (int i = 0; i < 300'000; ++i) text.push_back(static_cast<char>(i % 127));
  auto writer = FileWriter::create(directory_ / "long");
  ASSERT_TRUE(writer->write(as_bytes(text)).ok());
  ASSERT_TRUE(writer->finish().ok());
  std::string read;
  const auto append = [&](std::span<const std::byte> piece) { read += as_text(piece); };
  EXPECT_TRUE(read_in_pieces(directory_ / "long", append).ok());
  EXPECT_EQ(read, text);
  EXPECT_EQ(read_in_pieces(directory_ / "missing", append).error().code, ErrorCode::not_found);
  EXPECT_EQ(read_in_pieces(directory_, append).error().code, ErrorCode::io_error);
}

TEST_F(FilesTest, AnEmptyFileMapsToNoBytes) {
  // Claim: zero bytes are a valid content, which mmap alone would refuse.
  ASSERT_TRUE(FileWriter::create(directory_ / "empty")->finish().ok());
  auto file = MappedFile::open(directory_ / "empty");
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(file->bytes().empty());
}

TEST_F(FilesTest, ALockHasOneHolder) {
  // Claim: a second taker is refused while the first lives, and served after it is gone.
  {
    auto first = FileLock::take(directory_ / "lock", {});
    ASSERT_TRUE(first.ok());
    EXPECT_EQ(FileLock::take(directory_ / "lock", {}).error().code, ErrorCode::unavailable);
  }
  EXPECT_TRUE(FileLock::take(directory_ / "lock", {}).ok());
}

TEST_F(FilesTest, AFileThatMayOnlyBeReadCanBeLocked) {
  // Claim: the lock of a key that its user has made read-only is taken, and still has one holder.
  const auto path = directory_ / "key";
  { auto file = FileWriter::create(path); ASSERT_TRUE(file.ok() && file->finish().ok()); }
  ASSERT_EQ(::chmod(path.c_str(), 0444), 0);
  ASSERT_EQ(::chmod(directory_.c_str(), 0755), 0);
  constexpr uid_t kNobody = 65534;
  const bool root = ::geteuid() == 0;  // to whom everything is writable
  ASSERT_TRUE(!root || ::seteuid(kNobody) == 0);
  auto first = FileLock::take(path, {});
  auto second = FileLock::take(path, {});
  ASSERT_TRUE(!root || ::seteuid(0) == 0);
  ASSERT_TRUE(first.ok()) << first.error().message;
  EXPECT_EQ(second.error().code, ErrorCode::unavailable);
}

TEST(Bytes32Test, HexIsReadBackAndNothingElseIs) {
  // Claim: parse_hex inverts hex and leaves the value alone on anything else.
  Bytes32 value;
  value.bytes[0] = 0xfe;
  value.bytes[31] = 0x01;
  Bytes32 read;
  ASSERT_TRUE(read.parse_hex(value.hex()));
  EXPECT_EQ(read, value);
  EXPECT_FALSE(read.parse_hex("fe"));
  EXPECT_FALSE(read.parse_hex(std::string(63, '0') + "G"));
  EXPECT_EQ(read, value);
}

}  // namespace
}  // namespace stagecoach::base
