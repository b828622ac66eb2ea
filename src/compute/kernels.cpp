// The loops of kernels.h. Compiled without contraction and for several vector widths (clones.h).
#include "compute/kernels.h"

#include <cmath>
#include <vector>

#include "compute/clones.h"

namespace stagecoach::compute {
namespace {

constexpr std::int64_t kLanes = 16;

inline float added(const float (&lanes)[kLanes]) {
  float half[kLanes / 2];
  for (std::int64_t j = 0; j < kLanes / 2; ++j) half[j] = lanes[j] + lanes[j + kLanes / 2];
  return ((half[0] + half[4]) + (half[1] + half[5])) + ((half[2] + half[6]) + (half[3] + half[7]));
}

}  // namespace

STAGECOACH_CLONES void rms_norm_forward(Rows shape, const float* __restrict x, const float* __restrict weight, float eps,
                                        float* __restrict y, float* __restrict rstd) {
  const std::int64_t whole = shape.width - shape.width % kLanes;
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    const float* __restrict in = x + row * shape.width;
    float* __restrict out = y + row * shape.width;
    float lanes[kLanes] = {};
    for (std::int64_t d = 0; d < whole; d += kLanes) {
      for (std::int64_t j = 0; j < kLanes; ++j) lanes[j] += in[d + j] * in[d + j];
    }
    for (std::int64_t d = whole; d < shape.width; ++d) lanes[d - whole] += in[d] * in[d];
    const float r = 1.0f / std::sqrt(added(lanes) / static_cast<float>(shape.width) + eps);
    rstd[row] = r;
    for (std::int64_t d = 0; d < shape.width; ++d) out[d] = in[d] * r * weight[d];
  }
}

STAGECOACH_CLONES void rms_norm_backward(Rows shape, const float* __restrict x, const float* __restrict weight,
                                         const float* __restrict rstd, const float* __restrict dy, float* __restrict dx,
                                         float* __restrict dweight) {
  const std::int64_t whole = shape.width - shape.width % kLanes;
  std::vector<double> sums(static_cast<std::size_t>(shape.width), 0.0);
  double* __restrict sum = sums.data();
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    const float* __restrict in = x + row * shape.width;
    const float* __restrict g = dy + row * shape.width;
    float* __restrict out = dx + row * shape.width;
    const float r = rstd[row];
    float lanes[kLanes] = {};
    for (std::int64_t d = 0; d < whole; d += kLanes) {
      for (std::int64_t j = 0; j < kLanes; ++j) lanes[j] += g[d + j] * weight[d + j] * in[d + j];
    }
    for (std::int64_t d = whole; d < shape.width; ++d) lanes[d - whole] += g[d] * weight[d] * in[d];
    const float along = added(lanes) / static_cast<float>(shape.width) * r * r;
    for (std::int64_t d = 0; d < shape.width; ++d) {
      out[d] = r * (g[d] * weight[d] - in[d] * along);
      sum[d] += static_cast<double>(g[d] * in[d] * r);
    }
  }
  for (std::int64_t d = 0; d < shape.width; ++d) dweight[d] = static_cast<float>(sum[d]);
}

STAGECOACH_CLONES void gate_backward(std::int64_t count, const float* __restrict a, const float* __restrict sigmoid,
                                     const float* __restrict b, const float* __restrict dy, float* __restrict da,
                                     float* __restrict db) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float s = sigmoid[i];
    db[i] = dy[i] * (a[i] * s);
    da[i] = dy[i] * b[i] * (s * (1.0f + a[i] * (1.0f - s)));
  }
}

STAGECOACH_CLONES void rotate(Heads shape, const float* __restrict x, const float* __restrict cosine,
                              const float* __restrict sine, float direction, float* __restrict y) {
  const std::int64_t half = shape.half;
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    const float* __restrict c = cosine + (row % shape.positions) * half;
    const float* __restrict s = sine + (row % shape.positions) * half;
    for (std::int64_t head = 0; head < shape.heads; ++head) {
      const float* __restrict in = x + (row * shape.heads + head) * 2 * half;
      float* __restrict out = y + (row * shape.heads + head) * 2 * half;
      for (std::int64_t i = 0; i < half; ++i) {
        const float turned = direction * s[i];
        out[i] = in[i] * c[i] - in[half + i] * turned;
        out[half + i] = in[half + i] * c[i] + in[i] * turned;
      }
    }
  }
}

}  // namespace stagecoach::compute
