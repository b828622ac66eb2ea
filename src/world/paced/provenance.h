// Provenance: tensors that remember where they come from, instead of numbers.
//
// In:      the same compute requests that a real device gets. Out: hashes as 8-byte tensors, sums modulo 2^64, a hash chain of weights.
// Thread:  one.
// Why:     z = hash(stage, weights, input); a gradient = the sum mod 2^64 of hash(stage, step, tokens, z, dz); weights = a hash chain
//          of gradients (DESIGN §3). One lost, doubled or stale contribution is then a wrong integer, and no bug hides behind a
//          tolerance. Simulated devices and paced ones share it, so that both are checked against one reference.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "model/config.h"
#include "worker/compute_requests.h"

namespace stagecoach::world::paced {

/// Lanes of a provenance stage's gradient: enough for several shards of unequal length. Element e of a longer gradient is lane e mod
/// lanes times multiplier(e / lanes): sums of it are checked element by element, and two words of state stand for gigabytes.
inline constexpr std::int64_t kProvenanceElements = 11;
constexpr std::int64_t provenance_elements(std::uint64_t replicas) {
  return std::max(kProvenanceElements, static_cast<std::int64_t>(replicas));
}
inline constexpr std::size_t kProvenanceBytes = 8;
/// Tensors of one word each that a stage exports: their slices travel apart and overtake each other.
inline constexpr std::uint64_t kProvenanceTensors = 3;
/// What word `i` of bytes that stand for one word is multiplied with: odd, so that nothing is lost, and 1 for the first.
constexpr std::uint64_t multiplier(std::uint64_t i) { return 2 * i + 1; }
/// The word of exported tensor `tensor` of a stage with these weights; that of tensor 0 is the weights.
std::uint64_t exported_word(std::uint64_t weights, std::uint64_t tensor);

std::string exported_name(std::uint64_t stage, std::uint64_t tensor);

/// The device of one worker that computes nothing.
class ProvenanceStage {
 public:
  /// `elements`: of the flat gradient that a reduce is told of; at least `lanes`.
  ProvenanceStage(const model::TrainConfig& config, std::uint64_t stage, std::uint64_t stages,
                  std::int64_t lanes = kProvenanceElements, std::int64_t elements = 0);

  /// Goes on from a checkpoint instead of the seeded start.
  void restore(base::WeightVersion version, std::uint64_t weights) { version_ = version, weights_ = weights; }

  /// Carries out one request. A request that no device could serve is a bug (CHECK).
  ///
  /// errors: corrupt  sums whose elements do not come from the same contributions
  base::Result<worker::ComputeResult> run(const worker::ComputeRequest& request);

  base::WeightVersion version() const { return version_; }
  std::uint64_t weights() const { return weights_; }

 private:
  std::uint64_t input_hash(const worker::Input& input, worker::ComputeResult& result) const;
  base::Payload slice_of(const std::vector<std::uint64_t>& sums, const replica::Slice& slice) const;
  /// Finds the lanes in a whole sum.
  base::Result<std::vector<std::uint64_t>> lanes_of(const worker::WriteReduced& write) const;

  model::TrainConfig config_;
  std::uint64_t stage_ = 0;
  std::uint64_t stages_ = 0;
  std::size_t lanes_ = 0;
  std::size_t elements_ = 0;
  base::WeightVersion version_;
  std::uint64_t weights_ = 0;
  using Key = std::pair<base::Step, base::Attempt>;
  std::map<Key, std::vector<std::uint64_t>> sums_;
  std::map<Key, std::vector<std::uint64_t>> reduced_;
};

/// What one machine doing everything in order would have got, as far as anybody has asked yet.
class Undisturbed {
 public:
  Undisturbed(const model::TrainConfig& config, std::uint64_t stages, std::int64_t elements = kProvenanceElements);

  std::uint64_t weights(std::uint64_t stage, base::WeightVersion version);
  /// By microbatch of the step; nothing where forget() has passed it.
  const std::vector<double>& train_losses(base::Step step);
  const std::vector<double>& eval_losses(base::Step step);
  /// The losses of steps up to this one are not asked for any more.
  void forget(base::Step last);

 private:
  struct Losses {
    std::vector<double> train, eval;
  };
  void reach(std::uint64_t version);
  const Losses& losses(base::Step step);

  model::TrainConfig config_;
  std::uint64_t stages_ = 0;
  std::size_t elements_ = 0;
  std::vector<std::vector<std::uint64_t>> weights_;  // [version][stage]
  std::map<base::Step, Losses> losses_;
};

/// All of a run at once.
struct Reference {
  std::vector<std::vector<std::uint64_t>> weights;  // [stage][version]
  std::vector<std::vector<double>> train_losses;    // [step − 1][microbatch]
  std::vector<std::vector<double>> eval_losses;
};
Reference undisturbed(const model::TrainConfig& config, std::uint64_t stages);

}  // namespace stagecoach::world::paced
