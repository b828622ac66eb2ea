#include "data/shard_build.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>

#include "base/prng.h"
#include "data/build_journal.h"
#include "data/document_index.h"
#include "data/shard_check.h"
#include "data/shards.h"
#include "data/test_directory.h"

namespace stagecoach::data {
namespace {

using base::ErrorCode;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
namespace fs = std::filesystem;

class ShardBuildTest : public DirectoryTest {
 protected:
  void SetUp() override {
    DirectoryTest::SetUp();
    // 3 MB of JSON lines, a text without line ends across several blocks, an empty text and lines: every kind of edge.
    base::Prng prng(7);
    std::string jsonl;
    for (int i = 0; i < 6000; ++i) {
      std::string text;
      for (std::uint64_t n = prng.below(1000); n > 0; --n) text.push_back(static_cast<char>('a' + prng.below(26)));
      documents_.push_back(text);
      jsonl += "{\"text\":\"" + text + "\"}\n";
    }
    overwrite(directory_ / "a.jsonl", jsonl);
    documents_.push_back(std::string(2'500'000, 'x'));
    overwrite(directory_ / "b.txt", documents_.back());
    overwrite(directory_ / "c.txt", "");
    documents_.push_back("");
    overwrite(directory_ / "d.txt", "the end\n");
    documents_.push_back("the end\n");
  }

  BuildPlan plan(int threads = 2) const {
    BuildPlan plan;
    for (const char* name : {"a.jsonl", "b.txt", "c.txt", "d.txt"}) {
      plan.inputs.push_back(*input_of((directory_ / name).string(), {}));
      plan.inputs.back().name = name;
    }
    plan.end_of_document = 0;
    plan.tokens_per_shard = 400'003;
    plan.threads = threads;
    return plan;
  }
  static base::Result<BuildResult> build(const fs::path& out, const BuildPlan& plan, const BuildHooks& hooks = {}) {
    return build_in(out, plan, *make_byte_tokenizer(), hooks);
  }
  /// All files of a folder, with their bytes.
  static std::map<std::string, std::string> files_of(const fs::path& folder) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(folder))
      files[entry.path().filename().string()] = *base::read_text_file(entry.path(), 64u << 20);
    return files;
  }

  std::vector<std::string> documents_;
};

TEST_F(ShardBuildTest, EveryDocumentIsThereOnceInOrder) {
  // Claim: each non-empty document is found by its number, byte for byte, with the mark after it; the counts are those
  // of the inputs; and the checker agrees.
  const auto built = build(directory_ / "out", plan());
  ASSERT_TRUE(built.ok()) << built.error().message;
  const auto shards = TokenShards::open(directory_ / "out", {.model_vocab = 256, .verify_hashes = true});
  ASSERT_TRUE(shards.ok()) << shards.error().message;
  const auto index = DocumentIndex::open(directory_ / "out", shards->manifest());
  ASSERT_TRUE(index.ok()) << index.error().message;
  std::int64_t number = 0, empty = 0, bytes = 0, position = 0;
  for (const std::string& document : documents_) {
    bytes += static_cast<std::int64_t>(document.size());
    if (document.empty()) {
      ++empty;
      continue;
    }
    ASSERT_LT(number, index->documents());
    const DocumentRange range = index->at(number++);
    ASSERT_EQ(range.first, position);
    ASSERT_EQ(range.end - range.first, static_cast<std::int64_t>(document.size()) + 1);
    std::vector<std::int32_t> tokens(document.size() + 1);
    ASSERT_TRUE(shards->copy(range.first, tokens).ok());
    EXPECT_EQ(*make_byte_tokenizer()->decode(tokens), document + '\0');
    position = range.end;
  }
  EXPECT_EQ(number, index->documents());
  EXPECT_EQ(position, shards->tokens());
  EXPECT_EQ(built->manifest.documents, number);
  EXPECT_EQ(built->manifest.empty_documents, empty);
  EXPECT_EQ(built->manifest.text_bytes, bytes);
  EXPECT_EQ(built->manifest.sources.size(), 4u);
  std::int64_t seen = 0;
  index->for_each([&](const DocumentRange& range) { EXPECT_EQ(range.first, index->at(seen++).first); });
  EXPECT_EQ(seen, number);
  const auto checked = check_shards(directory_ / "out");
  ASSERT_TRUE(checked.ok());
  EXPECT_THAT(checked->problems, IsEmpty());
}

TEST_F(ShardBuildTest, AnyNumberOfThreadsGivesTheSameFiles) {
  // Claim: bit for bit, manifest included, and nothing but shards stays.
  ASSERT_TRUE(build(directory_ / "one", plan(1)).ok());
  const auto expected = files_of(directory_ / "one");
  for (const int threads : {2, 5, 16}) {
    const fs::path out = directory_ / ("out" + std::to_string(threads));
    ASSERT_TRUE(build(out, plan(threads)).ok());
    EXPECT_TRUE(files_of(out) == expected) << threads;
  }
  for (const auto& [name, bytes] : expected)
    EXPECT_TRUE(name == "manifest.json" || name.ends_with(".tokens") || name.ends_with(".documents")) << name;
}

TEST_F(ShardBuildTest, AKilledBuildGoesOnWhereItWas) {
  // Claim: killed after any block, the same plan gives the same files, and does not write a finished shard again.
  ASSERT_TRUE(build(directory_ / "whole", plan()).ok());
  const auto expected = files_of(directory_ / "whole");
  for (const int kill_after : {1, 2, 4, 6}) {
    const fs::path out = directory_ / ("out" + std::to_string(kill_after));
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      int blocks = 0;
      BuildHooks hooks;
      hooks.progress = [&](const BuildProgress&) {
        if (++blocks == kill_after) ::kill(::getpid(), SIGKILL);
      };
      static_cast<void>(build(out, plan(), hooks));
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(TokenShards::open(out, {}).error().code, ErrorCode::not_found) << "not complete";
    const auto first_shard = fs::last_write_time(out / "shard-00000.tokens");
    std::string said;
    BuildHooks hooks;
    hooks.say = [&](const std::string& sentence) { said += sentence; };
    const auto built = build(out, plan(3), hooks);
    ASSERT_TRUE(built.ok()) << built.error().message;
    EXPECT_THAT(said, HasSubstr("going on"));
    EXPECT_TRUE(files_of(out) == expected) << kill_after;
    EXPECT_EQ(fs::last_write_time(out / "shard-00000.tokens"), first_shard);
  }
}

TEST_F(ShardBuildTest, ARemovalCutShortIsFinishedByTheNextBuild) {
  // Claim: wherever the removal of the journal stops, the next build leaves nothing of it.
  const fs::path out = directory_ / "out";
  ASSERT_TRUE(build(out, plan()).ok());
  const auto expected = files_of(out);
  for (const int stop : {0, 1, 2, 3}) {
    overwrite(out / "build.json", "{}");
    for (int i = 0; i < 4; ++i) {
      const fs::path entry = out / ("shard-0000" + std::to_string(i) + ".done");
      if (i == stop) {
        fs::create_directories(entry / "cannot be removed");
      } else {
        overwrite(entry, "{}");
      }
    }
    EXPECT_FALSE(build(out, plan()).ok());
    const fs::path last = out / ("shard-0000" + std::to_string(stop) + ".done");
    fs::remove_all(last);
    overwrite(last, "{}");
    ASSERT_TRUE(build(out, plan()).ok());
    EXPECT_TRUE(files_of(out) == expected) << stop;
  }
}

TEST_F(ShardBuildTest, WhatIsThereIsNotBuiltAgain) {
  // Claim: the same plan changes nothing; other inputs, options or a stranger's folder are refused with the difference.
  const fs::path out = directory_ / "out";
  ASSERT_TRUE(build(out, plan()).ok());
  const auto before = files_of(out);
  const auto again = build(out, plan());
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->reused);
  EXPECT_TRUE(files_of(out) == before);
  BuildPlan other = plan();
  other.tokens_per_shard = 5;
  EXPECT_THAT(build(out, other).error().message, AllOf(HasSubstr("other token shards"), HasSubstr("another size")));
  other = plan();
  other.inputs.pop_back();
  EXPECT_EQ(build(out, other).error().code, ErrorCode::already_exists);
  overwrite(directory_ / "d.txt", "The end\n");
  EXPECT_THAT(build(out, plan()).error().message, HasSubstr("d.txt"));
  fs::create_directory(directory_ / "mine");
  overwrite(directory_ / "mine" / "thesis.tex", "years of work");
  EXPECT_THAT(build(directory_ / "mine", plan()).error().message, HasSubstr("no build of shards"));
  EXPECT_EQ(files_of(directory_ / "mine").size(), 1u);
}

TEST_F(ShardBuildTest, BrokenThingsAreRefusedOrLeftOut) {
  // Claim: refused, the first one in order is named whatever the threads do, and what was whole is kept: skipping then
  // goes on from there; left out, they are counted.
  std::string jsonl = *base::read_text_file(directory_ / "a.jsonl", 64u << 20);
  const std::size_t at = jsonl.find('\n', jsonl.size() / 2) + 1;
  jsonl.insert(at, "not JSON\n");
  jsonl += "{\"body\":1}\n";
  overwrite(directory_ / "a.jsonl", jsonl);
  for (const int threads : {1, 4}) {
    const auto refused = build(directory_ / "out", plan(threads));
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, ErrorCode::corrupt);
    EXPECT_THAT(
        refused.error().message,
        AllOf(HasSubstr("a.jsonl line"), HasSubstr("(byte " + std::to_string(at) + ")"), HasSubstr("--skip-broken")));
  }
  EXPECT_TRUE(fs::exists(directory_ / "out" / "shard-00000.done"));
  BuildPlan lenient = plan();
  lenient.skip_broken = true;
  std::vector<std::string> skipped;
  BuildHooks hooks;
  hooks.skipped = [&](const Broken& broken) { skipped.push_back(broken.where); };
  const auto built = build(directory_ / "out", lenient, hooks);
  ASSERT_TRUE(built.ok()) << built.error().message;
  EXPECT_EQ(built->manifest.broken_records, 2);
  EXPECT_EQ(skipped.size(), 2u);
  EXPECT_EQ(built->manifest.documents + built->manifest.empty_documents, static_cast<std::int64_t>(documents_.size()));
  ASSERT_TRUE(build(directory_ / "fresh", lenient).ok());
  EXPECT_TRUE(files_of(directory_ / "fresh") == files_of(directory_ / "out"));
  EXPECT_THAT(build(directory_ / "out", plan()).error().message, HasSubstr("--skip-broken"));
}

TEST_F(ShardBuildTest, AFullDiskIsSaidAndGoneOnFrom) {
  // Claim: no space for a shard, or for the manifest after all shards, is out_of_space; with space again the result is
  // that of an undisturbed build.
  const std::pair<std::int64_t, rlim_t> cases[] = {{100'003, 50'000}, {25'003, 27'000}};
  for (const auto& [tokens_per_shard, bytes] : cases) {
    BuildPlan small = plan();
    small.inputs = {small.inputs[1]};
    small.tokens_per_shard = tokens_per_shard;
    const fs::path whole = directory_ / ("whole" + std::to_string(bytes)),
                   out = directory_ / ("out" + std::to_string(bytes));
    ASSERT_TRUE(build(whole, small).ok());
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{bytes, bytes};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      const auto built = build(out, small);
      ::_exit(!built.ok() && built.error().code == ErrorCode::out_of_space ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    EXPECT_EQ(fs::exists(out / "shard-00099.done"), bytes == 27'000u);
    const auto built = build(out, small);
    ASSERT_TRUE(built.ok()) << built.error().message;
    EXPECT_TRUE(files_of(out) == files_of(whole));
  }
}

TEST_F(ShardBuildTest, NothingToLearnFromIsAnError) {
  // Claim: inputs without a token, and numbers out of range, are refused.
  BuildPlan empty = plan();
  empty.inputs = {empty.inputs[2]};
  EXPECT_THAT(build(directory_ / "out", empty).error().message,
              AllOf(HasSubstr("corpus is empty"), HasSubstr("c.txt")));
  BuildPlan wrong = plan();
  wrong.end_of_document = 256;
  EXPECT_THAT(build(directory_ / "no", wrong).error().message, HasSubstr("256"));
  EXPECT_FALSE(fs::exists(directory_ / "no"));
}

TEST_F(ShardBuildTest, TheCheckerFindsEveryKindOfDamage) {
  // Claim: a changed token, a moved document, a missing file and a mark that is not there are each named; all at once.
  const fs::path out = directory_ / "out";
  ASSERT_TRUE(build(out, plan()).ok());
  const auto flip = [&](const char* name, std::size_t at) {
    std::string bytes = *base::read_text_file(out / name, 64u << 20);
    bytes[at] ^= 1;
    overwrite(out / name, bytes);
  };
  flip("shard-00000.tokens", 40);
  flip("shard-00001.documents", kShardHeaderBytes + 8);
  fs::remove(out / "shard-00002.tokens");
  fs::resize_file(out / "shard-00003.documents", 33);
  const auto checked = check_shards(out);
  ASSERT_TRUE(checked.ok());
  std::string all;
  for (const std::string& problem : checked->problems) all += problem + "\n";
  EXPECT_THAT(all, AllOf(HasSubstr("shard-00000.tokens does not have the SHA-256"),
                         HasSubstr("shard-00001.documents does not"), HasSubstr("shard-00001.documents lets document"),
                         HasSubstr("shard-00002.tokens is missing"), HasSubstr("shard-00003.documents has 33 bytes")));
}

TEST_F(ShardBuildTest, ADamagedJournalIsAnError) {
  // Claim: entries whose numbers contradict each other are refused, and a good one is read back as it was.
  const ShardInfo shard{shard_file_name(0), 10, {}, 3, {}};
  BuildCursor cursor{.input = 1, .at = {7, 2}, .position = 9, .documents = 3, .in_document = true, .broken = 1};
  const std::vector<SourceEnd> sources = {{100, {}}};
  const std::string good = journal_entry(shard, cursor, sources);
  BuildState state;
  ASSERT_TRUE(add_journal_entry(good, state).ok());
  EXPECT_EQ(state.cursor, cursor);
  EXPECT_EQ(state.shards, std::vector<ShardInfo>{shard});
  EXPECT_EQ(state.sources, sources);
  for (const auto& [from, to] : std::map<std::string, std::string>{{"\"position\": 9", "\"position\": 11"},
                                                                   {"\"input\": 1", "\"input\": 2"},
                                                                   {"\"tokens\": 10", "\"tokens\": -1"},
                                                                   {"\"cursor\"", "\"kursor\""},
                                                                   {"{\n", "[\n"}}) {
    std::string bad = good;
    bad.replace(bad.find(from), from.size(), to);
    BuildState fresh;
    EXPECT_EQ(add_journal_entry(bad, fresh).error().code, ErrorCode::corrupt) << to;
  }
}

}  // namespace
}  // namespace stagecoach::data
