// The loops of attention_tiles.h. Compiled as kernels.cpp is.
#include "compute/attention_tiles.h"

#include <cmath>
#include <limits>

#include "compute/clones.h"
#include "compute/vector_math.h"

namespace stagecoach::compute {
namespace {

STAGECOACH_INLINE std::int64_t bounded(std::int64_t x, std::int64_t most) { return x < 0 ? 0 : x < most ? x : most; }

/// Keys of the tile that the tile's query `row` may look at.
STAGECOACH_INLINE std::int64_t seen_keys(const ScoreTile& tile, std::int64_t row) {
  return bounded(tile.first_query + row - tile.first_key + 1, tile.keys);
}

// Loops over a tile's keys of one row, of which the query sees the first `seen`. Over so many elements a loop becomes vectors; one
// over sixteen would become sixteen single operations.
constexpr auto kKeys = static_cast<std::int32_t>(kTile);

STAGECOACH_INLINE std::int32_t seen_in_tile(std::int64_t seen) { return static_cast<std::int32_t>(bounded(seen, kTile)); }

STAGECOACH_INLINE void raise_tops(const float* __restrict scores, std::int32_t seen, float* __restrict tops) {
  if (seen == kKeys) {
    for (std::int32_t c = 0; c < kKeys; ++c) tops[c] = larger(scores[c], tops[c]);
  } else {
    for (std::int32_t c = 0; c < kKeys; ++c) tops[c] = larger(c < seen ? scores[c] : tops[c], tops[c]);
  }
}

template <class T>
STAGECOACH_INLINE void exponentials(const float* __restrict scores, std::int32_t seen, float scale, float top, T* __restrict out,
                                    float* __restrict sums) {
  if (seen == kKeys) {
    for (std::int32_t c = 0; c < kKeys; ++c) {
      const float p = power_of_two<T>(scores[c] * scale - top);
      sums[c] += p;
      store_factor(p, out[c]);
    }
  } else {
    for (std::int32_t c = 0; c < kKeys; ++c) {
      const float x = power_of_two<T>(scores[c] * scale - top), p = c < seen ? x : 0.0f;
      sums[c] += p;
      store_factor(p, out[c]);
    }
  }
}

STAGECOACH_INLINE float largest_of_tile(const float* x) {
  float lanes[kLanes];
  for (std::int64_t j = 0; j < kLanes; ++j) {
    lanes[j] = larger(larger(x[j], x[j + kLanes]), larger(x[j + 2 * kLanes], x[j + 3 * kLanes]));
  }
  return largest(lanes);
}
STAGECOACH_INLINE float sum_of_tile(const float* x) {
  float lanes[kLanes];
  for (std::int64_t j = 0; j < kLanes; ++j) lanes[j] = (x[j] + x[j + kLanes]) + (x[j + 2 * kLanes] + x[j + 3 * kLanes]);
  return added(lanes);
}

template <class T>
STAGECOACH_INLINE void softmax_stretch_of(const ScoreTile& tile, const float* __restrict scores, T* __restrict p,
                                          RunningSoftmax running) {
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  const float scale = tile.scale * kLog2OfE;
  for (std::int64_t row = 0; row < tile.rows; ++row) {
    const float* __restrict in = scores + row * tile.stride;
    T* __restrict out = p + row * tile.stride;
    const std::int64_t seen = seen_keys(tile, row);
    alignas(64) float tops[kTile], sums[kTile];
    for (std::int64_t c = 0; c < kTile; ++c) tops[c] = kLowest, sums[c] = 0;
    for (std::int64_t first = 0; first < seen; first += kTile) raise_tops(in + first, seen_in_tile(seen - first), tops);
    const float top = larger(largest_of_tile(tops) * scale, running.top[row]);
    for (std::int64_t first = 0; first < tile.keys; first += kTile) {
      exponentials(in + first, seen_in_tile(seen - first), scale, top, out + first, sums);
    }
    const float correction = running.top[row] == kLowest ? 0.0f : power_of_two<float>(running.top[row] - top);
    running.correction[row] = correction;
    running.sum[row] = running.sum[row] * correction + sum_of_tile(sums);
    running.top[row] = top;
  }
}

/// One row's place in a right side of kTile columns.
STAGECOACH_INLINE void store_in_pairs(const float* __restrict x, std::int64_t row, float* __restrict out) {
  for (std::int64_t c = 0; c < kTile; ++c) out[row * kTile + c] = x[c];
}
STAGECOACH_INLINE void store_two_rows(const float* __restrict x, std::int64_t row, float* __restrict out) {
  store_in_pairs(x, row, out);
  store_in_pairs(x + kTile, row + 1, out);
}
STAGECOACH_INLINE void store_two_rows(const float* __restrict x, std::int64_t row, BFloat* __restrict out) {
  BFloat* __restrict pair = out + row * kTile;
  for (std::int64_t c = 0; c < kTile; ++c) {
    store_factor(x[c], pair[2 * c]);
    store_factor(x[kTile + c], pair[2 * c + 1]);
  }
}

template <class T>
STAGECOACH_INLINE void tile_gradients_of(const ScoreTile& tile, const TileGradients& in, T* __restrict p_pairs, T* __restrict ds,
                                         T* __restrict ds_pairs) {
  float p[2 * kTile], gradient[2 * kTile];
  const float scale = tile.scale, exponent_scale = scale * kLog2OfE;
  for (std::int64_t row = 0; row < kTile; row += 2) {
    for (std::int64_t k = 0; k < 2; ++k) {
      float* __restrict p_row = p + k * kTile;
      float* __restrict gradient_row = gradient + k * kTile;
      if (row + k >= tile.rows) {
        for (std::int64_t c = 0; c < kTile; ++c) p_row[c] = gradient_row[c] = 0;
        continue;
      }
      const float* __restrict score = in.scores + (row + k) * kTile;
      const float* __restrict dp = in.dp + (row + k) * kTile;
      const float lse = in.lse[row + k] * kLog2OfE, delta = in.delta[row + k];
      const auto seen = static_cast<std::int32_t>(seen_keys(tile, row + k));
      for (std::int32_t c = 0; c < static_cast<std::int32_t>(kTile); ++c) {
        const float x = power_of_two<T>(score[c] * exponent_scale - lse);
        p_row[c] = c < seen ? x : 0.0f;
        gradient_row[c] = c < seen ? x * (dp[c] - delta) * scale : 0.0f;
      }
    }
    store_two_rows(p, row, p_pairs);
    store_two_rows(gradient, row, ds_pairs);
    for (std::int64_t c = 0; c < 2 * kTile; ++c) store_factor(gradient[c], ds[row * kTile + c]);
  }
}

template <class T>
STAGECOACH_INLINE void turn_of(Strided shape, const T* __restrict x, std::int64_t columns, T* __restrict out) {
  for (std::int64_t c = 0; c < shape.width; ++c) {
    for (std::int64_t row = 0; row < shape.rows; ++row) out[c * columns + row] = x[row * shape.stride + c];
    for (std::int64_t row = shape.rows; row < kTile; ++row) out[c * columns + row] = T{};
  }
}

template <class T>
STAGECOACH_INLINE void row_products_of(Strided shape, const T* __restrict x, const T* __restrict y, float* __restrict out) {
  const std::int64_t whole = shape.width - shape.width % kLanes;
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    const T* __restrict a = x + row * shape.stride;
    const T* __restrict b = y + row * shape.stride;
    float lanes[kLanes] = {};
    for (std::int64_t i = 0; i < whole; i += kLanes) {
      for (std::int64_t j = 0; j < kLanes; ++j) lanes[j] += load(a[i + j]) * load(b[i + j]);
    }
    for (std::int64_t i = whole; i < shape.width; ++i) lanes[i - whole] += load(a[i]) * load(b[i]);
    out[row] = added(lanes);
  }
}

template <class T>
STAGECOACH_INLINE void store_scaled_of(Strided shape, const float* __restrict x, std::int64_t x_stride,
                                       const float* __restrict factor, T* __restrict out) {
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    for (std::int64_t i = 0; i < shape.width; ++i) store(x[row * x_stride + i] * factor[row], out[row * shape.stride + i]);
  }
}

template <class T>
STAGECOACH_INLINE void store_turned_of(Strided shape, const float* __restrict x, T* __restrict out) {
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    for (std::int64_t i = 0; i < shape.width; ++i) store(x[i * kTile + row], out[row * shape.stride + i]);
  }
}

}  // namespace

STAGECOACH_CLONES void softmax_stretch(const ScoreTile& tile, const float* scores, float* p, RunningSoftmax running) {
  softmax_stretch_of(tile, scores, p, running);
}
STAGECOACH_CLONES void softmax_stretch(const ScoreTile& tile, const float* scores, BFloat* p, RunningSoftmax running) {
  softmax_stretch_of(tile, scores, p, running);
}

STAGECOACH_CLONES void tile_gradients(const ScoreTile& tile, const TileGradients& in, float* p_pairs, float* ds, float* ds_pairs) {
  tile_gradients_of(tile, in, p_pairs, ds, ds_pairs);
}
STAGECOACH_CLONES void tile_gradients(const ScoreTile& tile, const TileGradients& in, BFloat* p_pairs, BFloat* ds,
                                      BFloat* ds_pairs) {
  tile_gradients_of(tile, in, p_pairs, ds, ds_pairs);
}

void pack(Strided shape, const float* x, std::int64_t columns, float* out) {
  for (std::int64_t row = 0; row < kTile; ++row) {
    for (std::int64_t c = 0; c < columns; ++c) {
      out[row * columns + c] = row < shape.rows && c < shape.width ? x[row * shape.stride + c] : 0.0f;
    }
  }
}

STAGECOACH_CLONES void pack(Strided shape, const BFloat* x, std::int64_t columns, BFloat* out) {
  for (std::int64_t row = 0; row < kTile; row += 2) {
    BFloat* __restrict pair = out + row * columns;
    const BFloat* __restrict first = x + row * shape.stride;
    const BFloat* __restrict second = first + shape.stride;
    const bool both = row + 1 < shape.rows;
    const std::int64_t width = row < shape.rows ? shape.width : 0;
    for (std::int64_t c = 0; c < width; ++c) {
      pair[2 * c] = first[c];
      pair[2 * c + 1] = both ? second[c] : BFloat{};
    }
    for (std::int64_t c = 2 * width; c < 2 * columns; ++c) pair[c] = BFloat{};
  }
}

STAGECOACH_CLONES void pack_transposed(Strided shape, const float* x, std::int64_t columns, float* out) {
  turn_of(shape, x, columns, out);
}

STAGECOACH_CLONES void pack_transposed(Strided shape, const BFloat* x, std::int64_t columns, BFloat* out) {
  for (std::int64_t c = 0; c < shape.width; c += 2) {
    BFloat* __restrict pair = out + c * columns;
    for (std::int64_t row = 0; row < shape.rows; ++row) {
      pair[2 * row] = x[row * shape.stride + c];
      pair[2 * row + 1] = x[row * shape.stride + c + 1];
    }
    for (std::int64_t i = 2 * shape.rows; i < 2 * kTile; ++i) pair[i] = BFloat{};
  }
}

STAGECOACH_CLONES void turn(Strided shape, const float* x, float* out) { turn_of(shape, x, kTile, out); }
STAGECOACH_CLONES void turn(Strided shape, const BFloat* x, BFloat* out) { turn_of(shape, x, kTile, out); }

STAGECOACH_CLONES void row_products(Strided shape, const float* x, const float* y, float* out) {
  row_products_of(shape, x, y, out);
}
STAGECOACH_CLONES void row_products(Strided shape, const BFloat* x, const BFloat* y, float* out) {
  row_products_of(shape, x, y, out);
}

STAGECOACH_CLONES void store_scaled(Strided shape, const float* x, std::int64_t x_stride, const float* factor, float* out) {
  store_scaled_of(shape, x, x_stride, factor, out);
}
STAGECOACH_CLONES void store_scaled(Strided shape, const float* x, std::int64_t x_stride, const float* factor, BFloat* out) {
  store_scaled_of(shape, x, x_stride, factor, out);
}

STAGECOACH_CLONES void store_turned(Strided shape, const float* x, float* out) { store_turned_of(shape, x, out); }
STAGECOACH_CLONES void store_turned(Strided shape, const float* x, BFloat* out) { store_turned_of(shape, x, out); }

STAGECOACH_CLONES void scale_rows(Rows shape, const float* factor, float* x) {
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    for (std::int64_t i = 0; i < shape.width; ++i) x[row * shape.width + i] *= factor[row];
  }
}

}  // namespace stagecoach::compute
