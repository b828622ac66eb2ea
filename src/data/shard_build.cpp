#include "data/shard_build.h"

#include <algorithm>
#include <system_error>
#include <thread>

#include "base/files.h"
#include "data/block_encoder.h"
#include "data/blocks.h"
#include "data/build_journal.h"
#include "data/byte_stream.h"
#include "data/ordered_work.h"
#include "data/shard_writer.h"
#include "data/trained_tokenizers.h"
#include "digest/digest.h"

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
namespace fs = std::filesystem;

/// All that decides the shards' bytes, as far as it is known before the inputs are read.
std::string description_of(const BuildPlan& plan, const Tokenizer& tokenizer) {
  std::string text = "tokenizer=" + tokenizer.id().name + " " + tokenizer.id().hash.hex() + "\n";
  text += "end_of_document=" + (plan.end_of_document ? std::to_string(*plan.end_of_document) : "none") + "\n";
  text += "text_field=" + plan.text_field + "\n";
  text += "holdout_fraction=" + std::to_string(plan.holdout_fraction) + "\n";
  text += "tokens_per_shard=" + std::to_string(plan.tokens_per_shard) + "\n";
  text += "inputs=" + std::to_string(plan.inputs.size()) + "\n";
  for (const Input& input : plan.inputs) {
    std::error_code failed;
    const auto written = fs::last_write_time(input.path, failed);
    text += "input=" + input.name + " (" + std::string(to_string(input.format)) + ", " + std::to_string(input.bytes) +
            " bytes, of time " + std::to_string(failed ? 0 : written.time_since_epoch().count()) + ")\n";
  }
  return text;
}

/// One build: the order-keeping part, on the caller's thread, and what the other threads need.
class Build {
 public:
  Build(const fs::path& directory, const BuildPlan& plan, const Tokenizer& tokenizer, const BuildHooks& hooks,
        BuildJournal journal)
      : directory_(directory),
        plan_(plan),
        tokenizer_(tokenizer),
        hooks_(hooks),
        journal_(std::move(journal)),
        cursor_(journal_.state().cursor),
        sources_(journal_.state().sources),
        writer_(directory, {tokenizer.vocab(), plan.tokens_per_shard}, [this](const ShardInfo& shard) {
          // After the last block its input is among the sources already, and the cursor is before that block.
          return journal_.record(shard, before_, std::span(sources_).first(before_.input));
        }) {
    for (const Input& input : plan.inputs) progress_.total_bytes += input.bytes;
    for (std::size_t i = 0; i < sources_.size(); ++i) read_before_ += plan.inputs[i].bytes;
  }

  Result<ShardManifest> run() {
    RETURN_IF_ERROR(keep_tokenizer());
    if (!journal_.state().shards.empty()) {
      writer_.go_on(journal_.state().shards, cursor_.position, cursor_.documents);
      if (hooks_.say) {
        hooks_.say("going on with an unfinished build: " + std::to_string(journal_.state().shards.size()) +
                   " shards are whole");
      }
    }
    before_ = cursor_;
    next_input_ = cursor_.input;
    next_place_ = cursor_.at;
    const auto done = OrderedWork<Block, EncodedBlock>::run(
        [this] { return next_block(); }, make_workers(), [this](EncodedBlock block) { return take(std::move(block)); });
    if (!done) return done.error();
    RETURN_IF_ERROR(writer_.finish());
    return write_manifest();
  }

 private:
  /// Each makes its tokenizer when it gets its first block, for a helper process takes a moment to begin.
  std::vector<OrderedWork<Block, EncodedBlock>::Work> make_workers() const {
    const int threads = plan_.threads > 0 ? plan_.threads : static_cast<int>(std::thread::hardware_concurrency());
    std::vector<OrderedWork<Block, EncodedBlock>::Work> workers;
    for (int i = 0; i < std::max(threads, 1); ++i) {
      workers.push_back([this, encoder = std::make_shared<std::optional<BlockEncoder>>()](Block block) {
        if (!*encoder) {
          auto own = tokenizer_.another();
          if (!own) return Result<EncodedBlock>(own.error());
          encoder->emplace(std::move(*own), BlockEncoder::Options{plan_.text_field, plan_.end_of_document});
        }
        const Input& input = plan_.inputs[block.input];
        return (*encoder)->encode(std::move(block), input);
      });
    }
    return workers;
  }

  /// Reading thread.
  Result<std::optional<Block>> next_block() {
    while (next_input_ < plan_.inputs.size()) {
      if (!reader_) {
        auto opened =
            BlockReader::open(plan_.inputs[next_input_], next_input_, next_place_, {plan_.text_field, plan_.python});
        if (!opened) return opened.error();
        reader_ = std::move(*opened);
      }
      auto block = reader_->next();
      if (!block || block->has_value()) return block;
      reader_.reset();
      ++next_input_;
      next_place_ = {};
    }
    return std::optional<Block>();
  }

  Result<void> take(EncodedBlock encoded) {
    Block& block = encoded.block;
    cursor_.input = block.input;
    cursor_.at = block.at;
    cursor_.position = writer_.position();
    cursor_.documents = writer_.documents();
    before_ = cursor_;
    for (const Broken& broken : block.broken) RETURN_IF_ERROR(skip(broken));
    cursor_.empty += static_cast<std::int64_t>(encoded.empty);
    cursor_.text_bytes += static_cast<std::int64_t>(encoded.text_bytes);
    if (plan_.inputs[block.input].format == InputFormat::text) join_text(encoded);
    RETURN_IF_ERROR(writer_.append(encoded.packed, encoded.starts));
    if (block.source_end) sources_.push_back(*block.source_end);
    if (hooks_.progress) {
      progress_.read_bytes = read_before_ + block.raw_bytes;
      progress_.text_bytes = cursor_.text_bytes;
      progress_.tokens = writer_.position();
      progress_.documents = writer_.documents();
      progress_.broken = cursor_.broken;
      hooks_.progress(progress_);
    }
    if (block.source_end) read_before_ += plan_.inputs[block.input].bytes;
    return {};
  }

  Result<void> skip(const Broken& broken) {
    if (!plan_.skip_broken) {
      return Error{ErrorCode::corrupt, broken.where + " " + broken.why +
                                           ". Mend or remove it, or leave such things out with --skip-broken"};
    }
    ++cursor_.broken;
    if (hooks_.skipped) hooks_.skipped(broken);
    return {};
  }

  /// Makes the pieces of a text one document: it begins with its first token and ends with the mark.
  void join_text(EncodedBlock& encoded) {
    if (encoded.block.opens) cursor_.in_document = false;
    if (encoded.tokens > 0 && !cursor_.in_document) {
      encoded.starts.push_back(0);
      cursor_.in_document = true;
    }
    if (!encoded.block.closes) return;
    if (!cursor_.in_document) ++cursor_.empty;
    if (cursor_.in_document && plan_.end_of_document) {
      const auto width = static_cast<std::size_t>(token_bytes_for(tokenizer_.vocab()));
      for (std::size_t i = 0; i < width; ++i)
        encoded.packed.push_back(static_cast<std::byte>(*plan_.end_of_document >> (8 * i)));
    }
    cursor_.in_document = false;
  }

  Result<void> keep_tokenizer() {
    const std::string name = tokenizer_file_name(tokenizer_.id().name);
    if (name.empty()) return {};
    auto bytes = base::read_text_file(plan_.tokenizer_file, kTokenizerBytesMax);
    if (!bytes) return bytes.error();
    if (digest::sha256(*bytes) != tokenizer_.id().hash)
      return Error{ErrorCode::mismatch, plan_.tokenizer_file.string() + " was changed while it was read: try again"};
    return write_whole_file(directory_ / name, *bytes);
  }

  Result<ShardManifest> write_manifest() {
    if (writer_.position() == 0) {
      const std::string first = plan_.inputs.front().name;
      return Error{ErrorCode::invalid_argument, "the corpus is empty: " + (first.empty() ? "it" : first) +
                                                    (plan_.inputs.size() > 1 ? " and the other files give" : " gives") +
                                                    " no token to learn from"};
    }
    ShardManifest manifest;
    manifest.tokenizer = tokenizer_.id();
    manifest.vocab = tokenizer_.vocab();
    manifest.token_bytes = token_bytes_for(manifest.vocab);
    manifest.end_of_document = plan_.end_of_document;
    manifest.text_field = plan_.text_field;
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      manifest.sources.push_back(
          {std::string(to_string(plan_.inputs[i].format)), sources_[i].bytes, sources_[i].sha256});
    }
    manifest.tokens_per_shard = plan_.tokens_per_shard;
    manifest.documents = writer_.documents();
    manifest.empty_documents = cursor_.empty;
    manifest.broken_records = cursor_.broken;
    manifest.text_bytes = cursor_.text_bytes;
    manifest.holdout_fraction = plan_.holdout_fraction;
    manifest.validation_tokens = validation_tokens_of(writer_.position(), plan_.holdout_fraction);
    manifest.train_tokens = writer_.position() - manifest.validation_tokens;
    manifest.shards = writer_.shards();
    RETURN_IF_ERROR(write_whole_file(directory_ / kManifestFile, canonical_text(manifest)));
    return manifest;
  }

  const fs::path& directory_;
  const BuildPlan& plan_;
  const Tokenizer& tokenizer_;
  const BuildHooks& hooks_;

  // The caller's thread.
  BuildJournal journal_;
  BuildCursor cursor_;
  BuildCursor before_;  // the state before the block at work
  std::vector<SourceEnd> sources_;
  ShardWriter writer_;
  BuildProgress progress_;
  std::uint64_t read_before_ = 0;

  // The reading thread.
  std::size_t next_input_ = 0;
  Place next_place_;
  std::unique_ptr<BlockReader> reader_;
};

/// What makes the shards that are there other than those of the plan; empty = nothing does.
Result<std::string> difference(const ShardManifest& held, const BuildPlan& plan, const Tokenizer& tokenizer,
                               const BuildHooks& hooks) {
  const auto no = [](const std::string& what) { return Result<std::string>(what); };
  if (held.version != kManifestVersion) return no("they are of an older format");
  if (held.tokenizer != tokenizer.id()) return no("their tokenizer is another");
  if (held.end_of_document != plan.end_of_document) return no("their documents end with another token");
  if (held.holdout_fraction != plan.holdout_fraction) return no("another part of them is held out");
  if (held.tokens_per_shard != plan.tokens_per_shard) return no("their shards are of another size");
  if (held.text_field != plan.text_field) return no("they are of another text field");
  if (held.sources.size() != plan.inputs.size())
    return no("they were made of " + std::to_string(held.sources.size()) + " files");
  if (!plan.skip_broken && held.broken_records > 0)
    return no("they were built with --skip-broken, and " + std::to_string(held.broken_records) +
              " records are left out");
  for (std::size_t i = 0; i < plan.inputs.size(); ++i) {
    if (held.sources[i].bytes != plan.inputs[i].bytes)
      return no(plan.inputs[i].name + " is not what they were made of");
  }
  if (hooks.say) hooks.say("shards of this plan are there; comparing the inputs with what they were made of");
  for (std::size_t i = 0; i < plan.inputs.size(); ++i) {
    auto source = source_of(plan.inputs[i]);
    if (!source) return source.error();
    if (held.sources[i] != *source) return no(plan.inputs[i].name + " is not what they were made of");
  }
  return no("");
}

}  // namespace

std::string problem_of(const BuildPlan& plan, const Tokenizer& tokenizer) {
  if (plan.inputs.empty()) return "the corpus is empty: no file is named";
  if (!(plan.holdout_fraction > 0 && plan.holdout_fraction < 1)) {
    return "the held-out fraction must lie between 0 and 1 (a usual one is 0.05), not be " +
           std::to_string(plan.holdout_fraction);
  }
  if (plan.tokens_per_shard < 1 || plan.tokens_per_shard > kTokensMax)
    return "a shard must hold at least one token and at most " + std::to_string(kTokensMax);
  if (plan.threads < 0 || plan.threads > 1024)
    return "the number of threads must lie between 0 and 1024, not be " + std::to_string(plan.threads);
  if (plan.end_of_document && (*plan.end_of_document < 0 || *plan.end_of_document >= tokenizer.vocab())) {
    return "the end-of-document token " + std::to_string(*plan.end_of_document) + " is not in the vocabulary of " +
           std::to_string(tokenizer.vocab());
  }
  return {};
}

Result<BuildResult> build_in(const fs::path& directory, const BuildPlan& plan, const Tokenizer& tokenizer,
                             const BuildHooks& hooks) {
  if (std::string problem = problem_of(plan, tokenizer); !problem.empty())
    return Error{ErrorCode::invalid_argument, problem};
  RETURN_IF_ERROR(base::make_directories(directory));
  if (auto text = base::read_text_file(directory / kManifestFile, kShardManifestBytesMax); text.ok()) {
    auto held = parse_shard_manifest(*text);
    if (!held) return held.error().within((directory / kManifestFile).string());
    auto other = difference(*held, plan, tokenizer, hooks);
    if (!other) return other.error();
    if (!other->empty()) {
      return Error{ErrorCode::already_exists, directory.string() + " holds other token shards (" + *other +
                                                  "): choose another folder, or remove this one"};
    }
    RETURN_IF_ERROR(BuildJournal::remove(directory));  // of a build that ended between its last two steps
    return BuildResult{std::move(*held), true};
  } else if (text.error().code != ErrorCode::not_found) {
    return text.error();
  }
  auto journal = BuildJournal::open(directory, description_of(plan, tokenizer));
  if (!journal) return journal.error();
  if (const BuildState& state = journal->state(); state.cursor.broken > 0 && !plan.skip_broken) {
    return Error{ErrorCode::mismatch,
                 directory.string() + " holds a build that was begun with --skip-broken and has left out " +
                     std::to_string(state.cursor.broken) + " records: go on with that flag, or remove the folder"};
  }
  auto manifest = Build(directory, plan, tokenizer, hooks, std::move(*journal)).run();
  if (!manifest) return manifest.error();
  RETURN_IF_ERROR(BuildJournal::remove(directory));
  return BuildResult{std::move(*manifest), false};
}

Result<SourceInfo> source_of(const Input& input) {
  Input raw = input;
  raw.compression = Compression::none;
  auto stream = ByteStream::open(raw);
  if (!stream) return stream.error();
  auto end = (*stream)->end();
  if (!end) return end.error();
  return SourceInfo{std::string(to_string(input.format)), end->bytes, end->sha256};
}

}  // namespace stagecoach::data
