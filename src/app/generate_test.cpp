#include "app/generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "base/files.h"
#include "model/parameters.h"
#include "store/checkpoint.h"

namespace stagecoach::app {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

/// Writes the bytes of `script` again and again, and notes every past it was started with.
class ScriptedGenerator : public compute::Generator {
 public:
  explicit ScriptedGenerator(std::string script) : script_(std::move(script)) {}
  base::Result<void> start(const std::vector<std::int32_t>& prompt, const Sampling& sampling) override {
    pasts.push_back(prompt.size());
    seeds.push_back(sampling.seed);
    past_ = prompt.size();
    return {};
  }
  base::Result<std::int32_t> next() override {
    if (script_.empty()) return base::Error{base::ErrorCode::not_finite, "no number"};
    longest_past = std::max(longest_past, past_);
    ++past_;
    return static_cast<std::int32_t>(static_cast<unsigned char>(script_[at_++ % script_.size()]));
  }
  base::Result<std::vector<double>> score(const std::vector<std::int32_t>&) override { return std::vector<double>{}; }

  std::vector<std::size_t> pasts;
  std::vector<std::uint64_t> seeds;
  std::size_t longest_past = 0;

 private:
  std::string script_;
  std::size_t at_ = 0;
  std::size_t past_ = 0;
};

StreamOptions stream_options(std::int64_t tokens, std::int64_t window) {
  StreamOptions out;
  out.prompt = "ab";
  out.tokens = tokens;
  out.window = window;
  out.sampling.seed = 5;
  return out;
}

// Claim: prompt and continuation come out as one text; a character that is not finished at the end is not shown as
// half.
TEST(Generate, streams_prompt_and_continuation) {
  ScriptedGenerator generator("cü");
  std::ostringstream out;
  ASSERT_TRUE(stream_text(generator, *data::make_byte_tokenizer(), stream_options(5, 128), out).ok());
  EXPECT_EQ(out.str(), "abcüc\xef\xbf\xbd\n");
  EXPECT_THAT(generator.pasts, ElementsAre(2u));
  EXPECT_THAT(generator.seeds, ElementsAre(5u));
}

// Claim: the model never reads more tokens than it was trained on; a cut past goes on under another seed, the same each
// time.
TEST(Generate, the_past_stays_within_the_window) {
  std::vector<std::uint64_t> seeds;
  for (int round = 0; round < 2; ++round) {
    ScriptedGenerator generator("c");
    std::ostringstream out;
    StreamOptions options = stream_options(50, 8);
    options.prompt = std::string(20, 'a');
    ASSERT_TRUE(stream_text(generator, *data::make_byte_tokenizer(), options, out).ok());
    EXPECT_EQ(out.str(), std::string(20, 'a') + std::string(50, 'c') + "\n");
    EXPECT_LE(generator.longest_past, 8u);
    EXPECT_EQ(generator.pasts[0], 4u);
    EXPECT_NE(generator.seeds[0], generator.seeds[1]);
    if (round == 0)
      seeds = generator.seeds;
    else
      EXPECT_EQ(seeds, generator.seeds);
  }
  ScriptedGenerator generator("c");
  std::ostringstream out;
  EXPECT_TRUE(stream_text(generator, *data::make_byte_tokenizer(), stream_options(5, 1), out).ok());
  EXPECT_LE(generator.longest_past, 1u);
}

// Claim: a stop between tokens ends the text with a newline; an error of the model is passed on.
TEST(Generate, stops_when_asked) {
  ScriptedGenerator generator("c");
  std::ostringstream out;
  StreamOptions options = stream_options(1000, 128);
  int asked = 0;
  options.stopped = [&] { return ++asked > 3; };
  ASSERT_TRUE(stream_text(generator, *data::make_byte_tokenizer(), options, out).ok());
  EXPECT_EQ(out.str(), "abccc\n");
  ScriptedGenerator broken("");
  EXPECT_EQ(stream_text(broken, *data::make_byte_tokenizer(), stream_options(5, 8), out).error().code,
            base::ErrorCode::not_finite);
}

// Claim: every option that is out of range is named, all at once.
TEST(Generate, wrong_options_are_all_named) {
  GenerateOptions options;
  options.tokens = 0, options.temperature = std::numeric_limits<double>::quiet_NaN(), options.top_p = 0,
  options.threads = -1;
  EXPECT_THAT(problems(options), ElementsAre(HasSubstr("--prompt"), HasSubstr("--tokens"), HasSubstr("--temperature"),
                                             HasSubstr("--top-p"), HasSubstr("--threads")));
  std::ostringstream out;
  std::ostringstream err;
  EXPECT_EQ(run_generate(options, out, err), 1);
  EXPECT_THAT(err.str(), HasSubstr("--prompt"));
  options = {};
  options.prompt = "x";
  EXPECT_THAT(problems(options), IsEmpty());
}

// Claim: the command line fills the options.
TEST(Generate, command_line) {
  CLI::App app;
  GenerateOptions options;
  add_generate_command(app, options);
  app.parse("generate runs/x --prompt hello --tokens 7 --temperature 0.5 --top-p 0.9 --seed 3");
  EXPECT_EQ(options.checkpoint, "runs/x");
  EXPECT_EQ(options.prompt, "hello");
  EXPECT_EQ(options.tokens, 7);
  EXPECT_EQ(options.temperature, 0.5);
  EXPECT_EQ(options.top_p, 0.9);
  EXPECT_EQ(options.seed, 3u);
}

class GenerateFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "stagecoach-generate-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    run_ = name;
    config_.model.dim = 16, config_.model.heads = 2, config_.model.kv_heads = 1, config_.model.ffn = 24;
    config_.model.layers = 2, config_.model.cut_width = 4, config_.model.cut_after = {0};
  }
  void TearDown() override { ASSERT_TRUE(base::remove_tree(run_).ok()); }

  /// Writes a checkpoint of `step` whose weights are zeros, with a tensor of optimizer state.
  void write(std::uint64_t step) {
    ASSERT_TRUE(fs::is_directory(run_));
    store::CheckpointMeta meta;
    meta.config_text = model::canonical_text(config_);
    meta.step = base::Step(step);
    meta.split = {{0, 2}};
    auto writer = store::CheckpointWriter::begin(run_ / "checkpoints", meta);
    ASSERT_TRUE(writer.ok()) << writer.error().message;
    std::vector<base::NamedTensor> tensors;
    for (const auto& parameter : model::parameters(config_.model)) {
      const auto bytes = base::make_payload(base::Bytes(static_cast<std::size_t>(parameter.elements()) * 4));
      tensors.push_back({parameter.name, {base::DType::f32, parameter.shape, bytes}});
    }
    tensors.push_back({"optimizer.m." + tensors[0].name, tensors[0].tensor});
    ASSERT_TRUE(writer->add_stage_file(base::StageIndex(0), tensors).ok());
    auto path = writer->commit();
    ASSERT_TRUE(path.ok()) << path.error().message;
  }
  fs::path checkpoint(std::uint64_t step) const {
    return run_ / "checkpoints" / store::checkpoint_name(base::Step(step));
  }
  void damage(std::uint64_t step) const {
    std::fstream file(checkpoint(step) / store::stage_file_name(base::StageIndex(0)),
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('x');
  }

  fs::path run_;
  model::TrainConfig config_;
};

// Claim: a run's folder, its folder of checkpoints and a checkpoint itself all load, weights only, the newest where
// there is a choice.
TEST_F(GenerateFiles, finds_the_checkpoint) {
  write(1);
  write(2);
  for (const fs::path& path : {run_, run_ / "checkpoints", checkpoint(2)}) {
    const auto loaded = load_model(path.string());
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    EXPECT_EQ(loaded->path, checkpoint(2).string());
    EXPECT_EQ(loaded->config, config_);
    EXPECT_THAT(loaded->weights, SizeIs(model::parameters(config_.model).size()));
    EXPECT_EQ(loaded->notice, "");
  }
  EXPECT_EQ(load_model(checkpoint(1).string())->path, checkpoint(1).string());
  EXPECT_TRUE(load_model(checkpoint(1).string() + "/").ok());
}

// Claim: a damaged newest checkpoint of a run is passed over and named; asked for by name it is refused, and the
// complete one beside it is offered.
TEST_F(GenerateFiles, a_damaged_checkpoint_offers_the_older_one) {
  write(1);
  write(2);
  damage(2);
  const auto loaded = load_model(run_.string());
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_EQ(loaded->path, checkpoint(1).string());
  EXPECT_THAT(loaded->notice, HasSubstr("step-00000002"));
  for (const std::string tail : {"", "/"}) {
    const auto refused = load_model(checkpoint(2).string() + tail);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, base::ErrorCode::corrupt);
    EXPECT_THAT(refused.error().message, HasSubstr(checkpoint(1).string()));
  }
}

// Claim: a missing folder, a folder without checkpoints, a foreign vocabulary and a missing compute library each end
// with a sentence and status 1, and nothing on the output.
TEST_F(GenerateFiles, what_cannot_be_loaded_is_said) {
  GenerateOptions options;
  options.prompt = "x";
  options.library = (run_ / "no-library.so").string();
  const auto complaint = [&](const fs::path& path) {
    options.checkpoint = path.string();
    std::ostringstream out;
    std::ostringstream err;
    EXPECT_EQ(run_generate(options, out, err), 1);
    EXPECT_EQ(out.str(), "");
    return err.str();
  };
  EXPECT_THAT(complaint(run_ / "absent"), HasSubstr("there is no such folder"));
  EXPECT_THAT(complaint(run_), HasSubstr("stagecoach generate: "));
  write(1);
  EXPECT_THAT(complaint(run_), HasSubstr("no-library.so"));
  config_.model.vocab = 512;
  write(2);
  EXPECT_THAT(complaint(run_), AllOf(HasSubstr("vocabulary of 512"), HasSubstr("byte-256")));
}

}  // namespace
}  // namespace stagecoach::app
