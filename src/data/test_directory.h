// A folder of its own for each test, gone afterwards.
//
// Thread:  the test's.
// Why:     tests of one program run side by side and must not meet in a path.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/files.h"

namespace stagecoach::data {

class DirectoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "stagecoach-data-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
  }
  void TearDown() override { ASSERT_TRUE(base::remove_tree(directory_).ok()); }

  /// Writes `text` over whatever is at `path`.
  static void overwrite(const std::filesystem::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
  }

  std::filesystem::path directory_;
};

}  // namespace stagecoach::data
