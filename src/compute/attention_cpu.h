// Attention by tiles on the CPU: torch's small products (brgemm) with our loops between them.
//
// In/out:  as attention.h says. Only where attention_tiles_work() says so.
// Thread:  compute, and torch's threads below it.
// Why:     brgemm is a product of tiles in the cache without a tensor around it, in fp32 sums, on AMX where there is AMX.
#pragma once

#include "compute/attention.h"

namespace stagecoach::compute {

AttentionKept attention_forward_by_tiles(const AttentionShape& shape, const at::Tensor& qkv_TP);
at::Tensor attention_backward_by_tiles(const AttentionShape& shape, const at::Tensor& qkv_TP, const AttentionKept& kept,
                                       const at::Tensor& out_gradient_TD);

}  // namespace stagecoach::compute
