// Small CPU kernels that torch would make of many operators each.
//
// In/out:  contiguous fp32 rows.
// Thread:  compute.
// Why:     on small models the operators' own overhead is a tenth of the step. Sums are in lanes written out, so that the bits
//          are one computer's whatever the vector width.
#pragma once

#include <cstdint>

namespace stagecoach::compute {

/// Rows of a matrix: T tokens of D elements.
struct Rows {
  std::int64_t rows = 0;
  std::int64_t width = 0;
};

/// y = x · rstd · weight with rstd = 1 / sqrt(mean(x²) + eps); rstd has one element a row.
void rms_norm_forward(Rows shape, const float* x, const float* weight, float eps, float* y, float* rstd);

/// dx and dweight of rms_norm_forward. dweight is summed in fp64, row after row.
void rms_norm_backward(Rows shape, const float* x, const float* weight, const float* rstd, const float* dy, float* dx,
                       float* dweight);

/// Gradients of y = SiLU(a) · b, elementwise, with sigmoid(a) given.
void gate_backward(std::int64_t count, const float* a, const float* sigmoid, const float* b, const float* dy, float* da, float* db);

/// [rows, heads, 2·half] tokens whose position is row % positions.
struct Heads {
  std::int64_t rows = 0;
  std::int64_t positions = 0;
  std::int64_t heads = 0;
  std::int64_t half = 0;
};

/// RoPE, half-split: turns (x1, x2) by the position's angles; direction −1 turns back, which is its gradient.
/// shapes: cosine, sine [positions, half]
void rotate(Heads shape, const float* x, const float* cosine, const float* sine, float direction, float* y);

}  // namespace stagecoach::compute
