// The Stage on one device of this machine.
//
// In/out:  as stage.h says.
// Thread:  compute.
// Why:     weights live on the device; sums and moments beside them where the device's arithmetic can keep them, else in this
//          machine's memory.
#pragma once

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "compute/accumulator.h"
#include "compute/kept_forwards.h"
#include "compute/layers.h"
#include "compute/optimizer.h"
#include "compute/stage.h"

namespace stagecoach::compute {

class LocalStage final : public Stage {
 public:
  /// errors: invalid_argument  the config has problems or the range is not within the model · unavailable  no such device
  static base::Result<std::unique_ptr<Stage>> make(const StageOptions& options);

  std::int64_t elements() const override { return elements_; }
  base::WeightVersion version() const override { return versions_.rbegin()->first; }
  base::Result<base::Payload> forward(base::WeightVersion version, const StageInput& input,
                                      const std::optional<MicrobatchName>& name) override;
  base::Result<double> evaluate(base::WeightVersion version, const StageInput& input) override;
  base::Result<BackwardOutput> backward(base::WeightVersion version, const MicrobatchName& name, const StageInput& input,
                                        const base::Payload& output_gradient) override;
  base::Result<base::Payload> read_sum(base::Step step, base::Attempt attempt, ElementRange range) override;
  base::Result<base::Payload> add_parts(const std::vector<base::Payload>& parts) override;
  base::Result<void> reduce_alone(base::Step step, base::Attempt attempt) override;
  base::Result<void> write_reduced(base::Step step, base::Attempt attempt, ElementRange range,
                                   const base::Payload& sums) override;
  base::Result<std::vector<TensorNorm>> norms(base::Step step, base::Attempt attempt) override;
  base::Result<void> apply(base::Step step, base::Attempt attempt, double global_norm) override;
  base::Result<void> apply_nothing(base::Step step) override;
  void void_attempts_before(base::Attempt attempt) override;
  base::Result<std::vector<base::NamedTensor>> export_state() override;
  base::Result<void> import_state(base::WeightVersion version, const std::vector<base::NamedTensor>& tensors) override;
  std::string numerics_class() const override;

 private:
  LocalStage(const StageOptions& options, const at::Device& device);

  // local_stage.cpp: a microbatch
  struct Input;
  base::Result<const WeightSet*> weights(base::WeightVersion version) const;
  base::Result<Input> read_input(const StageInput& input) const;
  base::Result<void> read_tokens(const base::Payload& tokens, Input& input) const;
  base::Result<at::Tensor> boundary_tensor(const base::Payload& payload, std::int64_t width, const char* what) const;
  at::Tensor run_layers(const WeightSet& weights, const Input& input, std::vector<LayerKept>* kept) const;
  base::Result<BackwardOutput> backward_through(const WeightSet& weights, const Input& input, std::vector<LayerKept> kept,
                                                at::Tensor gradient, GradientSink& sink) const;
  bool is_head() const { return range_.first == 0; }
  bool is_tail() const { return range_.last == config_.model.layers; }
  bool sees_tokens() const;  // at a cut in front of one of its layers
  std::int64_t input_width() const { return config_.model.boundary_width(range_.first - 1); }
  std::int64_t output_width() const { return config_.model.boundary_width(range_.last - 1); }
  std::int64_t tokens() const { return config_.batch.sequences * config_.batch.tokens; }

  // stage_state.cpp: weights and the optimizer
  void fill_initial();
  bool weights_are_state() const { return config_.numbers.compute == config_.numbers.state && device_ == state_device_; }
  base::Result<void> follows_newest(base::Step step) const;
  WeightSet& next_version(base::WeightVersion version);
  void update(std::size_t tensor, const UpdateFactors& factors, const Accumulator& sums, const WeightSet& weights);
  void share_state(const WeightSet& newest);  // its tensors become the masters, where they can be

  // stage_sums.cpp: sums
  Accumulator& accumulator(base::Step step, base::Attempt attempt);
  base::Result<const Accumulator*> reduced(base::Step step, base::Attempt attempt) const;
  base::Result<void> range_is_valid(ElementRange range) const;
  void drop_sums_to(base::Step step);

  // stage_checkpoint.cpp: export and import
  struct StatePlace;
  std::vector<StatePlace> state_places();

  /// What the optimizer keeps, by tensor, flat, in numbers.state, on state_device_; of the newest version. The weights here are the
  /// masters. They are the newest WeightSet's own tensors where number and device are the same; else a WeightSet holds copies in
  /// numbers.compute on device_, made anew by each apply.
  struct State {
    std::vector<at::Tensor> weights, moments, second_moments;  // no second moment under Muon
  };

  const model::TrainConfig config_;
  const model::StageRange range_;
  const at::Device device_;
  const at::Device state_device_;      // the device's own memory where it has float64 and int64, else this machine's
  const StateMath& math_;              // knows state_device_
  const std::size_t versions_kept_;
  const std::vector<model::ParameterInfo> infos_;
  std::vector<std::int64_t> offsets_;  // of each tensor among the stage's elements
  std::int64_t elements_ = 0;
  Rotation rotation_;
  Optimizer optimizer_;
  std::map<base::WeightVersion, WeightSet> versions_;
  State state_;
  at::Tensor spare_sums_;  // the memory of the step before, for the next
  std::map<std::pair<base::Step, base::Attempt>, Accumulator> sums_;
  KeptForwards kept_;
};

}  // namespace stagecoach::compute
