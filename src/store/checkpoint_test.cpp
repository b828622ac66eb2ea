#include "store/checkpoint.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <functional>

#include "base/prng.h"
#include "store/safetensors.h"
#include "store/test_directory.h"

namespace stagecoach::store {
namespace {

using base::ErrorCode;
using base::NamedTensor;
using base::StageIndex;
using base::Step;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// The state of a two-layer model at a step: values that no other step has.
std::vector<NamedTensor> layer_state(std::uint64_t layer, Step step) {
  std::vector<NamedTensor> tensors;
  for (const char* prefix : {"", "optimizer.m."}) {
    std::vector<float> values;
    for (int i = 0; i < 64; ++i)
      values.push_back(static_cast<float>(step.value() * 1000 + layer * 100) + static_cast<float>(i));
    tensors.push_back(float_tensor(prefix + ("blocks." + std::to_string(layer) + ".wq"), {8, 8}, values));
  }
  return tensors;
}

CheckpointMeta meta_of(Step step, model::Split split = {{0, 1}, {1, 2}}) {
  return {.run = base::RunId(0xfeed),
          .config_text = "model.dim=128\n",
          .step = step,
          .split = std::move(split),
          .numerics_class = "cpu test",
          .shards_manifest = {}};
}

/// Writes the checkpoint of a step, a file a layer.
base::Result<std::filesystem::path> write(const std::filesystem::path& directory, Step step, std::size_t keep = 3) {
  auto writer = CheckpointWriter::begin(directory, meta_of(step), {.keep = keep});
  if (!writer.ok()) return writer.error();
  for (const std::uint64_t layer : {1, 0})
    RETURN_IF_ERROR(writer->add_stage_file(StageIndex(layer), layer_state(layer, step)));
  return writer->commit();
}

std::vector<std::string> names_of(const std::vector<std::filesystem::path>& paths) {
  std::vector<std::string> names;
  for (const auto& path : paths) names.push_back(path.filename().string());
  return names;
}

class CheckpointTest : public DirectoryTest {
 protected:
  void expect_state_of(const std::filesystem::path& path, Step step) {
    auto tensors = read_tensors(path);
    ASSERT_TRUE(tensors.ok()) << tensors.error().message;
    ASSERT_EQ(tensors->size(), 4u);
    std::vector<NamedTensor> expected = layer_state(0, step);
    for (auto& tensor : layer_state(1, step)) expected.push_back(std::move(tensor));
    EXPECT_EQ(state_sha256(*tensors), state_sha256(expected));
    for (const auto& tensor : *tensors) {
      EXPECT_TRUE(std::any_of(expected.begin(), expected.end(), [&](const auto& e) { return same_tensor(e, tensor); }));
    }
  }
  static void flip_last_byte(const std::filesystem::path& path) {
    std::string text = contents(path);
    text.back() ^= 1;
    overwrite(path, text);
  }
};

TEST_F(CheckpointTest, WhatWasCommittedIsRead) {
  // Claim: the manifest and every tensor come back, by name and all, whatever order the stages came in.
  const auto path = write(directory_, Step(100));
  ASSERT_TRUE(path.ok()) << path.error().message;
  EXPECT_EQ(path->filename(), "step-00000100");
  const auto manifest = read_checkpoint(*path);
  ASSERT_TRUE(manifest.ok()) << manifest.error().message;
  EXPECT_EQ(manifest->meta.run, base::RunId(0xfeed));
  EXPECT_EQ(manifest->meta.config_text, "model.dim=128\n");
  EXPECT_EQ(manifest->meta.step, Step(100));
  EXPECT_EQ(manifest->meta.split, (model::Split{{0, 1}, {1, 2}}));
  EXPECT_EQ(manifest->meta.numerics_class, "cpu test");
  EXPECT_EQ(canonical_text(*parse_checkpoint_manifest(canonical_text(*manifest))), canonical_text(*manifest));
  EXPECT_TRUE(verify_checkpoint(*path, *manifest).ok());
  expect_state_of(*path, Step(100));

  const auto some = read_tensors(*path, {{"optimizer.m.blocks.1.wq", "blocks.0.wq"}});
  ASSERT_TRUE(some.ok());
  EXPECT_TRUE(same_tensor(some->at(0), layer_state(1, Step(100))[1]));
  EXPECT_TRUE(same_tensor(some->at(1), layer_state(0, Step(100))[0]));
  EXPECT_EQ(read_tensors(*path, {{"blocks.7.wq"}}).error().code, ErrorCode::not_found);
  EXPECT_EQ(read_checkpoint(directory_ / "step-00000101").error().code, ErrorCode::not_found);
}

TEST_F(CheckpointTest, TheManifestIsThatOfTheFormatPage) {
  // Claim: byte for byte the worked example of docs/formats/checkpoint.md, whose hashes were computed in Python from
  // that page.
  auto writer = CheckpointWriter::begin(directory_, meta_of(Step(3), {{0, 2}}));
  const std::vector<NamedTensor> tensors = {
      {"b", {base::DType::bf16, {2}, payload_of(std::string("\x80\x3f\x00\x40", 4))}},
      float_tensor("w", {1, 2}, {1.0f, -2.0f})};
  ASSERT_TRUE(writer->add_stage_file(StageIndex(0), tensors).ok());
  const auto path = writer->commit();
  ASSERT_TRUE(path.ok());
  EXPECT_EQ(contents(*path / "manifest.json"), R"({
  "config": "model.dim=128\n",
  "files": [
    {
      "bytes": 172,
      "file": "stage-00.safetensors",
      "sha256": "ff002e4cf39d7664abd93c10992a14c93f3fc5083f005311017825b654c945bf"
    }
  ],
  "format": "stagecoach-checkpoint",
  "numerics_class": "cpu test",
  "run": "000000000000feed",
  "shards_manifest_sha256": "0000000000000000000000000000000000000000000000000000000000000000",
  "split": [
    [
      0,
      2
    ]
  ],
  "state_sha256": "875dc67592bdae67a6c0087c2113efb9423b5ef8d49c1d983929493e21fae28c",
  "step": 3,
  "version": 1,
  "weights_sha256": "875dc67592bdae67a6c0087c2113efb9423b5ef8d49c1d983929493e21fae28c"
}
)");
}

TEST_F(CheckpointTest, TheHashesDoNotDependOnTheSplit) {
  // Claim: the same tensors in one file and in two have the same hashes; the optimizer counts in one of them only.
  const auto two = write(directory_ / "two", Step(5));
  auto writer = CheckpointWriter::begin(directory_ / "one", meta_of(Step(5), {{0, 2}}));
  ASSERT_TRUE(writer.ok());
  std::vector<NamedTensor> all = layer_state(1, Step(5));
  for (auto& tensor : layer_state(0, Step(5))) all.push_back(std::move(tensor));
  ASSERT_TRUE(writer->add_stage_file(StageIndex(0), all).ok());
  const auto one = writer->commit();
  ASSERT_TRUE(one.ok());
  const auto a = read_checkpoint(*two), b = read_checkpoint(*one);
  EXPECT_EQ(a->weights_sha256, b->weights_sha256);
  EXPECT_EQ(a->state_sha256, b->state_sha256);
  EXPECT_EQ(a->weights_sha256, weights_sha256(all));
  EXPECT_EQ(a->state_sha256, state_sha256(all));
  EXPECT_NE(a->weights_sha256, a->state_sha256);
  std::vector<NamedTensor> weights = {all[0], all[2]};
  EXPECT_EQ(weights_sha256(weights), a->weights_sha256);
  weights[0].tensor.shape = {64};
  EXPECT_NE(weights_sha256(weights), a->weights_sha256);
}

TEST_F(CheckpointTest, TheNewestAreKept) {
  // Claim: of five checkpoints the newest three stay, and one of a future that was rolled back does not push out the
  // one just written.
  for (const std::uint64_t step : {10, 20, 30, 40, 50}) ASSERT_TRUE(write(directory_, Step(step)).ok());
  EXPECT_THAT(names_of(*list_checkpoints(directory_)), ElementsAre("step-00000050", "step-00000040", "step-00000030"));
  ASSERT_TRUE(write(directory_, Step(35), 1).ok());
  EXPECT_THAT(names_of(*list_checkpoints(directory_)), ElementsAre("step-00000050", "step-00000040", "step-00000035"));
  expect_state_of(directory_ / "step-00000035", Step(35));
  EXPECT_THAT(*list_checkpoints(directory_ / "missing"), IsEmpty());
}

TEST_F(CheckpointTest, AStepWrittenAgainReplacesTheOld) {
  // Claim: a damaged checkpoint whose step is reached again is whole afterwards.
  const auto path = write(directory_, Step(7));
  flip_last_byte(*path / "stage-00.safetensors");
  ASSERT_EQ(newest_complete(directory_).error().code, ErrorCode::corrupt);
  ASSERT_TRUE(write(directory_, Step(7)).ok());
  EXPECT_EQ(newest_complete(directory_)->path, *path);
  expect_state_of(*path, Step(7));
  EXPECT_THAT(names_of(*list_checkpoints(directory_)), ElementsAre("step-00000007"));
}

TEST_F(CheckpointTest, AnAbandonedOneIsNotThere) {
  // Claim: without commit nothing stays, a dead writer's rest is removed by the next, and two writers do not meet.
  {
    auto writer = CheckpointWriter::begin(directory_, meta_of(Step(1)));
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE(writer->add_stage_file(StageIndex(0), layer_state(0, Step(1))).ok());
    EXPECT_EQ(CheckpointWriter::begin(directory_, meta_of(Step(2))).error().code, ErrorCode::unavailable);
    EXPECT_EQ(writer->commit().error().code, ErrorCode::invalid_argument) << "stage 1 is missing";
  }
  EXPECT_EQ(newest_complete(directory_).error().code, ErrorCode::not_found);
  EXPECT_FALSE(std::filesystem::exists(directory_ / ".step-00000001.partial"));
  std::filesystem::create_directory(directory_ / ".step-00000009.partial");
  ASSERT_TRUE(write(directory_, Step(3)).ok());
  EXPECT_FALSE(std::filesystem::exists(directory_ / ".step-00000009.partial"));
}

TEST_F(CheckpointTest, StagesThatContradictEachOtherAreRefused) {
  // Claim: a stage twice, a stage beyond the split and a tensor in two stages are errors.
  auto writer = CheckpointWriter::begin(directory_, meta_of(Step(1)));
  ASSERT_TRUE(writer->add_stage_file(StageIndex(0), layer_state(0, Step(1))).ok());
  for (const std::uint64_t stage : {0, 2}) {
    EXPECT_EQ(writer->add_stage_file(StageIndex(stage), layer_state(1, Step(1))).error().code,
              ErrorCode::invalid_argument);
  }
  EXPECT_EQ(writer->add_stage_file(StageIndex(1), layer_state(0, Step(1))).error().code, ErrorCode::invalid_argument);
}

TEST_F(CheckpointTest, DamageIsPassedOverAndSaid) {
  // Claim: each kind of damage to the newest makes the one before it the newest complete, with the reason in the
  // report.
  const std::pair<std::function<void(const std::filesystem::path&)>, const char*> damages[] = {
      {[](const auto& p) { flip_last_byte(p / "stage-01.safetensors"); },
       "stage-01.safetensors does not have the SHA-256"},
      {[](const auto& p) { std::filesystem::resize_file(p / "stage-00.safetensors", 100); },
       "stage-00.safetensors has 100 bytes"},
      {[](const auto& p) { std::filesystem::remove(p / "stage-00.safetensors"); }, "stage-00.safetensors is missing"},
      {[](const auto& p) { std::filesystem::remove(p / "manifest.json"); }, "manifest.json is missing"},
      {[](const auto& p) { overwrite(p / "manifest.json", "{"); }, "manifest.json is not JSON"},
      {[](const auto& p) {
         std::filesystem::copy_file(p.parent_path() / "step-00000001" / "manifest.json", p / "manifest.json",
                                    std::filesystem::copy_options::overwrite_existing);
       },
       "that of step 1"},
  };
  for (const auto& [damage, reason] : damages) {
    ASSERT_TRUE(base::remove_tree(directory_ / "run").ok());
    for (const std::uint64_t step : {1, 2}) ASSERT_TRUE(write(directory_ / "run", Step(step)).ok());
    damage(directory_ / "run" / "step-00000002");
    const auto newest = newest_complete(directory_ / "run");
    ASSERT_TRUE(newest.ok()) << newest.error().message;
    EXPECT_EQ(newest->path.filename(), "step-00000001");
    ASSERT_EQ(newest->damaged.size(), 1u);
    EXPECT_THAT(newest->report, HasSubstr(std::string("step-00000002 is damaged, because ")));
    EXPECT_THAT(newest->report, HasSubstr(reason));
    EXPECT_THAT(newest->report, HasSubstr("the older complete one is step-00000001"));
  }
  flip_last_byte(directory_ / "run" / "step-00000001" / "stage-00.safetensors");
  EXPECT_EQ(newest_complete(directory_ / "run").error().code, ErrorCode::corrupt);
  EXPECT_EQ(read_tensors(directory_ / "run" / "step-00000001").error().code, ErrorCode::corrupt);
}

TEST_F(CheckpointTest, AFullDiskLeavesTheOlderOneUntouched) {
  // Claim: where the system lets no file grow further, the error says so, names the older checkpoint, and nothing else
  // is left. (A limit on file sizes stands for the full disk: both are out_of_space.)
  ASSERT_TRUE(write(directory_, Step(1)).ok());
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{400, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto failed = write(directory_, Step(2));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, old_handler);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().code, ErrorCode::out_of_space);
  EXPECT_THAT(failed.error().message, HasSubstr("free some space"));
  EXPECT_THAT(failed.error().message, HasSubstr("step-00000001 is untouched"));
  EXPECT_FALSE(std::filesystem::exists(directory_ / ".step-00000002.partial"));
  EXPECT_EQ(newest_complete(directory_)->path.filename(), "step-00000001");
  expect_state_of(directory_ / "step-00000001", Step(1));
}

TEST_F(CheckpointTest, AHostileManifestIsAnError) {
  // Claim: names outside the folder, splits with gaps, wrong types and future versions are refused.
  const std::string good = contents(*write(directory_, Step(1)) / "manifest.json");
  ASSERT_TRUE(parse_checkpoint_manifest(good).ok());
  const std::tuple<const char*, const char*, ErrorCode> cases[] = {
      {"stage-00.safetensors", "../../secret", ErrorCode::corrupt},
      {"\"step\": 1", "\"step\": -1", ErrorCode::corrupt},
      {"\"step\": 1", "\"step\": 1.5", ErrorCode::corrupt},
      {"\"version\": 1", "\"version\": 2", ErrorCode::mismatch},
      {"\"run\": \"0", "\"run\": \"x", ErrorCode::corrupt},
      {"\"split\": [\n    [\n      0", "\"split\": [\n    [\n      1", ErrorCode::corrupt},
      {"\"config\": \"model", "\"config\": {}, \"x\": \"model", ErrorCode::corrupt},
      {"\"files\": [", "\"files\": [],\"other\": [", ErrorCode::corrupt},
  };
  for (const auto& [from, to, code] : cases) {
    std::string bad = good;
    ASSERT_NE(bad.find(from), std::string::npos) << from << " in " << good;
    bad.replace(bad.find(from), std::string(from).size(), to);
    EXPECT_EQ(parse_checkpoint_manifest(bad).error().code, code) << to;
  }
}

/// Writes checkpoints of consecutive steps for ever, with a byte into `marks` at each moment worth being killed at, and
/// the step after each commit. Runs in a process of its own.
[[noreturn]] void write_for_ever(const std::filesystem::path& directory, std::uint64_t first, int marks) {
  const auto mark = [&](std::uint64_t value) {
    if (::write(marks, &value, sizeof value) != sizeof value) ::_exit(1);
  };
  for (std::uint64_t step = first;; ++step) {
    auto writer = CheckpointWriter::begin(directory, meta_of(Step(step)));
    if (!writer.ok()) ::_exit(2);
    mark(0);
    for (const std::uint64_t layer : {0, 1}) {
      if (!writer->add_stage_file(StageIndex(layer), layer_state(layer, Step(step))).ok()) ::_exit(3);
      mark(0);
    }
    if (!writer->commit().ok()) ::_exit(4);
    mark(step);
  }
}

TEST_F(CheckpointTest, KillsAtAnyMomentLeaveTheNewestCommittedOne) {
  // Claim: after kill −9 at a random moment the newest complete checkpoint loads, holds its step's state, is not older
  // than the last commit the writer spoke of, and nothing damaged lies beside it. STAGECOACH_LONG=1: 100 kills instead
  // of 10.
  const char* long_run = std::getenv("STAGECOACH_LONG");
  const int kills = long_run != nullptr && std::string_view(long_run) == "1" ? 100 : 10;
  base::Prng prng(2024);
  std::uint64_t committed = 0;
  for (int kill = 0; kill < kills; ++kill) {
    int marks[2];
    ASSERT_EQ(::pipe(marks), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) write_for_ever(directory_, committed + 1, marks[1]);
    ::close(marks[1]);
    std::uint64_t value = 0;
    for (std::uint64_t left = 1 + prng.below(16); left > 0 && ::read(marks[0], &value, sizeof value) == sizeof value;
         --left) {
      committed = std::max(committed, value);
    }
    // Somewhere between two marks: the writer works on while this counts.
    volatile std::uint64_t spin = prng.below(2'000'000);
    while (spin > 0) spin = spin - 1;
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the writer failed by itself with " << WEXITSTATUS(status);
    while (::read(marks[0], &value, sizeof value) == sizeof value) committed = std::max(committed, value);
    ::close(marks[0]);

    const auto newest = newest_complete(directory_);
    if (committed == 0 && !newest.ok()) continue;
    ASSERT_TRUE(newest.ok()) << newest.error().message;
    EXPECT_THAT(newest->report, IsEmpty());
    EXPECT_GE(newest->manifest.meta.step.value(), committed);
    EXPECT_LE(newest->manifest.meta.step.value(), committed + 1) << "a commit that was not yet spoken of";
    expect_state_of(newest->path, newest->manifest.meta.step);
    committed = newest->manifest.meta.step.value();
  }
}

}  // namespace
}  // namespace stagecoach::store
