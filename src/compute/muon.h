// Muon's middle: a matrix's nearest orthogonal one, by matrix products alone.
//
// In:      the momentum's direction of one weight matrix. Out: a matrix of the same row and column spaces, all singular values near 1.
// Thread:  compute. The bits depend on the matrix's shape, on muon_float and on the threads, never on the stage that holds it.
// Why:     the one part of an update that is not elementwise; a matrix is whole inside a stage, whatever the split.
// Source:  Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks" (kellerjordan.github.io/posts/muon);
//          coefficients, transposition, normalisation and rate as in torch.optim.Muon with adjust_lr_fn "original".
#pragma once

#include "compute/torch.h"
#include "model/config.h"

namespace stagecoach::compute {

/// X ← a·X + (b·A + c·A²)·X with A = X·Xᵀ, `steps` times, from X / ‖X‖: the quintic Newton–Schulz iteration. Its coefficients are
/// steepest at zero, so the singular values end between 0.7 and 1.2 rather than at 1. A tall matrix is transposed before and after.
///
/// shapes: direction fp32 [rows, columns] -> fp32 [rows, columns], contiguous; computed in `number`
at::Tensor orthogonalised(const at::Tensor& direction, std::int64_t steps, model::FloatKind number);

/// What the rate of a matrix is multiplied by: sqrt(max(1, rows / columns)).
double muon_rate_factor(std::int64_t rows, std::int64_t columns);

}  // namespace stagecoach::compute
