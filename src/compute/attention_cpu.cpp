// Forward: a tile of queries walks over stretches of keys. Backward: a tile of keys walks over the tiles of queries after it.
#include "compute/attention_cpu.h"

#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "compute/attention_tiles.h"

namespace stagecoach::compute {
namespace {

namespace blas = at::native::cpublas;

/// How the kernels see a tensor's numbers.
template <class T>
struct Plain {
  using type = T;
};
template <>
struct Plain<at::BFloat16> {
  using type = BFloat;
};
template <class T>
using plain_t = typename Plain<T>::type;

template <class T>
constexpr bool kInPairs = !std::is_same_v<T, float>;

/// Not every torch since 2.6 has this product in every number format.
template <class T>
concept HasProduct = requires(const T* x, float* y) { blas::brgemm(1, 1, 1, 1, 1, 1, false, x, x, y, false); };

/// C [m, n] (+)= A [m, k] · B [k, n], B as attention_tiles.h packs it.
template <class T>
struct Product {
  std::int64_t m, n, k;
  std::int64_t a_stride, b_stride, c_stride;
  void run(bool add, const plain_t<T>* a, const plain_t<T>* b, float* c) const {
    if constexpr (HasProduct<T>) {
      blas::brgemm(m, n, k, a_stride, b_stride, c_stride, add, reinterpret_cast<const T*>(a), reinterpret_cast<const T*>(b), c,
                   kInPairs<T>);
    }
  }
};

/// Gives back what AMX holds of the thread.
template <class T>
struct ProductContext {
  ~ProductContext() {
    if constexpr (HasProduct<T>) blas::brgemm_release(kInPairs<T>);
  }
};

template <class T>
bool product_works() {
  if constexpr (HasProduct<T>) {
    if (kInPairs<T> && !blas::could_pack(c10::CppTypeToScalarType<T>::value)) return false;
    try {
      const ProductContext<T> context;
      std::vector<T> a(2 * 2, T(1.0f)), b(2 * 16, T(2.0f));
      std::vector<float> c(2 * 16);
      Product<T>{2, 16, 2, 2, 16, 16}.run(false, reinterpret_cast<const plain_t<T>*>(a.data()),
                                          reinterpret_cast<const plain_t<T>*>(b.data()), c.data());
      return std::all_of(c.begin(), c.end(), [](float x) { return x == 4.0f; });
    } catch (const c10::Error&) {
      return false;
    }
  } else {
    return false;
  }
}

std::int64_t tiles_of(std::int64_t tokens) { return (tokens + kTile - 1) / kTile; }

/// A head's columns as right sides of at most kTile columns, each a multiple of 16.
struct Columns {
  explicit Columns(std::int64_t width) : head(width) {}
  std::int64_t head;
  std::int64_t count() const { return tiles_of(head); }
  std::int64_t first(std::int64_t i) const { return i * kTile; }
  std::int64_t used(std::int64_t i) const { return std::min(kTile, head - first(i)); }
  std::int64_t packed(std::int64_t i) const { return (used(i) + 15) / 16 * 16; }
  std::int64_t padded() const { return (head + 15) / 16 * 16; }
};

template <class P>
at::Tensor scratch(std::int64_t elements) {
  return at::empty({elements}, std::is_same_v<P, float> ? at::kFloat : at::kBFloat16);
}
template <class P>
P* data(const at::Tensor& tensor) {
  return static_cast<P*>(tensor.mutable_data_ptr());
}

/// One sequence's rows of one kind of head.
template <class P>
struct HeadRows {
  P* first = nullptr;  // row 0, column 0 of the first head
  std::int64_t stride = 0;
  std::int64_t width = 0;
  P* at(std::int64_t head, std::int64_t row) const { return first + row * stride + head * width; }
};

/// What the tasks of one call share. One task is one sequence and one key head, with the query heads of its group.
template <class P>
struct Call {
  AttentionShape shape;
  const P* qkv = nullptr;
  float scale = 1;

  Call(const AttentionShape& s, const at::Tensor& qkv_TP)
      : shape(s), qkv(static_cast<const P*>(qkv_TP.const_data_ptr())),
        scale(static_cast<float>(1.0 / std::sqrt(static_cast<double>(s.width)))) {}
  std::int64_t group() const { return shape.heads / shape.kv_heads; }
  std::int64_t tiles() const { return tiles_of(shape.tokens); }
  std::int64_t rows_in(std::int64_t tile) const { return std::min(kTile, shape.tokens - tile * kTile); }
  Strided tile_rows(std::int64_t tile) const { return {rows_in(tile), shape.width, shape.row()}; }
  template <class Q>
  HeadRows<Q> heads(Q* rows, std::int64_t sequence, std::int64_t first_head) const {
    return {rows + sequence * shape.tokens * shape.row() + first_head * shape.width, shape.row(), shape.width};
  }
  template <class Q>
  HeadRows<Q> out_heads(Q* rows, std::int64_t sequence, std::int64_t first_head) const {
    const std::int64_t stride = shape.heads * shape.width;
    return {rows + sequence * shape.tokens * stride + first_head * shape.width, stride, shape.width};
  }
};

// Keys whose scores stand in memory at once: 64 × 512 fp32 are 128 KiB, which a core's second cache holds.
constexpr std::int64_t kStretchTiles = 8;

template <class T>
class ForwardTask {
 public:
  using P = plain_t<T>;
  ForwardTask(const Call<P>& call, P* out, float* lse)
      : call_(call), out_(out), lse_(lse), columns_(call.shape.width), stretch_(kTile * std::min(kStretchTiles, call.tiles())),
        keys_(scratch<P>((call.tiles() + kStretchTiles - 1) / kStretchTiles * call.shape.width * stretch_)),
        values_(scratch<P>(call.tiles() * columns_.padded() * kTile)), scores_(scratch<float>(kTile * stretch_)),
        p_(scratch<P>(kTile * stretch_)), sums_(scratch<float>(kTile * columns_.padded())), running_(scratch<float>(4 * kTile)) {}

  void run(std::int64_t sequence, std::int64_t key_head) {
    const AttentionShape& shape = call_.shape;
    const auto k = call_.heads(call_.qkv, sequence, shape.heads + key_head);
    const auto v = call_.heads(call_.qkv, sequence, shape.heads + shape.kv_heads + key_head);
    for (std::int64_t j = 0; j < call_.tiles(); ++j) {
      pack_transposed(call_.tile_rows(j), k.at(0, j * kTile), stretch_, key_columns(j));
      for (std::int64_t c = 0; c < columns_.count(); ++c) {
        pack({call_.rows_in(j), columns_.used(c), shape.row()}, v.at(0, j * kTile) + columns_.first(c), columns_.packed(c),
             value_rows(j, c));
      }
    }
    const std::int64_t first_head = key_head * call_.group();
    for (std::int64_t head = first_head; head < first_head + call_.group(); ++head) {
      for (std::int64_t i = 0; i < call_.tiles(); ++i) queries(sequence, head, i);
    }
  }

 private:
  /// Right sides [head width, stretch], one a stretch of keys.
  P* key_columns(std::int64_t j) const {
    const std::int64_t column = j % kStretchTiles * kTile;
    return data<P>(keys_) + j / kStretchTiles * call_.shape.width * stretch_ + (kInPairs<T> ? 2 : 1) * column;
  }
  /// Right sides [all keys, columns], one for each of the head's blocks of columns.
  P* value_rows(std::int64_t j, std::int64_t c) const {
    return data<P>(values_) + (call_.tiles() * columns_.first(c) + j * columns_.packed(c)) * kTile;
  }

  void queries(std::int64_t sequence, std::int64_t head, std::int64_t i) {
    const AttentionShape& shape = call_.shape;
    const std::int64_t rows = call_.rows_in(i);
    const P* q = call_.heads(call_.qkv, sequence, head).at(0, i * kTile);
    float* scores = data<float>(scores_);
    float* top = data<float>(running_);
    const RunningSoftmax running{top, top + kTile, top + 2 * kTile};
    std::fill_n(running.top, kTile, -std::numeric_limits<float>::infinity());
    std::fill_n(running.sum, kTile, 0.0f);
    for (std::int64_t first = 0; first <= i; first += kStretchTiles) {
      const std::int64_t last = std::min(first + kStretchTiles, i + 1), columns = (last - first) * kTile;
      Product<T>{rows, columns, shape.width, shape.row(), stretch_, stretch_}.run(false, q, key_columns(first), scores);
      const std::int64_t keys = std::min(last * kTile, shape.tokens) - first * kTile;
      softmax_stretch({rows, keys, stretch_, i * kTile, first * kTile, call_.scale}, scores, data<P>(p_), running);
      if (first > 0) scale_rows({rows, columns_.padded()}, running.correction, data<float>(sums_));
      for (std::int64_t c = 0; c < columns_.count(); ++c) {
        const Product<T> mix{rows, columns_.packed(c), columns, stretch_, columns_.packed(c), columns_.padded()};
        mix.run(first > 0, data<P>(p_), value_rows(first, c), data<float>(sums_) + columns_.first(c));
      }
    }
    float* lse = lse_ + (sequence * shape.heads + head) * shape.tokens + i * kTile;
    float* factor = top + 3 * kTile;
    for (std::int64_t row = 0; row < rows; ++row) {
      factor[row] = 1.0f / running.sum[row];
      lse[row] = running.top[row] * std::numbers::ln2_v<float> + std::log(running.sum[row]);
    }
    const auto out = call_.out_heads(out_, sequence, head);
    store_scaled({rows, shape.width, out.stride}, data<float>(sums_), columns_.padded(), factor, out.at(0, i * kTile));
  }

  const Call<P>& call_;
  P* out_;
  float* lse_;
  const Columns columns_;
  const std::int64_t stretch_;  // keys of a row of scores
  const at::Tensor keys_, values_, scores_, p_, sums_, running_;
};

template <class T>
class BackwardTask {
 public:
  using P = plain_t<T>;
  struct Rows {
    const P* out = nullptr;
    const P* out_gradient = nullptr;
    const float* lse = nullptr;
    P* qkv_gradient = nullptr;
  };
  BackwardTask(const Call<P>& call, const Rows& rows)
      : call_(call), rows_(rows), columns_(call.shape.width), tile_(kTile * kTile), head_tile_(kTile * call.shape.width),
        turned_(scratch<P>(2 * call.group() * call.tiles() * head_tile_)),
        right_(scratch<P>(2 * head_tile_ + kTile * columns_.padded())), scores_(scratch<float>(2 * tile_)),
        p_(scratch<P>(3 * tile_)), sums_(scratch<float>(2 * head_tile_)),
        query_sums_(scratch<float>(call.group() * call.tiles() * kTile * columns_.padded())),
        delta_(scratch<float>(call.group() * call.tiles() * kTile)) {}

  void run(std::int64_t sequence, std::int64_t key_head) {
    sequence_ = sequence;
    first_head_ = key_head * call_.group();
    for (std::int64_t head = 0; head < call_.group(); ++head) {
      for (std::int64_t i = 0; i < call_.tiles(); ++i) prepare(head, i);
    }
    for (std::int64_t j = 0; j < call_.tiles(); ++j) keys(key_head, j);
    const auto dq = call_.heads(rows_.qkv_gradient, sequence, first_head_);
    const std::vector<float> ones(kTile, 1.0f);
    for (std::int64_t head = 0; head < call_.group(); ++head) {
      for (std::int64_t i = 0; i < call_.tiles(); ++i) {
        store_scaled(call_.tile_rows(i), query_sums(head, i), columns_.padded(), ones.data(), dq.at(head, i * kTile));
      }
    }
  }

 private:
  P* turned_query(std::int64_t head, std::int64_t i) const {
    return data<P>(turned_) + 2 * (head * call_.tiles() + i) * head_tile_;
  }
  P* turned_gradient(std::int64_t head, std::int64_t i) const { return turned_query(head, i) + head_tile_; }
  float* query_sums(std::int64_t head, std::int64_t i) const {
    return data<float>(query_sums_) + (head * call_.tiles() + i) * kTile * columns_.padded();
  }
  float* delta(std::int64_t head, std::int64_t i) const { return data<float>(delta_) + (head * call_.tiles() + i) * kTile; }

  /// What every tile of keys needs of a tile of queries.
  void prepare(std::int64_t head, std::int64_t i) {
    const auto gradient = call_.out_heads(rows_.out_gradient, sequence_, first_head_);
    const auto out = call_.out_heads(rows_.out, sequence_, first_head_);
    const Strided out_rows{call_.rows_in(i), call_.shape.width, out.stride};
    turn(call_.tile_rows(i), call_.heads(call_.qkv, sequence_, first_head_).at(head, i * kTile), turned_query(head, i));
    turn(out_rows, gradient.at(head, i * kTile), turned_gradient(head, i));
    row_products(out_rows, gradient.at(head, i * kTile), out.at(head, i * kTile), delta(head, i));
  }

  /// One tile of keys and values: their gradients, and its share in the gradients of all queries that see it.
  void keys(std::int64_t key_head, std::int64_t j) {
    const AttentionShape& shape = call_.shape;
    const P* k = call_.heads(call_.qkv, sequence_, shape.heads + key_head).at(0, j * kTile);
    const P* v = call_.heads(call_.qkv, sequence_, shape.heads + shape.kv_heads + key_head).at(0, j * kTile);
    P* key_columns = data<P>(right_);
    P* value_columns = key_columns + head_tile_;
    P* key_rows = value_columns + head_tile_;
    pack_transposed(call_.tile_rows(j), k, kTile, key_columns);
    pack_transposed(call_.tile_rows(j), v, kTile, value_columns);
    for (std::int64_t c = 0; c < columns_.count(); ++c) {
      pack({call_.rows_in(j), columns_.used(c), shape.row()}, k + columns_.first(c), columns_.packed(c),
           key_rows + columns_.first(c) * kTile);
    }
    for (std::int64_t head = 0; head < call_.group(); ++head) {
      for (std::int64_t i = j; i < call_.tiles(); ++i) tile(head, i, j, head > 0 || i > j);
    }
    const float* sums = data<float>(sums_);
    store_turned(call_.tile_rows(j), sums,
                 call_.heads(rows_.qkv_gradient, sequence_, shape.heads + key_head).at(0, j * kTile));
    store_turned(call_.tile_rows(j), sums + head_tile_,
                 call_.heads(rows_.qkv_gradient, sequence_, shape.heads + shape.kv_heads + key_head).at(0, j * kTile));
  }

  void tile(std::int64_t head, std::int64_t i, std::int64_t j, bool add) {
    const AttentionShape& shape = call_.shape;
    const std::int64_t rows = call_.rows_in(i);
    const auto gradient = call_.out_heads(rows_.out_gradient, sequence_, first_head_);
    const P* key_columns = data<P>(right_);
    float* scores = data<float>(scores_);
    float* dp = scores + tile_;
    P* p_pairs = data<P>(p_);
    P* ds = p_pairs + tile_;
    P* ds_pairs = ds + tile_;
    Product<T>{rows, kTile, shape.width, shape.row(), kTile, kTile}.run(
        false, call_.heads(call_.qkv, sequence_, first_head_).at(head, i * kTile), key_columns, scores);
    Product<T>{rows, kTile, shape.width, gradient.stride, kTile, kTile}.run(false, gradient.at(head, i * kTile),
                                                                            key_columns + head_tile_, dp);
    const float* lse = rows_.lse + (sequence_ * shape.heads + first_head_ + head) * shape.tokens + i * kTile;
    tile_gradients({rows, call_.rows_in(j), kTile, i * kTile, j * kTile, call_.scale}, {scores, dp, lse, delta(head, i)}, p_pairs,
                   ds, ds_pairs);
    for (std::int64_t c = 0; c < columns_.count(); ++c) {
      const Product<T> mix{kTile, columns_.packed(c), kTile, kTile, columns_.packed(c), columns_.padded()};
      mix.run(j > 0, ds, key_columns + 2 * head_tile_ + columns_.first(c) * kTile, query_sums(head, i) + columns_.first(c));
    }
    const Product<T> turned{shape.width, kTile, kTile, kTile, kTile, kTile};
    turned.run(add, turned_query(head, i), ds_pairs, data<float>(sums_));
    turned.run(add, turned_gradient(head, i), p_pairs, data<float>(sums_) + head_tile_);
  }

  const Call<P>& call_;
  const Rows rows_;
  const Columns columns_;
  const std::int64_t tile_, head_tile_;  // elements of a tile of scores, and of a tile of a head's rows
  const at::Tensor turned_, right_, scores_, p_, sums_, query_sums_, delta_;
  std::int64_t sequence_ = 0, first_head_ = 0;
};

/// Runs `task(sequence, key_head)` for all of them on torch's threads. `make` makes what a thread works with.
template <class T, class Make>
void run_tasks(const AttentionShape& shape, Make&& make) {
  at::parallel_for(0, shape.sequences * shape.kv_heads, 1, [&](std::int64_t begin, std::int64_t end) {
    const ProductContext<T> context;
    auto task = make();
    for (std::int64_t i = begin; i < end; ++i) task.run(i / shape.kv_heads, i % shape.kv_heads);
  });
}

template <class T>
AttentionKept forward_of(const AttentionShape& shape, const at::Tensor& qkv_TP) {
  using P = plain_t<T>;
  AttentionKept kept;
  kept.out_TD = at::empty({shape.sequences * shape.tokens, shape.heads * shape.width}, qkv_TP.options());
  kept.lse_BHS = at::empty({shape.sequences, shape.heads, shape.tokens}, at::kFloat);
  const Call<P> call(shape, qkv_TP);
  run_tasks<T>(shape, [&] { return ForwardTask<T>(call, data<P>(kept.out_TD), data<float>(kept.lse_BHS)); });
  return kept;
}

template <class T>
at::Tensor backward_of(const AttentionShape& shape, const at::Tensor& qkv_TP, const AttentionKept& kept,
                       const at::Tensor& out_gradient_TD) {
  using P = plain_t<T>;
  at::Tensor gradient = at::empty_like(qkv_TP);
  const Call<P> call(shape, qkv_TP);
  const typename BackwardTask<T>::Rows rows{static_cast<const P*>(kept.out_TD.const_data_ptr()),
                                            static_cast<const P*>(out_gradient_TD.const_data_ptr()),
                                            kept.lse_BHS.const_data_ptr<float>(), data<P>(gradient)};
  run_tasks<T>(shape, [&] { return BackwardTask<T>(call, rows); });
  return gradient;
}

}  // namespace

bool attention_tiles_work(at::ScalarType type) {
  static const bool float32 = product_works<float>();
  static const bool bfloat16 = product_works<at::BFloat16>();
  return type == at::kFloat ? float32 : type == at::kBFloat16 && bfloat16;
}

AttentionKept attention_forward_by_tiles(const AttentionShape& shape, const at::Tensor& qkv_TP) {
  return qkv_TP.scalar_type() == at::kFloat ? forward_of<float>(shape, qkv_TP) : forward_of<at::BFloat16>(shape, qkv_TP);
}

at::Tensor attention_backward_by_tiles(const AttentionShape& shape, const at::Tensor& qkv_TP, const AttentionKept& kept,
                                       const at::Tensor& out_gradient_TD) {
  return qkv_TP.scalar_type() == at::kFloat ? backward_of<float>(shape, qkv_TP, kept, out_gradient_TD)
                                            : backward_of<at::BFloat16>(shape, qkv_TP, kept, out_gradient_TD);
}

}  // namespace stagecoach::compute
