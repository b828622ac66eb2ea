#include "world/real/paced_device.h"

#include <errno.h>
#include <sys/prctl.h>
#include <time.h>

#include <cmath>

#include "fleet/brain.h"
#include "store/safetensors.h"
#include "world/real/loop.h"

namespace stagecoach::world::real {

using base::Error;
using base::ErrorCode;
using base::Result;

namespace {

constexpr std::int64_t kElementsLeast = 1024;  // several shards for each of many replicas
constexpr std::int64_t kElementBytes = 8;
constexpr unsigned long kTimerSlackNs = 50'000;

void sleep_until(base::Instant end) {
  const std::int64_t ns = end.ns();
  const timespec until{ns / 1'000'000'000, ns % 1'000'000'000};
  while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
}

/// "0.001", "1"
std::string text_of(double number) {
  std::string text = std::to_string(number);
  text.erase(text.find_last_not_of('0') + 1);
  return text.ends_with('.') ? text.substr(0, text.size() - 1) : text;
}

}  // namespace

paced::TensorSizes PacedDevice::sizes_of(const Device::Setup& setup) {
  const auto& [config, split] = std::tie(setup.config, setup.split);
  const auto boundary = [&](std::uint64_t stage) { return static_cast<std::size_t>(config.boundary_bytes(split.at(stage).last - 1)); };
  paced::TensorSizes sizes;
  sizes.tokens = static_cast<std::size_t>(config.batch.sequences * (config.batch.tokens + 1)) * 4;
  if (setup.stage > 0) sizes.input = boundary(setup.stage - 1);
  if (setup.stage + 1 < split.size()) sizes.output = boundary(setup.stage);
  return sizes;
}

Result<worker::PrepareDone> PacedDevice::prepare(const Device::Setup& setup) {
  ::prctl(PR_SET_TIMERSLACK, kTimerSlackNs);
  const std::size_t stages = setup.split.size();
  for (const auto* list : {&options_.speed.forward, &options_.speed.backward})
    if (list->size() > 1 && list->size() != stages)
      return Error{ErrorCode::invalid_argument, "the paced device has times for " + std::to_string(list->size()) + " stages, and the run has " +
                                                    std::to_string(stages) + ": give one time for all, or one a stage"};
  const paced::TensorSizes sizes = sizes_of(setup);
  const bool head = setup.stage == 0, tail = setup.stage + 1 == stages;
  constexpr std::size_t kWord = paced::kProvenanceBytes;
  if ((!head && sizes.input < kWord) || (!tail && sizes.output < kWord))
    return Error{ErrorCode::invalid_argument, "a paced boundary tensor has at least 8 bytes: give the model a wider cut or larger microbatches"};
  load_ = paced::load_of(options_.speed, setup.config, setup.split.at(setup.stage), setup.stage, options_.recompute);
  const double bulk = static_cast<double>(load_.sum_bytes) * options_.bulk_scale;
  if (bulk > static_cast<double>(kSumBytesMax))
    return Error{ErrorCode::invalid_argument, "the sums of stage " + std::to_string(setup.stage) + " are " + std::to_string(load_.sum_bytes >> 20) +
                                                  " MiB, and a paced worker holds at most " + std::to_string(kSumBytesMax >> 20) +
                                                  " MiB of them in memory: give bulk_scale = " +
                                                  text_of(static_cast<double>(kSumBytesMax) / static_cast<double>(load_.sum_bytes)) + " or less"};
  elements_ = std::max<std::int64_t>(kElementsLeast, std::llround(bulk / kElementBytes));
  state_kind_ = setup.config.numbers.state;
  stage_.emplace(setup.config, setup.stage, stages, paced::kProvenanceElements, elements_);
  if (setup.version.value() > 0) RETURN_IF_ERROR(restore(setup));
  worker::PrepareDone done;
  done.elements = elements_;
  done.element_bytes = kElementBytes;
  done.token_bytes = kWord;
  done.input_bytes = head ? 0 : kWord;
  done.output_bytes = tail ? 0 : kWord;
  done.numerics_class = std::string(fleet::kPacedClass) + ", bulk scale " + text_of(options_.bulk_scale);
  return done;
}

Result<void> PacedDevice::restore(const Device::Setup& setup) {
  const std::string wanted = paced::exported_name(setup.stage, 0);
  for (const auto& path : setup.state_files) {
    auto file = store::SafetensorsFile::open(path);
    if (!file) return file.error();
    for (const auto& entry : file->entries()) {
      if (entry.name != wanted) continue;
      const base::Payload bytes = file->read(entry).tensor.bytes;
      if (bytes->size() != paced::kProvenanceBytes) return Error{ErrorCode::corrupt, wanted + " of the checkpoint is not one word"};
      stage_->restore(setup.version, base::ByteReader(*bytes).u64());
      return {};
    }
  }
  return Error{ErrorCode::not_found, "the checkpoint holds no " + wanted + ": it is not of a paced run with these stages"};
}

double PacedDevice::share_of(const worker::ComputeRequest& request) const {
  const auto all = static_cast<double>(elements_);
  if (const auto* read = std::get_if<worker::ReadSum>(&request)) return static_cast<double>(read->slice.last - read->slice.first) / all;
  if (const auto* add = std::get_if<worker::AddParts>(&request)) return static_cast<double>(add->parts.at(0)->size()) / kElementBytes / all;
  return 0;
}

Result<worker::ComputeResult> PacedDevice::run(const worker::ComputeRequest& request, base::Instant asked) {
  if (!stage_) return Error{ErrorCode::internal, "the device was not opened"};
  auto result = stage_->run(request);
  if (!result) return result.error();
  name_as_checkpoint(result->state);
  const base::Duration time = paced::time_of(load_, request, share_of(request));
  const double factor = paced::is_arithmetic(request) ? options_.slowdown : 1;
  const auto span = occupied_.next(asked, base::Duration::nanoseconds(std::llround(static_cast<double>(time.ns()) * factor)));
  began_ = span.began;
  if (span.ended > monotonic_now()) sleep_until(span.ended);
  occupied_.seen(monotonic_now());
  return result;
}

/// Words in the number format of the run's state, which is what a coordinator takes.
void PacedDevice::name_as_checkpoint(std::vector<base::NamedTensor>& state) const {
  const bool narrow = state_kind_ == model::FloatKind::bfloat16;
  for (auto& named : state) {
    named.tensor.dtype = narrow ? base::DType::bf16 : base::DType::f32;
    named.tensor.shape = {static_cast<std::int64_t>(paced::kProvenanceBytes) / model::bytes_of(state_kind_)};
  }
}

}  // namespace stagecoach::world::real
