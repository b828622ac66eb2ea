// TensorBytes: a tensor as everybody but compute/ sees it: dtype, shape, bytes in row-major order, little-endian.
//
// Thread:  any; the bytes are immutable and shared.
// Why:     torch's headers cost seconds and gigabytes a file; the road, the store and the brains need none of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"

namespace stagecoach::base {

enum class DType : std::uint8_t { f32 = 0, bf16 = 1, i64 = 2, i32 = 3 };

constexpr std::size_t bytes_per_element(DType dtype) {
  switch (dtype) {
    case DType::f32: return 4;
    case DType::bf16: return 2;
    case DType::i64: return 8;
    case DType::i32: return 4;
  }
  return 0;
}

struct TensorBytes {
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  Payload bytes;  // null = no tensor
};

/// A tensor under its global name ("blocks.3.attention.wq"): the same whatever the split.
struct NamedTensor {
  std::string name;
  TensorBytes tensor;
};

}  // namespace stagecoach::base
