#include "world/real/run_store.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/shards.h"
#include "data/test_directory.h"
#include "data/tokenizer.h"
#include "digest/digest.h"

namespace stagecoach::world::real {
namespace {

namespace fs = std::filesystem;
using base::ErrorCode;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

class RunStoreTest : public data::DirectoryTest {
 protected:
  void SetUp() override {
    data::DirectoryTest::SetUp();
    std::string text;
    for (int i = 0; i < 20'000; ++i) text += static_cast<char>('a' + i % 26);
    auto built = data::build_shards(directory_ / "shards", text, *data::make_byte_tokenizer());
    ASSERT_TRUE(built.ok()) << built.error().message;
    shards_ = built->directory;
    run_ = directory_ / "run";
    ASSERT_TRUE(base::make_directories(run_).ok());
  }

  struct Opened {
    std::unique_ptr<RunStore> store;
    fleet::Options fleet;
  };
  /// The run's store as a start of the coordinator opens it; an attempt is begun.
  Opened open(bool resume) {
    Opened opened;
    std::string why;
    opened.fleet.split = model::balanced_split(opened.fleet.config.model, 1, why);
    opened.fleet.config_text = model::canonical_text(opened.fleet.config);
    static_cast<base::Bytes32&>(opened.fleet.config_id) = digest::sha256(opened.fleet.config_text);
    auto store = RunStore::open({run_, shards_, resume, 3}, opened.fleet);
    EXPECT_TRUE(store.ok()) << store.error().message;
    if (!store.ok()) return opened;
    opened.store = std::move(*store);
    fleet::ViewRecord view;
    view.attempt = opened.fleet.last_attempt.next();
    view.stages.emplace_back();
    view.stages[0].number = opened.fleet.last_views[0].next();
    attempt_ = view.attempt;
    view_ = view.stages[0].number;
    const auto written = opened.store->write(view);
    EXPECT_TRUE(written.ok()) << written.error().message;
    return opened;
  }
  void commit(RunStore& store, std::uint64_t step) {
    const auto written = store.write(fleet::CommitRecord{base::Step(step), attempt_, {{view_, 1}}, 1.0, {1.0}, {}});
    ASSERT_TRUE(written.ok()) << written.error().message;
  }
  fs::path checkpoint(RunStore& store, std::uint64_t step) {
    store.begin_checkpoint(base::WeightVersion(step));
    wire::StateChunk chunk{base::WeightVersion(step), 0, 1, "embed.weight", static_cast<std::uint8_t>(base::DType::f32), {2}, 0,
                           base::make_payload(base::Bytes(8))};
    store.add_chunk(base::StageIndex(0), chunk);
    auto path = store.finish_checkpoint("a kernel");
    EXPECT_TRUE(path.ok()) << path.error().message;
    return path.ok() ? *path : "";
  }

  fs::path shards_, run_;
  base::Attempt attempt_;
  base::ViewNumber view_;
};

// Claim: a checkpoint that could not be read once, and was passed over, does not stand in the way when it can be read again: it was set
// aside when the run went on from the older one.
TEST_F(RunStoreTest, a_checkpoint_passed_over_once_stays_passed_over) {
  fs::path newest;
  {
    auto first = open(false);
    for (std::uint64_t step = 1; step <= 4; ++step) {
      commit(*first.store, step);
      if (step % 2 == 0) newest = checkpoint(*first.store, step);
    }
  }
  const fs::path hidden = newest / "stage-00.safetensors", away = directory_ / "away";
  fs::rename(hidden, away);
  {
    auto second = open(true);
    EXPECT_EQ(second.fleet.committed, base::Step(2));
    EXPECT_THAT(second.store->findings(), Contains(AllOf(HasSubstr("step-00000004"), HasSubstr("damaged"))));
    EXPECT_THAT(second.store->findings(), Contains(AllOf(HasSubstr("set aside"), HasSubstr("step 2"))));
    EXPECT_THAT(second.store->findings(), Contains(HasSubstr("trained so far with a kernel")));
  }
  fs::rename(away, newest.string() + ".superseded/stage-00.safetensors");
  EXPECT_EQ(open(true).fleet.committed, base::Step(2));
}

// Claim: a checkpoint that the books do not know yet is set aside, with a sentence, and nothing of it is lost.
TEST_F(RunStoreTest, a_checkpoint_beyond_the_books_is_set_aside) {
  fs::path newest;
  {
    auto first = open(false);
    commit(*first.store, 1);
    commit(*first.store, 2);
    newest = checkpoint(*first.store, 2);
  }
  fs::copy(newest, newest.parent_path() / "step-00000007", fs::copy_options::recursive);
  const auto second = open(true);
  EXPECT_EQ(second.fleet.committed, base::Step(2));
  EXPECT_THAT(second.store->findings(), Contains(AllOf(HasSubstr("step-00000007"), HasSubstr("the books end at step 2"))));
  EXPECT_TRUE(fs::exists(newest.parent_path() / "step-00000007.superseded" / "stage-00.safetensors"));
}

// Claim: a run goes on with the mathematics it was begun with, or says which keys differ and how.
TEST_F(RunStoreTest, another_optimizer_or_number_is_refused_by_its_keys) {
  {
    auto first = open(false);
    commit(*first.store, 1);
    checkpoint(*first.store, 1);
  }
  fleet::Options other;
  std::string why;
  other.split = model::balanced_split(other.config.model, 1, why);
  other.config.optimizer.kind = model::OptimizerKind::muon;
  other.config.numbers = {model::FloatKind::bfloat16, model::FloatKind::bfloat16, model::SumKind::fixed64};
  other.config_text = model::canonical_text(other.config);
  static_cast<base::Bytes32&>(other.config_id) = digest::sha256(other.config_text);
  const auto refused = RunStore::open({run_, shards_, true, 3}, other);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::mismatch);
  EXPECT_THAT(refused.error().message, AllOf(HasSubstr("optimizer.kind (adamw, now muon)"), HasSubstr("numbers.state (float32, now bfloat16)"),
                                             Not(HasSubstr("model.dim"))));
}

// Claim: a checkpoint that was made with other mathematics and put into a run's folder is not taken for the run's.
TEST_F(RunStoreTest, a_checkpoint_of_another_optimizer_is_refused_by_its_keys) {
  auto first = open(false);
  commit(*first.store, 1);
  const fs::path path = checkpoint(*first.store, 1);
  auto manifest = store::read_checkpoint(path);
  ASSERT_TRUE(manifest.ok());
  model::TrainConfig other = first.fleet.config;
  other.optimizer.kind = model::OptimizerKind::nadam;
  manifest->meta.config_text = model::canonical_text(other);
  ASSERT_TRUE(std::ofstream(path / "manifest.json") << store::canonical_text(*manifest));
  first.store.reset();
  fleet::Options again;
  std::string why;
  again.split = model::balanced_split(again.config.model, 1, why);
  again.config_text = model::canonical_text(again.config);
  static_cast<base::Bytes32&>(again.config_id) = digest::sha256(again.config_text);
  const auto refused = RunStore::open({run_, shards_, true, 3}, again);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::mismatch);
  EXPECT_THAT(refused.error().message, HasSubstr("optimizer.kind (nadam, now adamw)"));
}

// Claim: tensors of two bytes an element are gathered and written as such.
TEST_F(RunStoreTest, bfloat16_state_becomes_a_bfloat16_checkpoint) {
  auto opened = open(false);
  commit(*opened.store, 1);
  opened.store->begin_checkpoint(base::WeightVersion(1));
  const base::Bytes bytes = {std::byte{0x80}, std::byte{0x3f}, std::byte{0}, std::byte{0x40}};
  for (std::size_t half = 0; half < 2; ++half) {
    const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(2 * half);
    opened.store->add_chunk(base::StageIndex(0), {base::WeightVersion(1), 0, 1, "embed.weight", static_cast<std::uint8_t>(base::DType::bf16), {1, 2},
                                                  2 * half, base::make_payload(base::Bytes(at, at + 2))});
  }
  const auto path = opened.store->finish_checkpoint("a kernel");
  ASSERT_TRUE(path.ok());
  const auto tensors = store::read_tensors(*path);
  ASSERT_TRUE(tensors.ok());
  ASSERT_EQ(tensors->size(), 1u);
  EXPECT_EQ((*tensors)[0].tensor.dtype, base::DType::bf16);
  EXPECT_EQ((*tensors)[0].tensor.shape, (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(*(*tensors)[0].tensor.bytes, bytes);
}

// Claim: a run's folder is taken by one process at a time, and the second is told what to do.
TEST_F(RunStoreTest, a_run_has_one_process) {
  {
    const auto first = lock_run(run_);
    ASSERT_TRUE(first.ok());
    const auto second = lock_run(run_);
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error().code, ErrorCode::unavailable);
    EXPECT_THAT(second.error().message, HasSubstr("is being run by another process"));
  }
  EXPECT_TRUE(lock_run(run_).ok());
}

}  // namespace
}  // namespace stagecoach::world::real
