#include "data/blocks.h"

#include <gmock/gmock.h>
#include <zlib.h>
#include <zstd.h>

#include "data/byte_stream.h"
#include "data/test_directory.h"
#include "digest/digest.h"

namespace stagecoach::data {
namespace {

using base::ErrorCode;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string gzip(const std::string& text) {
  z_stream state{};
  EXPECT_EQ(::deflateInit2(&state, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(::deflateBound(&state, text.size()) + 64, '\0');
  state.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  state.avail_in = static_cast<uInt>(text.size());
  state.next_out = reinterpret_cast<Bytef*>(out.data());
  state.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(::deflate(&state, Z_FINISH), Z_STREAM_END);
  out.resize(state.total_out);
  ::deflateEnd(&state);
  return out;
}

std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 1));
  return out;
}

/// Lines of different lengths, about `bytes` in all.
std::string lines_of(std::size_t bytes) {
  std::string text;
  for (std::size_t i = 0; text.size() < bytes; ++i)
    text += std::string(i * 37 % 301, static_cast<char>('a' + i % 26)) + "\n";
  return text;
}

class BlocksTest : public DirectoryTest {
 protected:
  Input file(const std::string& name, const std::string& bytes, InputFormat format,
             Compression compression = Compression::none) {
    overwrite(directory_ / name, bytes);
    return {
        .name = name, .path = directory_ / name, .format = format, .compression = compression, .bytes = bytes.size()};
  }
  static std::vector<Block> read(const Input& input, const Place& from = {}) {
    std::vector<Block> blocks;
    auto reader = BlockReader::open(input, 3, from, {});
    EXPECT_TRUE(reader.ok());
    while (true) {
      auto block = (*reader)->next();
      EXPECT_TRUE(block.ok());
      if (!block.ok() || !*block) return blocks;
      blocks.push_back(std::move(**block));
    }
  }
  static std::string joined(const std::vector<Block>& blocks) {
    std::string text;
    for (const Block& block : blocks) text += block.bytes;
    return text;
  }
};

TEST_F(BlocksTest, ThePackedTextComesBackWhole) {
  // Claim: plain, gzip of two members and zstd of two frames give the same bytes in the same blocks, and the hash and
  // size are those of the file as it lies there.
  const std::string text = lines_of(3'500'000);
  const std::string a = text.substr(0, 1'700'001), b = text.substr(1'700'001);
  const std::string packed[] = {text, gzip(a) + gzip(b), zstd(a) + zstd(b)};
  const Compression kinds[] = {Compression::none, Compression::gzip, Compression::zstd};
  std::vector<Place> places;
  for (std::size_t k = 0; k < 3; ++k) {
    const Input input = file("t" + std::to_string(k), packed[k], InputFormat::lines, kinds[k]);
    const auto blocks = read(input);
    EXPECT_EQ(joined(blocks), text);
    std::vector<Place> own;
    for (const Block& block : blocks) {
      own.push_back(block.at);
      EXPECT_LE(block.bytes.size(), kBlockBytes);
      EXPECT_TRUE(block.bytes.empty() || block.bytes.ends_with('\n'));
    }
    if (k == 0) places = own;
    EXPECT_EQ(own, places);
    ASSERT_TRUE(blocks.back().source_end.has_value());
    EXPECT_EQ(*blocks.back().source_end, (SourceEnd{packed[k].size(), digest::sha256(packed[k])}));
    EXPECT_EQ(blocks.back().raw_bytes, packed[k].size());
  }
}

TEST_F(BlocksTest, EveryBlockIsAPlaceToBeginAgain) {
  // Claim: reading from where a block began gives that block and all after it, in text and in lines.
  const std::string text = lines_of(4'000'000);
  for (const InputFormat format : {InputFormat::text, InputFormat::jsonl}) {
    const Input input = file("t", zstd(text), format, Compression::zstd);
    const auto all = read(input);
    ASSERT_GE(all.size(), 4u);
    for (std::size_t i = 0; i < all.size(); ++i) {
      const auto rest = read(input, all[i].at);
      ASSERT_EQ(rest.size(), all.size() - i);
      for (std::size_t j = 0; j < rest.size(); ++j) {
        EXPECT_EQ(rest[j].bytes, all[i + j].bytes);
        EXPECT_EQ(rest[j].at, all[i + j].at);
        EXPECT_EQ(rest[j].opens, all[i + j].opens);
        EXPECT_EQ(rest[j].closes, all[i + j].closes);
      }
      EXPECT_EQ(rest.back().source_end, all.back().source_end);
    }
  }
}

TEST_F(BlocksTest, ATextIsCutAfterLinesOrBetweenCharacters) {
  // Claim: a piece ends with the last newline of its first 128 KiB; without one no character of UTF-8 is cut in two.
  EXPECT_EQ(piece_bytes("no newline, and short"), 21u);
  std::string text(kPieceBytes + 10, 'a');
  EXPECT_EQ(piece_bytes(text), kPieceBytes);
  text[1000] = '\n';
  EXPECT_EQ(piece_bytes(text), 1001u);
  for (std::size_t shift = 0; shift < 4; ++shift) {
    std::string wide(shift, 'a');
    while (wide.size() < 2 * kPieceBytes) wide += "\xf0\x9f\x9a\x8b";  // four bytes
    EXPECT_EQ((piece_bytes(wide) - shift) % 4, 0u);
    EXPECT_GT(piece_bytes(wide), kPieceBytes - 4);
  }
  EXPECT_EQ(piece_bytes(std::string(kPieceBytes + 1, '\x80')), kPieceBytes) << "what is not UTF-8 is cut anywhere";
  // The pieces of the blocks are those of the whole text.
  std::string text_of_lines = lines_of(3'000'000) + std::string(300'000, 'x') + "\n" + lines_of(200'000);
  std::vector<std::size_t> of_whole, of_blocks;
  const auto cut = [](std::string_view left, std::vector<std::size_t>& pieces) {
    for (; !left.empty(); left.remove_prefix(pieces.back())) pieces.push_back(piece_bytes(left));
  };
  cut(text_of_lines, of_whole);
  for (const Block& block : read(file("t", text_of_lines, InputFormat::text))) cut(block.bytes, of_blocks);
  EXPECT_EQ(of_blocks, of_whole);
}

TEST_F(BlocksTest, CutOffFilesKeepWhatIsWhole) {
  // Claim: the lines before the cut come, the torn one does not, and the file is named with the byte at which it ends.
  const std::string text = lines_of(2'000'000);
  const std::pair<std::string, Compression> packed[] = {{gzip(text), Compression::gzip},
                                                        {zstd(text), Compression::zstd}};
  for (const auto& [bytes, kind] : packed) {
    const std::string cut = bytes.substr(0, bytes.size() / 2);
    const auto blocks = read(file("cut", cut, InputFormat::jsonl, kind));
    const std::string got = joined(blocks);
    EXPECT_FALSE(got.empty());
    EXPECT_TRUE(text.starts_with(got));
    EXPECT_TRUE(got.ends_with('\n'));
    ASSERT_EQ(blocks.back().broken.size(), 1u);
    EXPECT_EQ(blocks.back().broken[0].where, "cut");
    EXPECT_THAT(blocks.back().broken[0].why,
                AllOf(HasSubstr("in the middle"), HasSubstr("byte " + std::to_string(cut.size()))));
    EXPECT_EQ(blocks.back().source_end->sha256, digest::sha256(cut));
  }
  const auto foreign = read(file("plain", "this is not packed", InputFormat::text, Compression::gzip));
  ASSERT_EQ(foreign.size(), 1u);
  EXPECT_THAT(foreign[0].broken.at(0).why, HasSubstr("is not gzip"));
  EXPECT_EQ(read(file("none", "", InputFormat::text, Compression::zstd)).at(0).broken.size(), 1u);
}

TEST_F(BlocksTest, ALineWithoutEndIsPassedOver) {
  // Claim: a line beyond the limit is broken, is not held, and the lines around it come; one just below it comes.
  const std::string before = "first\n", after = "last\n";
  const std::string bytes = before + std::string(kDocumentBytesMax + 3 * kBlockBytes, 'x') + "\n" + after;
  const auto blocks = read(file("long", zstd(bytes), InputFormat::jsonl, Compression::zstd));
  EXPECT_EQ(joined(blocks), before + after);
  std::vector<Broken> broken;
  for (const Block& block : blocks) broken.insert(broken.end(), block.broken.begin(), block.broken.end());
  ASSERT_EQ(broken.size(), 1u);
  EXPECT_EQ(broken[0].where, "long line 2 (byte 6 of its unpacked text)");
  EXPECT_THAT(broken[0].why, HasSubstr("67108864 bytes"));
  EXPECT_EQ(blocks.back().at.record, 2u) << "the last line is line 3";
  const std::string wide = std::string(kDocumentBytesMax - kBlockBytes, 'x') + "\n";
  EXPECT_EQ(joined(read(file("wide", wide, InputFormat::lines))), wide);
}

TEST_F(BlocksTest, AnEmptyFileIsOneEmptyBlock) {
  // Claim: it opens and closes a document without text, so that it can be counted.
  const auto blocks = read(file("empty", "", InputFormat::text));
  ASSERT_EQ(blocks.size(), 1u);
  EXPECT_TRUE(blocks[0].opens && blocks[0].closes && blocks[0].bytes.empty() && blocks[0].source_end.has_value());
}

TEST_F(BlocksTest, InputsAreKnownByTheirEndings) {
  // Claim: the ending says format and packing; an unknown one, a folder and a missing file are refused in words.
  overwrite(directory_ / "a.jsonl.zst", "x");
  overwrite(directory_ / "a.csv", "x");
  const auto input = input_of((directory_ / "a.jsonl.zst").string(), {});
  ASSERT_TRUE(input.ok());
  EXPECT_EQ(input->format, InputFormat::jsonl);
  EXPECT_EQ(input->compression, Compression::zstd);
  EXPECT_EQ(input->bytes, 1u);
  EXPECT_THAT(input_of((directory_ / "a.csv").string(), {}).error().message,
              AllOf(HasSubstr("a.csv"), HasSubstr("--format")));
  EXPECT_EQ(input_of((directory_ / "a.csv").string(), {"lines"})->format, InputFormat::lines);
  EXPECT_THAT(input_of((directory_ / "a.csv").string(), {"xml"}).error().message, HasSubstr("xml"));
  EXPECT_THAT(input_of(directory_.string(), {}).error().message, HasSubstr("is a folder"));
  EXPECT_EQ(input_of((directory_ / "none.txt").string(), {}).error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace stagecoach::data
