// Order-free sums: fp32 gradients become 64-bit fixed point once, and then are only ever added as integers (DESIGN §5).
//
// In:      one microbatch's summed-loss gradient, fp32 or bfloat16 (as its bits). Out: int64 sums in units of 2^−44 · 2^⌈log2(B·S)⌉.
// Thread:  compute; plain memory, no torch.
// Why:     integer sums do not depend on order or owner, which is what makes every split and every failure bit-equal.
#pragma once

#include <cstdint>

namespace stagecoach::compute {

/// More microbatches than this in one step could leave int64: each is below 2^51.
inline constexpr int kMicrobatchesPerSumMax = 4'096;

/// 2^44 · 2^−⌈log2(tokens)⌉: what a gradient of `tokens` summed losses is multiplied by before it is rounded. A power of two.
double fixed64_scale(std::int64_t tokens);

/// Adds round(gradient[i] · scale) to sums[i]. Returns false where an element is NaN or not below 2^51 in size; everything was
/// added all the same, and fixed64_subtract with the same gradient undoes it to the bit.
[[nodiscard]] bool fixed64_add(const float* gradient, std::int64_t count, double scale, std::int64_t* sums);
[[nodiscard]] bool fixed64_add(const std::uint16_t* gradient, std::int64_t count, double scale, std::int64_t* sums);

/// Takes back what fixed64_add added.
void fixed64_subtract(const float* gradient, std::int64_t count, double scale, std::int64_t* sums);
void fixed64_subtract(const std::uint16_t* gradient, std::int64_t count, double scale, std::int64_t* sums);

/// Σ (sums[i] · unit)² in fp64, in an order that depends on `count` alone.
double fixed64_sum_of_squares(const std::int64_t* sums, std::int64_t count, double unit);

/// True where no value is NaN or infinite.
bool all_finite(const float* values, std::int64_t count);
bool all_finite(const std::uint16_t* values, std::int64_t count);

}  // namespace stagecoach::compute
