#include "world/real/device.h"

#include <bit>
#include <cstring>

#include "compute/library.h"
#include "digest/digest.h"
#include "store/safetensors.h"

namespace stagecoach::world::real {

using base::Error;
using base::ErrorCode;
using base::Payload;
using base::Result;
using worker::ComputeResult;

namespace {

std::uint64_t hash_of(const std::vector<wire::NormEntry>& norms) {
  base::ByteWriter out;
  for (const wire::NormEntry& norm : norms) {
    out.u64(norm.tensor.value());
    out.u64(std::bit_cast<std::uint64_t>(norm.sum_of_squares));
  }
  return digest::xxh3(out.take());
}

}  // namespace

Result<worker::PrepareDone> Device::prepare(const Setup& setup) {
  auto library = compute::open_library(options_.library);
  if (!library) return library.error();
  const model::StageRange range = setup.split.at(setup.stage);
  auto stage = (*library)->make_stage({setup.config, range, options_.device, setup.versions_kept, options_.recompute, options_.kept_bytes_max});
  if (!stage) return stage.error().within("the device \"" + options_.device + "\"");
  stage_ = std::move(*stage);
  if (setup.version.value() > 0) {
    std::vector<base::NamedTensor> tensors;
    for (const auto& path : setup.state_files) {
      auto file = store::SafetensorsFile::open(path);
      if (!file) return file.error();
      for (const auto& entry : file->entries()) tensors.push_back(file->read(entry));
    }
    if (auto loaded = stage_->import_state(setup.version, tensors); !loaded) return loaded.error().within("the checkpoint");
  }
  if (setup.shards_folder) {
    auto shards = data::TokenShards::open(*setup.shards_folder, {setup.config.model.vocab, true});
    if (!shards) return shards.error();
    auto cutter = data::BatchCutter::make(std::move(*shards), setup.config.batch, setup.config.model.vocab);
    if (!cutter) return cutter.error();
    cutter_.emplace(std::move(*cutter));
  }
  const auto& batch = setup.config.batch;
  const auto boundary = [&](std::int64_t layer) { return static_cast<std::size_t>(setup.config.boundary_bytes(layer)); };
  worker::PrepareDone done;
  done.elements = stage_->elements();
  done.element_bytes = model::bytes_of(setup.config.numbers.sums);
  done.token_bytes = static_cast<std::size_t>(batch.sequences * (batch.tokens + 1)) * 4;
  done.input_bytes = setup.stage == 0 ? 0 : boundary(range.first - 1);
  done.output_bytes = setup.stage + 1 == setup.split.size() ? 0 : boundary(range.last - 1);
  done.numerics_class = stage_->numerics_class();
  return done;
}

Result<ComputeResult> Device::run(const worker::ComputeRequest& request) {
  if (!stage_) return Error{ErrorCode::internal, "the device was not opened"};
  return std::visit([this](const auto& each) { return run_one(each); }, request);
}

Result<compute::StageInput> Device::input(const worker::Input& from, ComputeResult& result) const {
  compute::StageInput to{from.tokens, from.boundary};
  if (to.tokens) return to;
  if (!from.data || !cutter_) return Error{ErrorCode::internal, "a microbatch without tokens at a stage without shards"};
  auto tokens = from.data->validation ? cutter_->validation_tokens(static_cast<std::int64_t>(from.data->index))
                                      : cutter_->tokens_of(base::MicrobatchId(from.data->index));
  if (!tokens) return tokens.error();
  to.tokens = result.tokens = std::move(*tokens);
  return to;
}

Result<ComputeResult> Device::run_one(const worker::Forward& request) {
  ComputeResult result;
  auto in = input(request.input, result);
  if (!in) return in.error();
  std::optional<compute::MicrobatchName> name;
  if (request.backward_follows) name = {request.step, request.attempt, request.index};
  auto boundary = stage_->forward(request.version, *in, name);
  if (!boundary) return boundary.error();
  result.payload = std::move(*boundary);
  return result;
}

Result<ComputeResult> Device::run_one(const worker::Evaluate& request) {
  ComputeResult result;
  auto in = input(request.input, result);
  if (!in) return in.error();
  auto loss = stage_->evaluate(request.version, *in);
  if (!loss) return loss.error();
  result.loss_sum = *loss;
  return result;
}

Result<ComputeResult> Device::run_one(const worker::Backward& request) {
  ComputeResult result;
  auto in = input(request.input, result);
  if (!in) return in.error();
  auto out = stage_->backward(request.version, {request.step, request.attempt, request.index}, *in, request.output_gradient);
  if (!out) return out.error();
  result.payload = std::move(out->input_gradient);
  result.loss_sum = out->loss_sum;
  return result;
}

Result<ComputeResult> Device::run_one(const worker::ReadSum& request) {
  auto sums = stage_->read_sum(request.step, request.attempt, {request.slice.first, request.slice.last});
  if (!sums) return sums.error();
  ComputeResult result;
  result.payload = std::move(*sums);
  return result;
}

Result<ComputeResult> Device::run_one(const worker::AddParts& request) {
  auto total = stage_->add_parts(request.parts);
  if (!total) return total.error();
  ComputeResult result;
  result.payload = std::move(*total);
  return result;
}

Result<ComputeResult> Device::run_one(const worker::WriteReduced& request) {
  ComputeResult result;
  const bool alone = request.sums.empty();
  if (alone) {
    if (auto own = stage_->reduce_alone(request.step, request.attempt); !own) return own.error();
  }
  for (const auto& [slice, sums] : request.sums) {
    if (auto written = stage_->write_reduced(request.step, request.attempt, {slice.first, slice.last}, sums); !written)
      return written.error();
    // Chained over the slices in order: members of one view cut alike, so equal sums give equal hashes.
    base::ByteWriter link;
    link.u64(result.hash);
    link.u64(digest::xxh3(*sums));
    result.hash = digest::xxh3(link.take());
  }
  auto norms = stage_->norms(request.step, request.attempt);
  if (!norms) return norms.error();
  for (const auto& norm : *norms) result.norms.push_back({norm.tensor, norm.sum_of_squares});
  // Nobody else has a sum to compare with: what follows from the sums names them well enough.
  if (alone) result.hash = hash_of(result.norms);
  return result;
}

Result<ComputeResult> Device::run_one(const worker::Apply& request) {
  if (auto done = stage_->apply(request.step, request.attempt, request.global_norm); !done) return done.error();
  return ComputeResult{};
}

Result<ComputeResult> Device::run_one(const worker::ApplyNothing& request) {
  if (auto done = stage_->apply_nothing(request.step); !done) return done.error();
  return ComputeResult{};
}

Result<ComputeResult> Device::run_one(const worker::VoidAttemptsBefore& request) {
  stage_->void_attempts_before(request.attempt);
  return ComputeResult{};
}

Result<ComputeResult> Device::run_one(const worker::ExportState& request) {
  if (stage_->version() != request.version) return Error{ErrorCode::internal, "asked for the state of a version that is not held"};
  auto state = stage_->export_state();
  if (!state) return state.error();
  ComputeResult result;
  result.state = std::move(*state);
  return result;
}

}  // namespace stagecoach::world::real
