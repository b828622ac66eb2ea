#include "app/unsplit.h"

#include <chrono>
#include <cmath>
#include <iostream>

#include "app/generate.h"
#include "app/run_report.h"
#include "app/view_thread.h"
#include "observe/event.h"
#include "observe/progress.h"
#include "store/checkpoint.h"
#include "world/real/device.h"

namespace stagecoach::app {

using base::MicrobatchIndex;
using base::Result;
using base::Step;
using world::real::Device;

namespace {

constexpr base::Attempt kAttempt(1);

/// One machine doing the whole of a run, in microbatch order.
class Unsplit {
 public:
  Unsplit(const RunFolder& folder, bool plain)
      : folder_(folder),
        config_(folder.settings.train),
        view_({1, static_cast<std::uint64_t>(folder.settings.print_every), plain}),
        progress_(static_cast<std::uint64_t>(config_.schedule.steps), 0, config_.batch.tokens_per_step()),
        device_({library_beside_program(), folder.settings.device, folder.settings.recompute, folder.settings.kept_bytes}) {}

  Result<void> run() {
    const auto began = std::chrono::steady_clock::now();
    const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count(); };
    view_.say("run       " + folder_.path.string());
    view_.say("model     " + model_line(folder_) + " in one process, " + std::to_string(config_.schedule.steps) + " steps of " +
              std::to_string(config_.batch.tokens_per_step()) + " tokens");
    view_.say("data      " + folder_.shards.string() + (folder_.shards_reused ? " (cut before)" : " (cut now)"));
    Device::Setup setup;
    setup.config = config_;
    setup.split = {{0, config_.model.layers}};
    setup.shards_folder = folder_.shards.string();
    auto ready = device_.prepare(setup);
    if (!ready) return ready.error();
    elements_ = ready->elements;
    numerics_class_ = ready->numerics_class;
    auto events = observe::EventLog::open(folder_.file("events.jsonl").string());
    if (!events) return events.error();
    for (Step step(1); step <= model::final_step(config_); step = step.next()) {
      RETURN_IF_ERROR(run_step(step, *events));
      RETURN_IF_ERROR(events->flush());
      show(step, elapsed());
      if (step.value() == static_cast<std::uint64_t>(config_.schedule.steps)) RETURN_IF_ERROR(save(step));
    }
    view_.close(base::Duration::milliseconds(500));
    RunSummary summary = summarize(folder_, status_, status_.elapsed_s, status_.tokens);
    summary.boundaries.clear();  // nothing crosses anything
    std::cout << summary_text(summary) << std::flush;
    return {};
  }

 private:
  void show(Step step, double elapsed_s) {
    progress_.fill(status_);
    status_.elapsed_s = elapsed_s;
    status_.phase = step == model::final_step(config_) ? observe::Phase::finished : observe::Phase::training;
    view_.show(status_);
  }

  Result<void> run_step(Step step, observe::EventLog& events) {
    const auto plan = model::plan_of(config_, step);
    const base::WeightVersion version(step.value() - 1);
    double train = 0, eval = 0;
    for (std::int64_t m = 0; m < plan.train; ++m) {
      worker::Input input;
      input.data = worker::DataRef{false, (step.value() - 1) * static_cast<std::uint64_t>(config_.batch.microbatches) + static_cast<std::uint64_t>(m)};
      auto done = device_.run(worker::Backward{version, step, kAttempt, MicrobatchIndex(static_cast<std::uint64_t>(m)), input, nullptr});
      if (!done) return done.error();
      train += done->loss_sum;
    }
    for (std::int64_t v = 0; v < plan.eval; ++v) {
      worker::Input input;
      input.data = worker::DataRef{true, static_cast<std::uint64_t>(v)};
      auto done = device_.run(worker::Evaluate{version, input});
      if (!done) return done.error();
      eval += done->loss_sum;
    }
    double norm = 0;
    if (plan.train > 0) {
      auto applied = apply(step);
      if (!applied) return applied.error();
      norm = *applied;
    } else if (auto moved = device_.run(worker::ApplyNothing{step}); !moved) {
      return moved.error();
    }
    return report(step, plan, train, eval, norm, events);
  }

  /// Alone, its sums are the group's: norms, then the optimizer. Returns the global norm.
  Result<double> apply(Step step) {
    auto written = device_.run(worker::WriteReduced{step, kAttempt, {}});
    if (!written) return written.error();
    double squares = 0;
    for (const auto& norm : written->norms) squares += norm.sum_of_squares;
    const double norm = std::sqrt(squares);
    auto applied = device_.run(worker::Apply{step, kAttempt, norm});
    if (!applied) return applied.error();
    return norm;
  }

  Result<void> report(Step step, const model::StepPlan& plan, double train, double eval, double norm, observe::EventLog& events) {
    const double tokens = static_cast<double>(config_.batch.sequences * config_.batch.tokens);
    const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
    const std::int64_t now_ms = std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch).count();
    if (plan.train > 0) {
      const double loss = train / (tokens * static_cast<double>(plan.train));
      RETURN_IF_ERROR(events.append(observe::step_committed(now_ms, step.value(), kAttempt.value(), loss, norm)));
      const auto now = std::chrono::steady_clock::now().time_since_epoch();
      progress_.trained(step.value(), loss, base::Instant() + base::Duration::nanoseconds(std::chrono::nanoseconds(now).count()));
    }
    if (plan.eval > 0) {
      const double loss = eval / (tokens * static_cast<double>(plan.eval));
      RETURN_IF_ERROR(events.append(observe::evaluated(now_ms, step.value() - 1, loss)));
      progress_.evaluated(step.value() - 1, loss);
    }
    return {};
  }

  Result<void> save(Step step) {
    auto state = device_.run(worker::ExportState{base::WeightVersion(step.value())});
    if (!state) return state.error();
    const auto fleet = fleet_options(folder_);
    store::CheckpointMeta meta{base::RunId(), fleet.config_text, step, {{0, config_.model.layers}}, numerics_class_, {}};
    auto writer = store::CheckpointWriter::begin(folder_.path / "checkpoints", meta);
    if (!writer) return writer.error();
    RETURN_IF_ERROR(writer->add_stage_file(base::StageIndex(0), state->state));
    auto path = writer->commit();
    if (!path) return path.error();
    status_.checkpoint = observe::CheckpointStatus{step.value(), path->string()};
    return {};
  }

  const RunFolder& folder_;
  const model::TrainConfig& config_;
  ViewThread view_;
  observe::Progress progress_;
  observe::RunStatus status_;
  Device device_;
  std::int64_t elements_ = 0;
  std::string numerics_class_;
};

}  // namespace

int run_unsplit(const RunFolder& folder, bool plain) {
  if (folder.resumed) {
    std::cerr << "stagecoach: an unsplit reference runs from its start: give it a new folder\n";
    return 1;
  }
  const auto done = Unsplit(folder, plain).run();
  if (done.ok()) return 0;
  std::cerr << "stagecoach: " << done.error().message << "\n";
  return 1;
}

}  // namespace stagecoach::app
