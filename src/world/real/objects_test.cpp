#include "world/real/objects.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <mutex>
#include <optional>
#include <sstream>

#include "digest/digest.h"
#include "world/real/mailbox.h"

namespace stagecoach::world::real {
namespace {

namespace fs = std::filesystem;

class Objects : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "objects-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
  }
  void TearDown() override { fs::remove_all(root_); }

  static void write(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }
  static std::string read(const fs::path& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  static wire::ObjectRef ref(const std::string& name, const std::string& text) { return {name, text.size(), digest::sha256(text)}; }
  std::size_t files_in(const fs::path& folder) const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
  }

  /// Fetches from a server in the same process, as fast as the threads go; `before_last` runs before the last chunk is handed over.
  base::Result<void> fetch(const ObjectServer& server, const wire::ObjectRef& object, const std::function<void()>& before_last = {}) {
    WorkThread disk("disk");
    std::mutex mutex;
    std::condition_variable ready;
    std::deque<std::function<void()>> calls;
    const auto on_loop = [&](std::function<void()> call) {
      std::lock_guard lock(mutex);
      calls.push_back(std::move(call));
      ready.notify_one();
    };
    std::optional<base::Result<void>> result;
    ObjectFetcher* self = nullptr;
    ObjectFetcher::Options options;
    options.cache = root_ / "cache";
    options.disk = &disk;
    options.on_loop = on_loop;
    options.done = [&](base::Result<void> done) { result = std::move(done); };
    options.request = [&](wire::ObjectRequest request) {
      on_loop([&, request] {
        if (request.offset + request.length == object.bytes && before_last) before_last();
        auto chunk = server.read(request);
        self->on_chunk(chunk);
      });
    };
    ObjectFetcher fetcher(std::move(options));
    self = &fetcher;
    fetcher.start({object});
    while (!result) {
      std::unique_lock lock(mutex);
      ready.wait(lock, [&] { return !calls.empty(); });
      auto call = std::move(calls.front());
      calls.pop_front();
      lock.unlock();
      call();
    }
    return *result;
  }

  fs::path root_;
};

// Claim: a name that holds other bytes than the fetched file gets the fetched file's, and nothing else is left in the folder,
// however often it is laid out.
TEST_F(Objects, an_old_damaged_file_of_the_name_is_replaced) {
  const std::vector<wire::ObjectRef> objects = {ref("shard-0.bin", "good"), ref("manifest.json", "{}")};
  for (const auto& object : objects) write(root_ / object.sha256.hex(), object.name == "manifest.json" ? "{}" : "good");
  const fs::path folder = root_ / ("shards-" + objects[1].sha256.hex());
  fs::create_directories(folder);
  write(folder / "shard-0.bin", "evil");
  for (int time = 0; time < 3; ++time) {
    const auto laid = lay_out_objects(root_, objects);
    ASSERT_TRUE(laid.ok()) << laid.error().message;
    EXPECT_EQ(*laid, folder);
    EXPECT_EQ(read(folder / "shard-0.bin"), "good");
    EXPECT_EQ(files_in(folder), 2u);
  }
}

// Claim: only plain names become paths.
TEST_F(Objects, names_with_ways_in_them_are_refused) {
  for (const char* name : {"", "../x", ".hidden", "a/b"}) {
    const auto laid = lay_out_objects(root_, {ref(name, "good")});
    ASSERT_FALSE(laid.ok()) << name;
    EXPECT_EQ(laid.error().code, base::ErrorCode::corrupt);
  }
}

// Claim: a fetched file is whole and alone in the cache; unfinished files of dead processes go after a day, younger ones stay.
TEST_F(Objects, a_fetch_leaves_the_file_and_tidies_the_cache) {
  const std::string text(3'000'000, 'x');
  write(root_ / "source", text);
  fs::create_directories(root_ / "cache");
  write(root_ / "cache" / "old.1.partial", "dead");
  write(root_ / "cache" / "new.2.partial", "alive");
  fs::last_write_time(root_ / "cache" / "old.1.partial", fs::file_time_type::clock::now() - std::chrono::hours(25));
  ObjectServer server;
  const auto object = server.offer(root_ / "source", "source");
  ASSERT_TRUE(object.ok());
  const auto fetched = fetch(server, *object);
  ASSERT_TRUE(fetched.ok()) << fetched.error().message;
  EXPECT_EQ(read(root_ / "cache" / object->sha256.hex()), text);
  EXPECT_FALSE(fs::exists(root_ / "cache" / "old.1.partial"));
  EXPECT_TRUE(fs::exists(root_ / "cache" / "new.2.partial"));
  EXPECT_EQ(files_in(root_ / "cache"), 2u);
}

// Claim: where the unfinished file is taken away while another process puts the whole one in its place, the fetch has what it wants.
TEST_F(Objects, a_file_that_another_finished_is_good_enough) {
  const std::string text(2'500'000, 'y');
  write(root_ / "source", text);
  ObjectServer server;
  const auto object = server.offer(root_ / "source", "source");
  ASSERT_TRUE(object.ok());
  const auto fetched = fetch(server, *object, [&] {
    for (const auto& entry : fs::directory_iterator(root_ / "cache")) fs::remove(entry.path());
    write(root_ / "cache" / object->sha256.hex(), text);
  });
  ASSERT_TRUE(fetched.ok()) << fetched.error().message;
  EXPECT_EQ(files_in(root_ / "cache"), 1u);
}

// Claim: bytes with another hash than announced are an error and stay nowhere.
TEST_F(Objects, other_bytes_than_announced_are_refused) {
  write(root_ / "source", "good");
  ObjectServer server;
  const auto object = server.offer(root_ / "source", "source");
  ASSERT_TRUE(object.ok());
  write(root_ / "source", "evil");
  const auto fetched = fetch(server, *object);
  ASSERT_FALSE(fetched.ok());
  EXPECT_EQ(fetched.error().code, base::ErrorCode::corrupt);
  EXPECT_EQ(files_in(root_ / "cache"), 0u);
}

}  // namespace
}  // namespace stagecoach::world::real
