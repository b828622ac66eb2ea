#include "app/summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stagecoach::app {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

RunSummary laptop() {
  const model::TrainConfig config;
  RunSummary s;
  s.finished = true;
  s.run_dir = "runs/kjv";
  s.step = s.steps = 600;
  s.train_loss = 1.5, s.validation_loss = 1.6;
  s.unigram_entropy = 3.15, s.bigram_entropy = 2.314, s.trigram_entropy = 1.732;
  s.tokens = 1'228'800, s.seconds = 307.2;
  s.boundaries = boundary_bytes(config, {{0, 1}, {1, 2}, {2, 3}, {3, 4}});
  s.microbatches_per_step = config.batch.microbatches;
  s.checkpoint = "runs/kjv/checkpoints/step-00000600";
  s.continue_command = "./stagecoach train --resume runs/kjv";
  s.generate_command = "./stagecoach generate runs/kjv --prompt 'In the beginning'";
  return s;
}

// Claim: bytes follow from the shapes: 2 · 128 tokens of K = 32 floats are 32,768 bytes, of D = 128 four times that.
TEST(Summary, boundary_bytes_are_arithmetic) {
  const auto boundaries = boundary_bytes(model::TrainConfig{}, {{0, 1}, {1, 3}, {3, 4}});
  ASSERT_EQ(boundaries.size(), 2u);
  EXPECT_EQ(boundaries[0].after_layer, 0);
  EXPECT_EQ(boundaries[1].after_layer, 2);
  EXPECT_EQ(boundaries[0].bytes, 32'768u);
  EXPECT_EQ(boundaries[0].bytes_without_cut, 131'072u);
}

// Claim: all that the design wants at the end of a run is there.
TEST(Summary, says_all_that_is_asked) {
  const std::string text = summary_text(laptop());
  EXPECT_THAT(text, AllOf(HasSubstr("finished: 600 steps"),
                          HasSubstr("validation loss   1.6000 nats/token  (below the trigram entropy)"),
                          HasSubstr("corpus: unigram   3.1500"), HasSubstr("corpus: bigram    2.3140"),
                          HasSubstr("corpus: trigram   1.7320"), HasSubstr("1228800 in 5 min 07 s: 4.00k tokens/s")));
  EXPECT_THAT(
      text,
      AllOf(HasSubstr(
                "after layer 2     32.8 kB a microbatch and direction, 131 kB without the cut (4 to 1); 524 kB a step"),
            HasSubstr("runs/kjv/checkpoints/step-00000600"), HasSubstr("--resume runs/kjv\n"),
            HasSubstr("--prompt 'In the beginning'"), Not(HasSubstr("disturbances"))));
}

// Claim: a stopped run says so, leaves out what it does not know, and disturbances are counted.
TEST(Summary, a_stopped_run_says_so) {
  RunSummary s;
  s.step = 12, s.steps = 600, s.workers_lost = 1, s.attempts_voided = 1;
  const std::string text = summary_text(s);
  EXPECT_THAT(text, AllOf(HasSubstr("stopped after step 12 of 600"), HasSubstr("checkpoint        none"),
                          HasSubstr("workers lost: 1"), Not(HasSubstr("nats")), Not(HasSubstr("To continue"))));
}

// Claim: words come back from a shell as they were.
TEST(Summary, shell_words) {
  EXPECT_EQ(shell_word("runs/a-b_c.1"), "runs/a-b_c.1");
  EXPECT_EQ(shell_word("my run"), "'my run'");
  EXPECT_EQ(shell_word("it's"), "'it'\\''s'");
  EXPECT_EQ(shell_word(""), "''");
}

}  // namespace
}  // namespace stagecoach::app
