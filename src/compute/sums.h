// Gradient sums over plain memory: what a microbatch adds, what replicas add up, what the norms are made of.
//
// In:      one microbatch's summed-loss gradient, fp32 or bfloat16. Out: sums of a model::SumKind.
// Thread:  any; plain memory, no torch.
// Why:     fixed64 (fixed64.h) is exact in any order; float32 and bfloat16 sums cost a half and a quarter of its memory and are
//          the same only where the order is. One set of functions, so that nobody else asks which kind it is.
#pragma once

#include <cstdint>
#include <span>

#include "model/config.h"

namespace stagecoach::compute {

/// What a gradient of `tokens` summed losses is multiplied by before it is added. A power of two: 2^−⌈log2(tokens)⌉, which makes
/// the range of a sum that of a mean gradient; × 2^44 with fixed64.
double sum_scale(model::SumKind kind, std::int64_t tokens);

/// Plain memory of gradients, weights or moments.
struct FloatPiece {
  const void* values = nullptr;
  model::FloatKind kind = model::FloatKind::float32;
  std::int64_t count = 0;
};

/// sums[i] += gradient[i] · scale, rounded once. Returns false where a value does not fit: with fixed64 NaN or 2^51 or more of its
/// units, with the float kinds a sum that is not finite. Everything was added all the same.
[[nodiscard]] bool add_gradient(model::SumKind kind, const FloatPiece& gradient, double scale, void* sums);

/// Takes back, to the bit, what add_gradient added to fixed64 sums.
void subtract_gradient(const FloatPiece& gradient, double scale, std::int64_t* sums);

/// True where no value is NaN or infinite.
bool all_finite(const FloatPiece& piece);

/// Adds slices of sums in the order given into `total`: fixed64 modulo 2^64 (a peer's garbage must not be undefined here), float
/// kinds in fp32, rounded once at the end. The parts need no alignment.
void add_sums(model::SumKind kind, std::span<const std::byte* const> parts, std::int64_t count, void* total);

/// Σ (sums[i] · unit)² in fp64, in an order that depends on `count` alone.
double sum_of_squares(model::SumKind kind, const void* sums, std::int64_t count, double unit);

}  // namespace stagecoach::compute
