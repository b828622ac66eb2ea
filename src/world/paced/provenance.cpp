#include "world/paced/provenance.h"

#include <cmath>

#include "base/check.h"
#include "base/prng.h"

namespace stagecoach::world::paced {

using base::mix64;
using base::Error;
using base::ErrorCode;
using base::Payload;
using base::Result;

namespace {

enum Kind : std::uint64_t { kInit = 1, kData, kForward, kBackward, kLoss, kGradient, kWeights, kNorm };

std::uint64_t fold(std::initializer_list<std::uint64_t> words) {
  std::uint64_t h = 0;
  for (std::uint64_t word : words) h = mix64(h, word);
  return h;
}

Payload wrap(std::span<const std::uint64_t> words) {
  base::ByteWriter out;
  for (std::uint64_t word : words) out.u64(word);
  return base::make_payload(out.take());
}
Payload wrap(std::uint64_t word) { return wrap(std::span(&word, 1)); }

std::vector<std::uint64_t> unwrap_all(const Payload& payload) {
  CHECK(payload && payload->size() % 8 == 0, "a provenance tensor is whole words");
  base::ByteReader in(*payload);
  std::vector<std::uint64_t> words(payload->size() / 8);
  for (auto& word : words) word = in.u64();
  return words;
}
std::uint64_t unwrap(const Payload& payload) { return unwrap_all(payload).at(0); }

std::uint64_t data_hash(const worker::DataRef& ref) { return fold({kData, ref.validation ? 1u : 0u, ref.index}); }
std::uint64_t forward_hash(std::uint64_t stage, std::uint64_t weights, std::uint64_t in) { return fold({kForward, stage, weights, in}); }
std::uint64_t loss_hash(std::uint64_t weights, std::uint64_t in) { return fold({kLoss, weights, in}); }
/// A loss between 1 and 5 with many significant bits, so that order and repeats show.
double loss_of(std::uint64_t hash) { return 1.0 + 4.0 * static_cast<double>(hash >> 11) * 0x1.0p-53; }
std::uint64_t backward_hash(std::uint64_t stage, std::uint64_t weights, std::uint64_t in, std::uint64_t dz) {
  return fold({kBackward, stage, weights, in, dz});
}
std::uint64_t gradient_hash(std::uint64_t stage, std::uint64_t step, std::uint64_t tokens, std::uint64_t in, std::uint64_t dz,
                            std::uint64_t element) {
  return fold({kGradient, stage, step, tokens, in, dz, element});
}
double norm_of(std::uint64_t stage, const std::vector<std::uint64_t>& sums) {
  std::uint64_t h = fold({kNorm, stage});
  for (std::uint64_t sum : sums) h = mix64(h, sum);
  return static_cast<double>(h >> 40);
}
std::uint64_t next_weights(std::uint64_t weights, const std::vector<std::uint64_t>& sums, double global_norm) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &global_norm, sizeof bits);
  std::uint64_t h = fold({kWeights, weights, bits});
  for (std::uint64_t sum : sums) h = mix64(h, sum);
  return h;
}
std::uint64_t hash_of(const std::vector<std::uint64_t>& sums) {
  std::uint64_t h = 0;
  for (std::uint64_t sum : sums) h = mix64(h, sum);
  return h;
}

}  // namespace

std::uint64_t exported_word(std::uint64_t weights, std::uint64_t tensor) { return tensor == 0 ? weights : mix64(weights, tensor); }

std::string exported_name(std::uint64_t stage, std::uint64_t tensor) {
  return "stage." + std::to_string(stage) + ".tensor." + std::to_string(tensor);
}

ProvenanceStage::ProvenanceStage(const model::TrainConfig& config, std::uint64_t stage, std::uint64_t stages, std::int64_t lanes,
                                 std::int64_t elements)
    : config_(config),
      stage_(stage),
      stages_(stages),
      lanes_(static_cast<std::size_t>(lanes)),
      elements_(static_cast<std::size_t>(std::max(lanes, elements))),
      weights_(fold({kInit, stage})) {}

Payload ProvenanceStage::slice_of(const std::vector<std::uint64_t>& sums, const replica::Slice& slice) const {
  std::vector<std::uint64_t> words;
  words.reserve(static_cast<std::size_t>(slice.last - slice.first));
  for (auto e = static_cast<std::size_t>(slice.first); e < static_cast<std::size_t>(slice.last); ++e)
    words.push_back(sums[e % lanes_] * multiplier(e / lanes_));
  return wrap(words);
}

Result<std::vector<std::uint64_t>> ProvenanceStage::lanes_of(const worker::WriteReduced& write) const {
  std::vector<std::uint64_t> lanes(lanes_, 0);
  // Shards come in order, so that the lanes themselves come first.
  for (const auto& [slice, sums] : write.sums) {
    const auto words = unwrap_all(sums);
    for (std::size_t i = 0; i < words.size(); ++i) {
      const std::size_t e = static_cast<std::size_t>(slice.first) + i;
      if (e < lanes_) lanes[e] = words[i];
      else if (words[i] != lanes[e % lanes_] * multiplier(e / lanes_))
        return Error{ErrorCode::corrupt, "element " + std::to_string(e) + " of the reduced sum does not come from the contributions of the others"};
    }
  }
  return lanes;
}

std::uint64_t ProvenanceStage::input_hash(const worker::Input& input, worker::ComputeResult& result) const {
  if (stage_ > 0) return unwrap(input.boundary);
  if (!input.tokens) result.tokens = wrap(data_hash(*input.data));
  return data_hash(*input.data);
}

Result<worker::ComputeResult> ProvenanceStage::run(const worker::ComputeRequest& request) {
  worker::ComputeResult result;
  if (auto* forward = std::get_if<worker::Forward>(&request)) {
    CHECK(forward->version == version_, "a forward runs on the version that is held");
    result.payload = wrap(forward_hash(stage_, weights_, input_hash(forward->input, result)));
  } else if (auto* evaluate = std::get_if<worker::Evaluate>(&request)) {
    CHECK(evaluate->version == version_, "an evaluation runs on the version that is held");
    result.loss_sum = loss_of(loss_hash(weights_, input_hash(evaluate->input, result)));
  } else if (auto* backward = std::get_if<worker::Backward>(&request)) {
    CHECK(backward->version == version_, "a backward runs on the version that is held");
    const std::uint64_t in = input_hash(backward->input, result);
    const std::uint64_t tokens = stage_ > 0 ? unwrap(backward->input.tokens) : in;
    const bool tail = stage_ + 1 == stages_;
    const std::uint64_t dz = tail ? loss_hash(weights_, in) : unwrap(backward->output_gradient);
    auto& sums = sums_[{backward->step, backward->attempt}];
    sums.resize(lanes_, 0);
    for (std::uint64_t e = 0; e < sums.size(); ++e) sums[e] += gradient_hash(stage_, backward->step.value(), tokens, in, dz, e);
    result.payload = wrap(backward_hash(stage_, weights_, in, dz));
    if (tail) result.loss_sum = loss_of(dz);
  } else if (auto* read = std::get_if<worker::ReadSum>(&request)) {
    auto& sums = sums_[{read->step, read->attempt}];
    sums.resize(lanes_, 0);
    result.payload = slice_of(sums, read->slice);
  } else if (auto* add = std::get_if<worker::AddParts>(&request)) {
    std::vector<std::uint64_t> total = unwrap_all(add->parts.at(0));
    for (std::size_t i = 1; i < add->parts.size(); ++i) {
      const auto part = unwrap_all(add->parts[i]);
      for (std::size_t e = 0; e < total.size(); ++e) total[e] += part.at(e);
    }
    result.payload = wrap(total);
  } else if (auto* write = std::get_if<worker::WriteReduced>(&request)) {
    auto& reduced = reduced_[{write->step, write->attempt}];
    if (write->sums.empty()) {  // the worker is its whole group
      reduced = sums_[{write->step, write->attempt}];
      reduced.resize(lanes_, 0);
    } else {
      auto lanes = lanes_of(*write);
      if (!lanes) return lanes.error();
      reduced = std::move(*lanes);
    }
    result.hash = hash_of(reduced);
    result.norms.push_back({base::TensorIndex(stage_), norm_of(stage_, reduced)});
  } else if (auto* apply = std::get_if<worker::Apply>(&request)) {
    const auto it = reduced_.find({apply->step, apply->attempt});
    CHECK(it != reduced_.end() && apply->step.value() == version_.value() + 1, "an apply follows its reduce, in step order");
    weights_ = next_weights(weights_, it->second, apply->global_norm);
    version_ = base::WeightVersion(apply->step.value());
    sums_.clear();
    reduced_.clear();
  } else if (auto* nothing = std::get_if<worker::ApplyNothing>(&request)) {
    version_ = base::WeightVersion(nothing->step.value());
  } else if (auto* voided = std::get_if<worker::VoidAttemptsBefore>(&request)) {
    std::erase_if(sums_, [&](const auto& entry) { return entry.first.second < voided->attempt; });
    std::erase_if(reduced_, [&](const auto& entry) { return entry.first.second < voided->attempt; });
  } else if (std::holds_alternative<worker::ExportState>(request)) {
    for (std::uint64_t tensor = 0; tensor < kProvenanceTensors; ++tensor)
      result.state.push_back({exported_name(stage_, tensor), {base::DType::i64, {1}, wrap(exported_word(weights_, tensor))}});
  }
  return result;
}

Undisturbed::Undisturbed(const model::TrainConfig& config, std::uint64_t stages, std::int64_t elements)
    : config_(config), stages_(stages), elements_(static_cast<std::size_t>(elements)), weights_(1) {
  for (std::uint64_t s = 0; s < stages; ++s) weights_[0].push_back(fold({kInit, s}));
}

std::uint64_t Undisturbed::weights(std::uint64_t stage, base::WeightVersion version) {
  reach(version.value());
  return weights_[version.value()][stage];
}

const std::vector<double>& Undisturbed::train_losses(base::Step step) { return losses(step).train; }
const std::vector<double>& Undisturbed::eval_losses(base::Step step) { return losses(step).eval; }

const Undisturbed::Losses& Undisturbed::losses(base::Step step) {
  reach(step.value());
  return losses_[step];
}

void Undisturbed::forget(base::Step last) { losses_.erase(losses_.begin(), losses_.upper_bound(last)); }

void Undisturbed::reach(std::uint64_t version) {
  while (weights_.size() <= version) {
    const base::Step step(weights_.size());
    const std::vector<std::uint64_t> now = weights_.back();
    const auto plan = model::plan_of(config_, step);
    std::vector<std::vector<std::uint64_t>> sums(stages_, std::vector<std::uint64_t>(elements_, 0));
    Losses& found = losses_[step];
    for (std::int64_t m = 0; m < plan.total(); ++m) {
      const bool trained = m < plan.train;
      const worker::DataRef data{!trained, trained ? (step.value() - 1) * static_cast<std::uint64_t>(config_.batch.microbatches) +
                                                         static_cast<std::uint64_t>(m)
                                                   : static_cast<std::uint64_t>(m - plan.train)};
      const std::uint64_t tokens = data_hash(data);
      std::vector<std::uint64_t> in{tokens};
      for (std::uint64_t s = 0; s + 1 < stages_; ++s) in.push_back(forward_hash(s, now[s], in.back()));
      std::uint64_t dz = loss_hash(now[stages_ - 1], in.back());
      (trained ? found.train : found.eval).push_back(loss_of(dz));
      for (std::uint64_t s = stages_; trained && s-- > 0;) {
        for (std::uint64_t e = 0; e < sums[s].size(); ++e) sums[s][e] += gradient_hash(s, step.value(), tokens, in[s], dz, e);
        dz = backward_hash(s, now[s], in[s], dz);
      }
    }
    double squares = 0;
    for (std::uint64_t s = 0; s < stages_; ++s) squares += norm_of(s, sums[s]);
    std::vector<std::uint64_t> next = now;
    for (std::uint64_t s = 0; s < stages_; ++s)
      if (plan.train > 0) next[s] = next_weights(now[s], sums[s], std::sqrt(squares));
    weights_.push_back(std::move(next));
  }
}

Reference undisturbed(const model::TrainConfig& config, std::uint64_t stages) {
  Undisturbed run(config, stages);
  Reference ref;
  ref.weights.resize(stages);
  const std::uint64_t last = model::final_step(config).value();
  for (std::uint64_t version = 0; version <= last; ++version) {
    for (std::uint64_t s = 0; s < stages; ++s) ref.weights[s].push_back(run.weights(s, base::WeightVersion(version)));
    if (version == 0) continue;
    ref.train_losses.push_back(run.train_losses(base::Step(version)));
    ref.eval_losses.push_back(run.eval_losses(base::Step(version)));
  }
  return ref;
}

}  // namespace stagecoach::world::paced
