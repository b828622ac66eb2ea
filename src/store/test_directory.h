// A folder of its own for each test, gone afterwards, and small things that the store's tests share.
//
// Thread:  the test's.
// Why:     tests of one program run side by side and must not meet in a path.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/tensor_bytes.h"

namespace stagecoach::store {

class DirectoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "stagecoach-store-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
  }
  void TearDown() override { ASSERT_TRUE(base::remove_tree(directory_).ok()); }

  static std::string contents(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  /// Writes `text` over whatever is at `path`.
  static void overwrite(const std::filesystem::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
  }

  std::filesystem::path directory_;
};

inline base::Payload payload_of(const std::string& bytes) {
  const auto view = base::as_bytes(bytes);
  return base::make_payload(base::Bytes(view.begin(), view.end()));
}

inline base::NamedTensor float_tensor(std::string name, std::vector<std::int64_t> shape,
                                      const std::vector<float>& values) {
  base::ByteWriter out;
  for (const float value : values) out.u32(std::bit_cast<std::uint32_t>(value));
  return {std::move(name), {base::DType::f32, std::move(shape), base::make_payload(out.take())}};
}

inline bool same_tensor(const base::NamedTensor& a, const base::NamedTensor& b) {
  return a.name == b.name && a.tensor.dtype == b.tensor.dtype && a.tensor.shape == b.tensor.shape &&
         base::same_bytes(a.tensor.bytes, b.tensor.bytes);
}

}  // namespace stagecoach::store
