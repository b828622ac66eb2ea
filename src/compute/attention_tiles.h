// What attention does between its matrix products, on tiles of plain memory, and how those products want their right side.
//
// In/out:  tiles of at most kTile queries and kTile keys (a stretch of keys, forward). Scores are fp32; what goes into a product is
//          in the stage's number format.
// Thread:  any.
// Why:     softmax and its gradient over a tile that is still in the cache; the caller (attention.cpp) has the products.
//
// A product's right side [K, N] lies in pairs: bf16 as [K/2, N, 2], which is how AMX and AVX-512 read it; fp32 plainly.
#pragma once

#include <cstdint>

#include "compute/kernels.h"

namespace stagecoach::compute {

inline constexpr std::int64_t kTile = 64;

/// rows × keys scores whose first element is of query `first_query` and key `first_key`; a row is `stride` elements long.
struct ScoreTile {
  std::int64_t rows = 0;
  std::int64_t keys = 0;
  std::int64_t stride = 0;
  std::int64_t first_query = 0;
  std::int64_t first_key = 0;
  float scale = 1;  // of the scores
};

/// What softmax knows of each row so far (Milakov & Gimelshein 2018): the largest scaled score, the sum of exp(score − top), and
/// what earlier sums must be multiplied by since the top rose. Everything is taken as a power of two.
struct RunningSoftmax {
  float* top = nullptr;         // in base 2, the score times log2 e; −inf before the first stretch
  float* sum = nullptr;
  float* correction = nullptr;
};

/// p = exp(scale · score − top), 0 for keys after the query and up to the end of the last tile of keys, to which scores must reach.
void softmax_stretch(const ScoreTile& tile, const float* scores, float* p, RunningSoftmax running);
void softmax_stretch(const ScoreTile& tile, const float* scores, BFloat* p, RunningSoftmax running);

/// Of one tile: the probabilities p again and ds = p · (dp − delta) · scale. A row of each is kTile long, and rows beyond the
/// tile's are zero. `p_pairs` and `ds_pairs` are right sides [kTile queries, kTile keys]; `ds` is a left side.
struct TileGradients {
  const float* scores = nullptr;
  const float* dp = nullptr;
  const float* lse = nullptr;    // of the tile's queries
  const float* delta = nullptr;  // Σ out · dout, of the tile's queries
};
void tile_gradients(const ScoreTile& tile, const TileGradients& in, float* p_pairs, float* ds, float* ds_pairs);
void tile_gradients(const ScoreTile& tile, const TileGradients& in, BFloat* p_pairs, BFloat* ds, BFloat* ds_pairs);

/// Rows of a larger matrix: `stride` elements from one to the next.
struct Strided {
  std::int64_t rows = 0;
  std::int64_t width = 0;
  std::int64_t stride = 0;
};

/// x as a right side [kTile, columns], zero beyond its rows and its width. columns: at least the width
void pack(Strided shape, const float* x, std::int64_t columns, float* out);
void pack(Strided shape, const BFloat* x, std::int64_t columns, BFloat* out);

/// xᵀ as kTile columns of a right side [width, columns], zero beyond x's rows. The width is even.
void pack_transposed(Strided shape, const float* x, std::int64_t columns, float* out);
void pack_transposed(Strided shape, const BFloat* x, std::int64_t columns, BFloat* out);

/// xᵀ as a left side [width, kTile], zero beyond x's rows.
void turn(Strided shape, const float* x, float* out);
void turn(Strided shape, const BFloat* x, BFloat* out);

/// out[row] = Σ x · y over each row. `shape` is of both.
void row_products(Strided shape, const float* x, const float* y, float* out);
void row_products(Strided shape, const BFloat* x, const BFloat* y, float* out);

/// out = x · factor[row]; x rows are `x_stride` long, out's as `shape` says.
void store_scaled(Strided shape, const float* x, std::int64_t x_stride, const float* factor, float* out);
void store_scaled(Strided shape, const float* x, std::int64_t x_stride, const float* factor, BFloat* out);

/// out = xᵀ. shapes: x [width, kTile], out as `shape` says
void store_turned(Strided shape, const float* x, float* out);
void store_turned(Strided shape, const float* x, BFloat* out);

/// x *= factor[row]. shapes: x [rows, width]
void scale_rows(Rows shape, const float* factor, float* x);

}  // namespace stagecoach::compute
