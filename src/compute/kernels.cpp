// The loops of kernels.h. Compiled without contraction and for several vector widths (clones.h).
#include "compute/kernels.h"

#include <cmath>

#include "compute/clones.h"
#include "compute/vector_math.h"

namespace stagecoach::compute {
namespace {

template <class T>
STAGECOACH_INLINE void rms_norm_forward_of(Rows shape, const T* __restrict x, const T* __restrict weight, float eps,
                                           T* __restrict y, float* __restrict rstd) {
  const std::int64_t whole = shape.width - shape.width % kLanes;
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    const T* __restrict in = x + row * shape.width;
    T* __restrict out = y + row * shape.width;
    float lanes[kLanes] = {};
    for (std::int64_t d = 0; d < whole; d += kLanes) {
      for (std::int64_t j = 0; j < kLanes; ++j) lanes[j] += load(in[d + j]) * load(in[d + j]);
    }
    for (std::int64_t d = whole; d < shape.width; ++d) lanes[d - whole] += load(in[d]) * load(in[d]);
    const float r = 1.0f / std::sqrt(added(lanes) / static_cast<float>(shape.width) + eps);
    rstd[row] = r;
    for (std::int64_t d = 0; d < shape.width; ++d) store(load(in[d]) * r * load(weight[d]), out[d]);
  }
}

template <class T>
STAGECOACH_INLINE void rms_norm_backward_of(Rows shape, const T* __restrict x, const T* __restrict weight,
                                            const float* __restrict rstd, const T* __restrict dy, Skip<T> skip,
                                            T* __restrict dx, double* __restrict dweight) {
  const std::int64_t whole = shape.width - shape.width % kLanes;
  const std::int64_t past = skip.gradient == nullptr ? 0 : skip.width;
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    const T* __restrict in = x + row * shape.width;
    const T* __restrict g = dy + row * shape.width;
    const T* __restrict beside = skip.gradient + row * past;
    T* __restrict out = dx + row * shape.width;
    const float r = rstd[row];
    float lanes[kLanes] = {};
    for (std::int64_t d = 0; d < whole; d += kLanes) {
      for (std::int64_t j = 0; j < kLanes; ++j) lanes[j] += load(g[d + j]) * load(weight[d + j]) * load(in[d + j]);
    }
    for (std::int64_t d = whole; d < shape.width; ++d) lanes[d - whole] += load(g[d]) * load(weight[d]) * load(in[d]);
    const float along = added(lanes) / static_cast<float>(shape.width) * r * r;
    for (std::int64_t d = 0; d < past; ++d) {
      store(r * (load(g[d]) * load(weight[d]) - load(in[d]) * along) + load(beside[d]), out[d]);
    }
    for (std::int64_t d = past; d < shape.width; ++d) {
      store(r * (load(g[d]) * load(weight[d]) - load(in[d]) * along), out[d]);
    }
    for (std::int64_t d = 0; d < shape.width; ++d) dweight[d] += static_cast<double>(load(g[d]) * load(in[d]) * r);
  }
}

template <class T>
STAGECOACH_INLINE void gate_forward_of(Rows shape, const T* __restrict ab, T* __restrict y) {
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    const T* __restrict a = ab + row * 2 * shape.width;
    const T* __restrict b = a + shape.width;
    T* __restrict out = y + row * shape.width;
    for (std::int64_t i = 0; i < shape.width; ++i) {
      const float left = load(a[i]), right = load(b[i]);
      store(left * sigmoid<T>(left) * right, out[i]);
    }
  }
}

template <class T>
STAGECOACH_INLINE void gate_backward_of(Rows shape, T* __restrict ab, const T* __restrict dy, T* __restrict y) {
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    T* __restrict a = ab + row * 2 * shape.width;
    T* __restrict b = a + shape.width;
    const T* __restrict g = dy + row * shape.width;
    T* __restrict out = y + row * shape.width;
    for (std::int64_t i = 0; i < shape.width; ++i) {
      const float left = load(a[i]), right = load(b[i]), gradient = load(g[i]), s = sigmoid<T>(left);
      store(left * s * right, out[i]);
      store(gradient * (left * s), b[i]);
      store(gradient * right * (s * (1.0f + left * (1.0f - s))), a[i]);
    }
  }
}

template <class T>
STAGECOACH_INLINE void silu_forward_of(std::int64_t count, const T* __restrict x, T* __restrict y) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float in = load(x[i]);
    store(in * sigmoid<T>(in), y[i]);
  }
}

template <class T>
STAGECOACH_INLINE void silu_backward_of(std::int64_t count, const T* __restrict x, T* __restrict dy, T* __restrict y) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float in = load(x[i]), s = sigmoid<T>(in);
    store(in * s, y[i]);
    store(load(dy[i]) * (s * (1.0f + in * (1.0f - s))), dy[i]);
  }
}

/// `count` pairs of one head, which lie in four places apart: read before any is written, so that the compiler need not ask.
template <class T>
STAGECOACH_INLINE void rotate_pairs(std::int64_t count, const float* __restrict cosine, const float* __restrict sine,
                                    float direction, T* __restrict first, T* __restrict second) {
  float u[kLanes], v[kLanes];
  for (std::int64_t i = 0; i < count; ++i) u[i] = load(first[i]), v[i] = load(second[i]);
  for (std::int64_t i = 0; i < count; ++i) {
    store(u[i] * cosine[i] - v[i] * (direction * sine[i]), first[i]);
    store(v[i] * cosine[i] + u[i] * (direction * sine[i]), second[i]);
  }
}

template <class T>
STAGECOACH_INLINE void rotate_of(Heads shape, const float* __restrict cosine, const float* __restrict sine, float direction,
                                 T* __restrict x) {
  const std::int64_t half = shape.half, whole = half - half % kLanes;
  for (std::int64_t row = shape.first_row; row < shape.last_row; ++row) {
    const float* __restrict c = cosine + (row % shape.positions) * half;
    const float* __restrict s = sine + (row % shape.positions) * half;
    for (std::int64_t head = 0; head < shape.heads; ++head) {
      T* __restrict first = x + row * shape.stride + head * 2 * half;
      T* __restrict second = first + half;
      for (std::int64_t i = 0; i < whole; i += kLanes) rotate_pairs(kLanes, c + i, s + i, direction, first + i, second + i);
      rotate_pairs(half - whole, c + whole, s + whole, direction, first + whole, second + whole);
    }
  }
}

/// Σ exp(x − top), fp32 in lanes within a stretch and fp64 across stretches.
template <class T>
STAGECOACH_INLINE double sum_of_exponentials(const T* __restrict x, std::int64_t count, float top) {
  constexpr std::int64_t kStretch = 64 * kLanes;
  double total = 0;
  for (std::int64_t first = 0; first < count; first += kStretch) {
    const std::int64_t last = first + kStretch < count ? first + kStretch : count;
    const std::int64_t whole = last - (last - first) % kLanes;
    float lanes[kLanes] = {};
    for (std::int64_t i = first; i < whole; i += kLanes) {
      for (std::int64_t j = 0; j < kLanes; ++j) lanes[j] += exponential(load(x[i + j]) - top);
    }
    for (std::int64_t i = whole; i < last; ++i) lanes[i - whole] += exponential(load(x[i]) - top);
    total += static_cast<double>(added(lanes));
  }
  return total;
}

template <class T>
STAGECOACH_INLINE void cross_entropy_of(Rows shape, T* __restrict logits, const std::int64_t* __restrict labels,
                                        LossOutput output, double* __restrict losses) {
  const std::int64_t whole = shape.width - shape.width % kLanes;
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    T* __restrict x = logits + row * shape.width;
    float lanes[kLanes];
    for (std::int64_t j = 0; j < kLanes; ++j) lanes[j] = load(x[0]);
    for (std::int64_t i = 0; i < whole; i += kLanes) {
      for (std::int64_t j = 0; j < kLanes; ++j) lanes[j] = larger(load(x[i + j]), lanes[j]);
    }
    for (std::int64_t i = whole; i < shape.width; ++i) lanes[0] = larger(load(x[i]), lanes[0]);
    const float top = largest(lanes);
    const double sum = sum_of_exponentials(x, shape.width, top);
    losses[row] = std::log(sum) + static_cast<double>(top - load(x[labels[row]]));
    if (output == LossOutput::loss) continue;
    const auto scale = static_cast<float>(1.0 / sum);
    const float of_label = exponential(load(x[labels[row]]) - top) * scale - 1.0f;
    for (std::int64_t i = 0; i < shape.width; ++i) store(exponential(load(x[i]) - top) * scale, x[i]);
    store(of_label, x[labels[row]]);
  }
}

template <class T>
STAGECOACH_INLINE void add_row_of(std::int64_t width, const T* __restrict row, float* __restrict sums) {
  for (std::int64_t i = 0; i < width; ++i) sums[i] += load(row[i]);
}

using Lane8 = std::uint16_t __attribute__((vector_size(16), aligned(2), may_alias));

/// An 8 × 8 block by three rounds of interleaving.
STAGECOACH_INLINE void transpose_8x8(const BFloat* in, std::int64_t in_stride, BFloat* out, std::int64_t out_stride) {
  Lane8 row[8], next[8];
  for (std::int64_t i = 0; i < 8; ++i) row[i] = *reinterpret_cast<const Lane8*>(in + i * in_stride);
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 4; ++i) {
      next[2 * i] = __builtin_shufflevector(row[i], row[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
      next[2 * i + 1] = __builtin_shufflevector(row[i], row[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; ++i) row[i] = next[i];
  }
  for (std::int64_t i = 0; i < 8; ++i) *reinterpret_cast<Lane8*>(out + i * out_stride) = row[i];
}

}  // namespace

STAGECOACH_CLONES void rms_norm_forward(Rows shape, const float* x, const float* weight, float eps, float* y, float* rstd) {
  rms_norm_forward_of(shape, x, weight, eps, y, rstd);
}
STAGECOACH_CLONES void rms_norm_forward(Rows shape, const BFloat* x, const BFloat* weight, float eps, BFloat* y, float* rstd) {
  rms_norm_forward_of(shape, x, weight, eps, y, rstd);
}

STAGECOACH_CLONES void rms_norm_backward(Rows shape, const float* x, const float* weight, const float* rstd, const float* dy,
                                         Skip<float> skip, float* dx, double* dweight) {
  rms_norm_backward_of(shape, x, weight, rstd, dy, skip, dx, dweight);
}
STAGECOACH_CLONES void rms_norm_backward(Rows shape, const BFloat* x, const BFloat* weight, const float* rstd, const BFloat* dy,
                                         Skip<BFloat> skip, BFloat* dx, double* dweight) {
  rms_norm_backward_of(shape, x, weight, rstd, dy, skip, dx, dweight);
}

STAGECOACH_CLONES void gate_forward(Rows shape, const float* ab, float* y) { gate_forward_of(shape, ab, y); }
STAGECOACH_CLONES void gate_forward(Rows shape, const BFloat* ab, BFloat* y) { gate_forward_of(shape, ab, y); }
STAGECOACH_CLONES void gate_backward(Rows shape, float* ab, const float* dy, float* y) { gate_backward_of(shape, ab, dy, y); }
STAGECOACH_CLONES void gate_backward(Rows shape, BFloat* ab, const BFloat* dy, BFloat* y) { gate_backward_of(shape, ab, dy, y); }

STAGECOACH_CLONES void silu_forward(std::int64_t count, const float* x, float* y) { silu_forward_of(count, x, y); }
STAGECOACH_CLONES void silu_forward(std::int64_t count, const BFloat* x, BFloat* y) { silu_forward_of(count, x, y); }
STAGECOACH_CLONES void silu_backward(std::int64_t count, const float* x, float* dy, float* y) { silu_backward_of(count, x, dy, y); }
STAGECOACH_CLONES void silu_backward(std::int64_t count, const BFloat* x, BFloat* dy, BFloat* y) {
  silu_backward_of(count, x, dy, y);
}

STAGECOACH_CLONES void rotate(Heads shape, const float* cosine, const float* sine, float direction, float* x) {
  rotate_of(shape, cosine, sine, direction, x);
}
STAGECOACH_CLONES void rotate(Heads shape, const float* cosine, const float* sine, float direction, BFloat* x) {
  rotate_of(shape, cosine, sine, direction, x);
}

STAGECOACH_CLONES void cross_entropy(Rows shape, float* logits, const std::int64_t* labels, LossOutput output, double* losses) {
  cross_entropy_of(shape, logits, labels, output, losses);
}
STAGECOACH_CLONES void cross_entropy(Rows shape, BFloat* logits, const std::int64_t* labels, LossOutput output, double* losses) {
  cross_entropy_of(shape, logits, labels, output, losses);
}

STAGECOACH_CLONES void add_row(std::int64_t width, const float* row, float* sums) { add_row_of(width, row, sums); }
STAGECOACH_CLONES void add_row(std::int64_t width, const BFloat* row, float* sums) { add_row_of(width, row, sums); }

void transpose(Rows shape, ColumnRange columns, const BFloat* x, BFloat* y) {
  // Strips of 32 columns: whole cache lines are read, and 32 rows are written at a time.
  constexpr std::int64_t kStrip = 32;
  const std::int64_t rows = shape.rows - shape.rows % 8, whole = columns.last - (columns.last - columns.first) % 8;
  for (std::int64_t strip = columns.first; strip < whole; strip += kStrip) {
    const std::int64_t end = strip + kStrip < whole ? strip + kStrip : whole;
    for (std::int64_t row = 0; row < rows; row += 8) {
      for (std::int64_t column = strip; column < end; column += 8) {
        transpose_8x8(x + row * shape.width + column, shape.width, y + column * shape.rows + row, shape.rows);
      }
    }
  }
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    for (std::int64_t column = row < rows ? whole : columns.first; column < columns.last; ++column) {
      y[column * shape.rows + row] = x[row * shape.width + column];
    }
  }
}

}  // namespace stagecoach::compute
