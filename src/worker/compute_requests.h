// What a worker's brain asks of its device, and what comes back.
//
// In/out:  values. Every request has an OpId; every one is answered by a ComputeDone with that id, failure included.
// Thread:  loop; the real world carries requests to the compute thread, the simulated one gives them a modelled duration.
// Why:     compute is an asynchronous effect: the brain never waits and never sees torch.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/result.h"
#include "base/tensor_bytes.h"
#include "base/time.h"
#include "replica/reduce.h"
#include "wire/messages.h"

namespace stagecoach::worker {

/// Names the tokens of a microbatch: the head cuts them from the shards by this alone.
struct DataRef {
  bool validation = false;
  std::uint64_t index = 0;  // MicrobatchId of a training microbatch, or the position among the validation microbatches
};

/// The input of one microbatch at one stage.
struct Input {
  std::optional<DataRef> data;  // at the head
  base::Payload tokens;         // elsewhere; at the head once they were cut
  base::Payload boundary;       // null at the head
};

struct Forward {
  base::WeightVersion version;
  base::Step step;
  base::Attempt attempt;
  base::MicrobatchIndex index;
  bool backward_follows = true;  // false for a microbatch that is only evaluated
  Input input;
};
struct Evaluate { base::WeightVersion version; Input input; };
struct Backward {
  base::WeightVersion version;
  base::Step step;
  base::Attempt attempt;
  base::MicrobatchIndex index;
  Input input;
  base::Payload output_gradient;  // null at the tail
};
struct ReadSum { base::Step step; base::Attempt attempt; base::ShardIndex shard; replica::Slice slice; };
struct AddParts { base::Step step; base::ShardIndex shard; std::vector<base::Payload> parts; };
struct WriteReduced {
  base::Step step;
  base::Attempt attempt;
  std::vector<std::pair<replica::Slice, base::Payload>> sums;  // none: the worker is its whole group, and its accumulator the sum
};
struct Apply { base::Step step; base::Attempt attempt; double global_norm = 0; };
struct ApplyNothing { base::Step step; };
struct VoidAttemptsBefore { base::Attempt attempt; };
struct ExportState { base::WeightVersion version; };

using ComputeRequest = std::variant<Forward, Evaluate, Backward, ReadSum, AddParts, WriteReduced, Apply, ApplyNothing,
                                    VoidAttemptsBefore, ExportState>;

/// The answer. Only the fields of the request's kind are filled.
struct ComputeResult {
  base::Payload tokens;                        // Forward, Backward, Evaluate at the head: what was cut
  base::Payload payload;                       // boundary tensor, boundary gradient, sums
  double loss_sum = 0;                         // Backward at the tail, Evaluate
  std::uint64_t hash = 0;                      // WriteReduced
  std::vector<wire::NormEntry> norms;          // WriteReduced
  std::vector<base::NamedTensor> state;        // ExportState
};

}  // namespace stagecoach::worker
