// The CPU's fused operations, on plain memory, each one pass over its rows.
//
// In/out:  contiguous rows, fp32 or bf16. Whatever the rows are in, a kernel computes in fp32 and rounds once, when it stores.
// Thread:  any; a caller may give each thread its own rows.
// Why:     what is no matrix product must not cost as much as one. Sums are in lanes written out, so that the bits are one
//          computer's whatever the vector width; ops.h has the same operations for every other device.
#pragma once

#include <cstdint>

namespace stagecoach::compute {

/// The bits of one bfloat16.
struct BFloat {
  std::uint16_t bits = 0;
};

/// Rows of a matrix: T tokens of D elements.
struct Rows {
  std::int64_t rows = 0;
  std::int64_t width = 0;
};

/// y = x · rstd · weight with rstd = 1 / sqrt(mean(x²) + eps); rstd has one element a row.
void rms_norm_forward(Rows shape, const float* x, const float* weight, float eps, float* y, float* rstd);
void rms_norm_forward(Rows shape, const BFloat* x, const BFloat* weight, float eps, BFloat* y, float* rstd);

/// A gradient that goes past a norm and is added to what comes through it: [rows, width], width at most the norm's; null = none.
template <class T>
struct Skip {
  const T* gradient = nullptr;
  std::int64_t width = 0;
};

/// dx of rms_norm_forward plus `skip`; the weight's gradient is added to `dweight`, [width] in fp64, row after row.
void rms_norm_backward(Rows shape, const float* x, const float* weight, const float* rstd, const float* dy, Skip<float> skip,
                       float* dx, double* dweight);
void rms_norm_backward(Rows shape, const BFloat* x, const BFloat* weight, const float* rstd, const BFloat* dy,
                       Skip<BFloat> skip, BFloat* dx, double* dweight);

/// y = SiLU(a) · b. shapes: ab [rows, 2·width], a before b in each row; y [rows, width]
void gate_forward(Rows shape, const float* ab, float* y);
void gate_forward(Rows shape, const BFloat* ab, BFloat* y);

/// Replaces ab by its gradient and makes y again, which the gradient of the product behind it needs.
void gate_backward(Rows shape, float* ab, const float* dy, float* y);
void gate_backward(Rows shape, BFloat* ab, const BFloat* dy, BFloat* y);

/// y = SiLU(x), elementwise.
void silu_forward(std::int64_t count, const float* x, float* y);
void silu_forward(std::int64_t count, const BFloat* x, BFloat* y);

/// Replaces dy by dx and makes y again.
void silu_backward(std::int64_t count, const float* x, float* dy, float* y);
void silu_backward(std::int64_t count, const BFloat* x, BFloat* dy, BFloat* y);

/// Rows of which the first `heads` heads of 2·half elements are turned; a row is `stride` elements long, and row i stands at
/// position i % positions.
struct Heads {
  std::int64_t first_row = 0;
  std::int64_t last_row = 0;
  std::int64_t positions = 0;
  std::int64_t heads = 0;
  std::int64_t half = 0;
  std::int64_t stride = 0;
};

/// RoPE, half-split, in place: turns (x1, x2) by the position's angles; direction −1 turns back, which is its gradient.
/// shapes: cosine, sine [positions, half]; x points at row 0
void rotate(Heads shape, const float* cosine, const float* sine, float direction, float* x);
void rotate(Heads shape, const float* cosine, const float* sine, float direction, BFloat* x);

enum class LossOutput : std::uint8_t { loss, loss_and_gradient };

/// −log softmax(logits)[label] of each row, fp64 from fp32 terms; with loss_and_gradient the logits become their gradient.
void cross_entropy(Rows shape, float* logits, const std::int64_t* labels, LossOutput output, double* losses);
void cross_entropy(Rows shape, BFloat* logits, const std::int64_t* labels, LossOutput output, double* losses);

/// Columns first … last − 1.
struct ColumnRange {
  std::int64_t first = 0;
  std::int64_t last = 0;
};

/// y[width, rows] = x[rows, width]ᵀ, of these columns of x. bf16's products want a transposed left side in memory.
void transpose(Rows shape, ColumnRange columns, const BFloat* x, BFloat* y);

/// sums[width] += row, in fp32.
void add_row(std::int64_t width, const float* row, float* sums);
void add_row(std::int64_t width, const BFloat* row, float* sums);

}  // namespace stagecoach::compute
