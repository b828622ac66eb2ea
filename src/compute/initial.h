// The seeded start of one parameter tensor.
//
// In:      the model's seed and the tensor's index in the whole model. Out: fp32 values.
// Thread:  any.
// Why:     a stage builds exactly its own tensors and gets what the unsplit model would have: the seed is per tensor.
#pragma once

#include <vector>

#include "model/parameters.h"

namespace stagecoach::compute {

/// N(0, 0.02) for a matrix, 1 for a norm's weights (reference, orion-iota-resbm §2.2).
std::vector<float> initial_values(const model::ModelConfig& model, const model::ParameterInfo& info);

}  // namespace stagecoach::compute
