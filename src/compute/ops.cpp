// See ops.h. Each function: the CPU's kernel over rows shared among threads, else ATen in fp32.
#include "compute/ops.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "compute/fixed64.h"
#include "compute/kernels.h"

namespace stagecoach::compute {
namespace {

bool by_kernel(const at::Tensor& x, Way way) { return way == Way::automatic && x.device().is_cpu(); }

template <class T>
const T* in(const at::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}
template <class T>
T* out(const at::Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

/// Calls `work` with a value of the kernels' type for the tensor's numbers.
template <class Work>
void with_numbers_of(const at::Tensor& x, Work&& work) {
  if (x.scalar_type() == at::kBFloat16) {
    work(BFloat{});
  } else {
    work(float{});
  }
}

/// Calls `work(first, last)` for ranges of rows, each worth a thread's while.
template <class Work>
void over_rows(std::int64_t rows, std::int64_t width, Work&& work) {
  constexpr std::int64_t kElementsAtLeast = 16'384;
  at::parallel_for(0, rows, std::max<std::int64_t>(1, kElementsAtLeast / std::max<std::int64_t>(1, width)), work);
}

constexpr std::int64_t kNormRows = 64;          // of a block of the norm's backward
constexpr std::int64_t kTransposedAtOnce = 64;  // columns
constexpr std::int64_t kRowsOfThread = 128;     // of a product, at least
constexpr std::int64_t kColumnsOfPart = 896;    // at least

at::Tensor as_float(const at::Tensor& x) { return x.to(at::kFloat); }

void multiply_into(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, const at::Tensor& onto) {
  if (onto.defined()) {
    at::addmm_out(out, onto, a, b);
  } else {
    at::mm_out(out, a, b);
  }
}

/// How a bfloat16 product on CPU threads is cut into several, where oneDNN takes longer with it whole.
enum class Cut : std::uint8_t { none, rows, columns };

Cut best_cut(const at::Tensor& a, const at::Tensor& b) {
  const std::int64_t rows = a.size(0), inner = a.size(1), columns = b.size(1), threads = at::get_num_threads();
  if (!a.device().is_cpu() || a.scalar_type() != at::kBFloat16) return Cut::none;
  // With two threads it takes as long as with one where the sums are longer than the rows of the result. But each of our threads
  // reads the whole right side, which its rows must be worth.
  if (threads > 1 && inner > columns && rows >= threads * kRowsOfThread) return Cut::rows;
  // A right side that is wide rather than deep it copies as a whole, past a core's cache.
  const bool fits_in_parts = inner <= 1'024 && columns >= 2 * kColumnsOfPart && inner * columns > (std::int64_t{1} << 20);
  if (fits_in_parts && rows >= kRowsOfThread && threads <= columns / kColumnsOfPart) return Cut::columns;
  return Cut::none;
}

/// onto + a · b
at::Tensor matrix_product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& onto) {
  at::Tensor made = at::empty({a.size(0), b.size(1)}, a.options());
  const Cut cut = best_cut(a, b);
  if (cut == Cut::none) {
    multiply_into(made, a, b, onto);
  } else if (cut == Cut::rows) {
    at::parallel_for(0, a.size(0), kRowsOfThread, [&](std::int64_t first, std::int64_t last) {
      const at::AutoDispatchBelowADInplaceOrView no_graph;
      const auto rows = [&](const at::Tensor& x) { return x.defined() ? x.narrow(0, first, last - first) : x; };
      at::Tensor here = rows(made);
      multiply_into(here, rows(a), b, rows(onto));
    });
  } else {
    const std::int64_t all = b.size(1), width = (all / (all / kColumnsOfPart) + 31) / 32 * 32;
    at::parallel_for(0, (all + width - 1) / width, 1, [&](std::int64_t begin, std::int64_t end) {
      const at::AutoDispatchBelowADInplaceOrView no_graph;
      for (std::int64_t first = begin * width; first < std::min(all, end * width); first += width) {
        const std::int64_t last = std::min(all, first + width);
        const auto columns = [&](const at::Tensor& x) { return x.defined() ? x.narrow(1, first, last - first) : x; };
        at::Tensor here = columns(made);
        multiply_into(here, a, columns(b), columns(onto));
      }
    });
  }
  return made;
}

}  // namespace

NormOutput rms_norm(const at::Tensor& x_TD, const at::Tensor& weight_D, double eps, Way way) {
  if (!by_kernel(x_TD, way)) {
    const at::Tensor x = as_float(x_TD), rstd = at::rsqrt(x.square().mean(-1, true) + eps);
    return {(x * rstd * as_float(weight_D)).to(x_TD.scalar_type()), rstd.squeeze(-1)};
  }
  const std::int64_t width = x_TD.size(1);
  NormOutput made{at::empty_like(x_TD), at::empty({x_TD.size(0)}, at::kFloat)};
  with_numbers_of(x_TD, [&](auto number) {
    using T = decltype(number);
    over_rows(x_TD.size(0), width, [&](std::int64_t first, std::int64_t last) {
      rms_norm_forward({last - first, width}, in<T>(x_TD) + first * width, in<T>(weight_D), static_cast<float>(eps),
                       out<T>(made.y_TD) + first * width, out<float>(made.rstd_T) + first);
    });
  });
  return made;
}

NormGradients rms_norm_backward(const at::Tensor& x_TD, const at::Tensor& weight_D, const at::Tensor& rstd_T,
                                const at::Tensor& dy_TD, const at::Tensor& skip, Way way) {
  const std::int64_t rows = x_TD.size(0), width = x_TD.size(1);
  if (!by_kernel(x_TD, way)) {
    const at::Tensor x = as_float(x_TD), dy = as_float(dy_TD), rstd = rstd_T.unsqueeze(1), through = dy * as_float(weight_D);
    at::Tensor dx = rstd * (through - x * ((through * x).mean(-1, true) * rstd.square()));
    if (skip.defined()) dx.narrow(1, 0, skip.size(1)).add_(as_float(skip));
    return {dx.to(x_TD.scalar_type()), (dy * x * rstd).sum(0)};
  }
  NormGradients made{at::empty_like(x_TD), at::empty({width}, at::kFloat)};
  const std::int64_t blocks = (rows + kNormRows - 1) / kNormRows;
  std::vector<double> sums(static_cast<std::size_t>(blocks * width), 0.0);
  with_numbers_of(x_TD, [&](auto number) {
    using T = decltype(number);
    const std::int64_t skipped = skip.defined() ? skip.size(1) : 0;
    at::parallel_for(0, blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t block = begin; block < end; ++block) {
        const std::int64_t first = block * kNormRows, count = std::min(kNormRows, rows - first);
        const Skip<T> past{skip.defined() ? in<T>(skip) + first * skipped : nullptr, skipped};
        compute::rms_norm_backward({count, width}, in<T>(x_TD) + first * width, in<T>(weight_D), in<float>(rstd_T) + first,
                                   in<T>(dy_TD) + first * width, past, out<T>(made.x_TD) + first * width,
                                   sums.data() + block * width);
      }
    });
  });
  for (std::int64_t block = 1; block < blocks; ++block) {
    for (std::int64_t d = 0; d < width; ++d) sums[static_cast<std::size_t>(d)] += sums[static_cast<std::size_t>(block * width + d)];
  }
  std::copy_n(sums.begin(), width, out<float>(made.weight_D));
  return made;
}

void rotate(const AttentionShape& shape, const Rotation& rotation, Turn turn, at::Tensor& qkv_TP, Way way) {
  const float direction = turn == Turn::forward ? 1.0f : -1.0f;
  const std::int64_t half = shape.width / 2, heads = shape.heads + shape.kv_heads;
  if (!by_kernel(qkv_TP, way)) {
    const at::Tensor by_head =
        qkv_TP.narrow(1, 0, heads * shape.width).view({shape.sequences, shape.tokens, heads, shape.width});
    const at::Tensor first = as_float(by_head.narrow(3, 0, half)), second = as_float(by_head.narrow(3, half, half));
    const at::Tensor c = rotation.cosine.unsqueeze(1), s = rotation.sine.unsqueeze(1) * direction;
    const at::Tensor turned = first * c - second * s;
    by_head.narrow(3, half, half).copy_(second * c + first * s);
    by_head.narrow(3, 0, half).copy_(turned);
    return;
  }
  with_numbers_of(qkv_TP, [&](auto number) {
    using T = decltype(number);
    over_rows(qkv_TP.size(0), shape.row(), [&](std::int64_t first, std::int64_t last) {
      compute::rotate({first, last, shape.tokens, heads, half, shape.row()}, in<float>(rotation.cosine),
                      in<float>(rotation.sine), direction, out<T>(qkv_TP));
    });
  });
}

at::Tensor gate(const at::Tensor& ab, Way way) {
  const std::int64_t width = ab.size(1) / 2;
  if (!by_kernel(ab, way)) {
    const at::Tensor a = as_float(ab.narrow(1, 0, width)), b = as_float(ab.narrow(1, width, width));
    return (a * at::sigmoid(a) * b).to(ab.scalar_type());
  }
  at::Tensor y = at::empty({ab.size(0), width}, ab.options());
  with_numbers_of(ab, [&](auto number) {
    using T = decltype(number);
    over_rows(ab.size(0), width, [&](std::int64_t first, std::int64_t last) {
      gate_forward({last - first, width}, in<T>(ab) + first * 2 * width, out<T>(y) + first * width);
    });
  });
  return y;
}

at::Tensor gate_backward(at::Tensor& ab, const at::Tensor& dy_TF, Way way) {
  const std::int64_t width = ab.size(1) / 2;
  if (!by_kernel(ab, way)) {
    const at::Tensor a = as_float(ab.narrow(1, 0, width)), b = as_float(ab.narrow(1, width, width)), dy = as_float(dy_TF);
    const at::Tensor s = at::sigmoid(a), y = (a * s * b).to(ab.scalar_type());
    const at::Tensor of_a = dy * b * (s * (1 + a * (1 - s)));
    ab.narrow(1, width, width).copy_(dy * (a * s));
    ab.narrow(1, 0, width).copy_(of_a);
    return y;
  }
  at::Tensor y = at::empty({ab.size(0), width}, ab.options());
  with_numbers_of(ab, [&](auto number) {
    using T = decltype(number);
    over_rows(ab.size(0), width, [&](std::int64_t first, std::int64_t last) {
      compute::gate_backward({last - first, width}, out<T>(ab) + first * 2 * width, in<T>(dy_TF) + first * width,
                             out<T>(y) + first * width);
    });
  });
  return y;
}

at::Tensor silu_forward(const at::Tensor& x, Way way) {
  if (!by_kernel(x, way)) {
    const at::Tensor wide = as_float(x);
    return (wide * at::sigmoid(wide)).to(x.scalar_type());
  }
  at::Tensor y = at::empty_like(x);
  with_numbers_of(x, [&](auto number) {
    using T = decltype(number);
    over_rows(x.numel(), 1, [&](std::int64_t first, std::int64_t last) {
      compute::silu_forward(last - first, in<T>(x) + first, out<T>(y) + first);
    });
  });
  return y;
}

at::Tensor silu_backward(const at::Tensor& x, at::Tensor& dy, Way way) {
  if (!by_kernel(x, way)) {
    const at::Tensor wide = as_float(x), s = at::sigmoid(wide);
    dy.copy_(as_float(dy) * (s * (1 + wide * (1 - s))));
    return (wide * s).to(x.scalar_type());
  }
  at::Tensor y = at::empty_like(x);
  with_numbers_of(x, [&](auto number) {
    using T = decltype(number);
    over_rows(x.numel(), 1, [&](std::int64_t first, std::int64_t last) {
      compute::silu_backward(last - first, in<T>(x) + first, out<T>(dy) + first, out<T>(y) + first);
    });
  });
  return y;
}

double cross_entropy(at::Tensor& logits_TV, const at::Tensor& labels_T, bool gradient, Way way) {
  const std::int64_t rows = logits_TV.size(0), width = logits_TV.size(1);
  if (!by_kernel(logits_TV, way)) {
    const at::Tensor labels = labels_T.unsqueeze(1);
    const at::Tensor log_p = at::log_softmax(as_float(logits_TV), 1);
    // Summed on the host: not every device has fp64.
    const double loss = -log_p.gather(1, labels).cpu().sum(at::kDouble).item<double>();
    if (gradient) logits_TV.copy_(log_p.exp().scatter_add(1, labels, at::full({rows, 1}, -1.0, log_p.options())));
    return loss;
  }
  std::vector<double> losses(static_cast<std::size_t>(rows));
  with_numbers_of(logits_TV, [&](auto number) {
    using T = decltype(number);
    over_rows(rows, width, [&](std::int64_t first, std::int64_t last) {
      compute::cross_entropy({last - first, width}, out<T>(logits_TV) + first * width, in<std::int64_t>(labels_T) + first,
                             gradient ? LossOutput::loss_and_gradient : LossOutput::loss, losses.data() + first);
    });
  });
  double total = 0;
  for (const double loss : losses) total += loss;
  return total;
}

at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& onto) {
  return matrix_product(x, weight.t(), onto);
}

at::Tensor input_gradient(const at::Tensor& dy, const at::Tensor& weight, const at::Tensor& onto) {
  return matrix_product(dy, weight, onto);
}

at::Tensor weight_gradient(const at::Tensor& dy, const at::Tensor& x, Way way) {
  // oneDNN reorders a transposed left side element by element, which takes as long as the product itself.
  if (dy.scalar_type() != at::kBFloat16 || !by_kernel(dy, way)) return at::mm(dy.t(), x);
  const at::Tensor turned = at::empty({dy.size(1), dy.size(0)}, dy.options());
  over_rows((dy.size(1) + kTransposedAtOnce - 1) / kTransposedAtOnce, kTransposedAtOnce * dy.size(0),
            [&](std::int64_t first, std::int64_t last) {
              transpose({dy.size(0), dy.size(1)}, {first * kTransposedAtOnce, std::min(last * kTransposedAtOnce, dy.size(1))},
                        in<BFloat>(dy), out<BFloat>(turned));
            });
  return matrix_product(turned, x, {});
}

bool tensor_is_finite(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kBFloat16) return all_finite(in<std::uint16_t>(tensor), tensor.numel());
  return all_finite(in<float>(tensor), tensor.numel());
}

}  // namespace stagecoach::compute
