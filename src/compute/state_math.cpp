// The loops of sums.h and optimizer.h over torch's tensors, in pieces for torch's threads. See state_math.h.
#include "compute/state_math.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "base/check.h"
#include "compute/sums.h"

namespace stagecoach::compute {
namespace {

using model::FloatKind;
using model::SumKind;

// Of elements. Pieces are small enough to share a tensor out among threads, large enough to cost nothing, and a power of two, so
// that none crosses the 2^32nd element (noise_key_at). A norm is added up piece by piece, so that they are part of its bits.
constexpr std::int64_t kPiece = 1 << 16;

SumKind sum_kind(const at::Tensor& sums) {
  return sums.scalar_type() == at::kLong    ? SumKind::fixed64
         : sums.scalar_type() == at::kFloat ? SumKind::float32
                                            : SumKind::bfloat16;
}
FloatKind float_kind(const at::Tensor& values) {
  return values.scalar_type() == at::kFloat ? FloatKind::float32 : FloatKind::bfloat16;
}

std::byte* at_element(const at::Tensor& tensor, std::int64_t element) {
  if (!tensor.defined()) return nullptr;
  return static_cast<std::byte*>(tensor.data_ptr()) + element * static_cast<std::int64_t>(tensor.element_size());
}

/// Calls work(first, count) for every piece of `count` elements, on torch's threads.
template <class Work>
void for_each_piece(std::int64_t count, std::int64_t piece, const Work& work) {
  at::parallel_for(0, (count + piece - 1) / piece, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) work(i * piece, std::min(piece, count - i * piece));
  });
}

FloatPiece gradient_piece(const at::Tensor& gradient, std::int64_t first, std::int64_t count) {
  return {at_element(gradient, first), float_kind(gradient), count};
}

StatePiece state_piece(const TensorState& state, std::int64_t first, std::int64_t count) {
  StatePiece piece;
  piece.first = first;
  piece.count = count;
  if (state.sums.defined()) piece.sum_kind = sum_kind(state.sums);
  piece.sums = at_element(state.sums, first);
  piece.state_kind = float_kind(state.weight);
  piece.weight = at_element(state.weight, first);
  piece.copy = reinterpret_cast<std::uint16_t*>(at_element(state.copy, first));
  piece.moment = at_element(state.moment, first);
  piece.second_moment = at_element(state.second_moment, first);
  piece.decayed = state.decayed;
  piece.noise = state.noise;
  return piece;
}

class HostMath final : public StateMath {
 public:
  bool add_gradient(const at::Tensor& gradient, double scale, const at::Tensor& sums) const override {
    std::atomic<bool> fits = true;
    for_each_piece(sums.numel(), kPiece, [&](std::int64_t first, std::int64_t count) {
      if (!compute::add_gradient(sum_kind(sums), gradient_piece(gradient, first, count), scale, at_element(sums, first))) fits = false;
    });
    return fits;
  }

  void subtract_gradient(const at::Tensor& gradient, double scale, const at::Tensor& sums) const override {
    CHECK(sums.scalar_type() == at::kLong, "only integers can be taken back to the bit");
    for_each_piece(sums.numel(), kPiece, [&](std::int64_t first, std::int64_t count) {
      compute::subtract_gradient(gradient_piece(gradient, first, count), scale, sums.data_ptr<std::int64_t>() + first);
    });
  }

  std::vector<double> sums_of_squares(const std::vector<at::Tensor>& tensors, double unit) const override {
    // Most tensors are a few pieces: the pieces of all are shared out among the threads together.
    struct Piece {
      std::size_t tensor;
      std::int64_t first, count;
      double squares = 0;
    };
    std::vector<Piece> pieces;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const std::int64_t elements = tensors[i].numel();
      for (std::int64_t first = 0; first < elements; first += kPiece) pieces.push_back({i, first, std::min(kPiece, elements - first)});
    }
    for_each_piece(static_cast<std::int64_t>(pieces.size()), 1, [&](std::int64_t i, std::int64_t) {
      Piece& piece = pieces[static_cast<std::size_t>(i)];
      const at::Tensor& sums = tensors[piece.tensor];
      piece.squares = sum_of_squares(sum_kind(sums), at_element(sums, piece.first), piece.count, unit);
    });
    std::vector<double> totals(tensors.size());
    for (const Piece& piece : pieces) totals[piece.tensor] += piece.squares;
    return totals;
  }

  void update(const UpdateFactors& factors, const TensorState& state) const override {
    for_each_piece(state.weight.numel(), kPiece, [&](std::int64_t first, std::int64_t count) {
      Optimizer::update(factors, state_piece(state, first, count));
    });
  }

  at::Tensor muon_momentum(const UpdateFactors& factors, const TensorState& state) const override {
    const at::Tensor direction = at::empty({state.weight.numel()}, at::kFloat);
    float* values = direction.mutable_data_ptr<float>();
    for_each_piece(state.weight.numel(), kPiece, [&](std::int64_t first, std::int64_t count) {
      Optimizer::muon_momentum(factors, state_piece(state, first, count), values + first);
    });
    return direction;
  }

  void muon_weight(const UpdateFactors& factors, const TensorState& state, float rate, const at::Tensor& direction) const override {
    const float* values = direction.const_data_ptr<float>();
    for_each_piece(state.weight.numel(), kPiece, [&](std::int64_t first, std::int64_t count) {
      Optimizer::muon_weight(factors, state_piece(state, first, count), rate, values + first);
    });
  }
};

}  // namespace

at::ScalarType scalar_type(SumKind kind) {
  return kind == SumKind::fixed64 ? at::kLong : kind == SumKind::float32 ? at::kFloat : at::kBFloat16;
}
at::ScalarType scalar_type(FloatKind kind) { return kind == FloatKind::float32 ? at::kFloat : at::kBFloat16; }

const StateMath& host_math() {
  static const HostMath math;
  return math;
}

}  // namespace stagecoach::compute
