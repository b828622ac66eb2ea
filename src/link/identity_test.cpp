#include "link/identity.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "link/ed25519_der.h"

namespace stagecoach::link {
namespace {

namespace fs = std::filesystem;

class KeyFolder : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "stagecoach-key-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path() const { return (folder_ / "key").string(); }
  fs::path folder_;
};

// Claim: the public half of a seed is RFC 8032's (section 7.1, test 1).
TEST(Identity, public_key_matches_the_standard_example) {
  const std::array<std::uint8_t, 32> seed = {0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a,
                                             0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32,
                                             0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60};
  const auto identity = Identity::from_seed(seed);
  ASSERT_TRUE(identity.ok());
  EXPECT_EQ(identity.value().peer_id().hex(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
  EXPECT_EQ(identity.value().seed(), seed);
}

// Claim: two generated keys differ.
TEST(Identity, generated_keys_differ) {
  EXPECT_NE(Identity::generate().value().peer_id(), Identity::generate().value().peer_id());
}

// Claim: a public key survives its DER wrapping, and nothing but that wrapping is taken.
TEST(Identity, only_the_one_der_form_is_a_key) {
  const base::PeerId key = Identity::generate().value().peer_id();
  const auto der = ed25519_public_der(key);
  EXPECT_EQ(ed25519_from_public_der(der), key);
  EXPECT_EQ(ed25519_from_public_der(std::span(der).first(43)), std::nullopt);
  auto other_algorithm = der;
  other_algorithm[8] = 0x6e;  // X25519's object id
  EXPECT_EQ(ed25519_from_public_der(other_algorithm), std::nullopt);
}

// Claim: the key file is made once, readable by its owner only, and gives the same identity ever after; no temporary file stays.
TEST_F(KeyFolder, key_file_is_made_once_and_private) {
  const auto first = Identity::load_or_create(path());
  ASSERT_TRUE(first.ok()) << first.error().message;
  struct stat status{};
  ASSERT_EQ(::stat(path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_EQ(Identity::load_or_create(path()).value().peer_id(), first.value().peer_id());
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
}

// Claim: a damaged key file is never overwritten; the error is corrupt and says what to do.
TEST_F(KeyFolder, damaged_key_file_is_refused) {
  std::ofstream(path()) << "not a key";
  const auto identity = Identity::load_or_create(path());
  ASSERT_FALSE(identity.ok());
  EXPECT_EQ(identity.error().code, base::ErrorCode::corrupt);
  EXPECT_NE(identity.error().message.find("delete"), std::string::npos);
  EXPECT_EQ(fs::file_size(path()), 9u);
}

// Claim: a folder that is not there is an io_error or not_found of the folder, not a crash.
TEST_F(KeyFolder, missing_folder_is_an_error) {
  const auto identity = Identity::load_or_create(path() + "/below/key");
  ASSERT_FALSE(identity.ok());
  EXPECT_EQ(identity.error().code, base::ErrorCode::io_error);
}

// Claim: a join link survives text and back, with names, IPv4 and IPv6.
TEST(JoinLink, round_trip) {
  JoinLink link;
  link.coordinator = Identity::generate().value().peer_id();
  link.port = 4433;
  for (const char* host : {"example.org", "192.0.2.7", "2001:db8::1"}) {
    link.host = host;
    const auto parsed = parse_join_link(to_string(link));
    ASSERT_TRUE(parsed.ok()) << parsed.error().message;
    EXPECT_EQ(parsed.value().coordinator, link.coordinator);
    EXPECT_EQ(parsed.value().host, host);
    EXPECT_EQ(parsed.value().port, 4433);
  }
  EXPECT_NE(to_string(link).find("@[2001:db8::1]:4433"), std::string::npos);
}

// Claim: each wrong link is refused with a sentence that names its fault and shows a good link.
TEST(JoinLink, each_fault_is_named) {
  const std::string key(64, 'a');
  const std::pair<std::string, std::string> faults[] = {
      {"https://" + key + "@h:1", "begin with"},
      {"stagecoach://" + key + "h:1", "no @"},
      {"stagecoach://" + key.substr(1) + "@h:1", "64 hexadecimal"},
      {"stagecoach://" + key.substr(1) + "g@h:1", "64 hexadecimal"},
      {"stagecoach://" + key + "@h", "no :port"},
      {"stagecoach://" + key + "@:1", "host is empty"},
      {"stagecoach://" + key + "@h:0", "1 to 65535"},
      {"stagecoach://" + key + "@h:65536", "1 to 65535"},
      {"stagecoach://" + key + "@h:1x", "1 to 65535"},
      {"stagecoach://" + key + "@::1:4433", "brackets"},
      {"stagecoach://" + key + "@a b:1", "character"},
  };
  for (const auto& [text, names] : faults) {
    const auto parsed = parse_join_link(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.error().code, base::ErrorCode::invalid_argument);
    EXPECT_NE(parsed.error().message.find(names), std::string::npos) << parsed.error().message;
    EXPECT_NE(parsed.error().message.find("stagecoach://<64"), std::string::npos);
  }
}

}  // namespace
}  // namespace stagecoach::link
