#include "tensor/arena.h"

#include <algorithm>

namespace idefics {

void* Arena::take(size_t bytes) {
  const size_t start = used_;
  used_ += (bytes + 63) / 64 * 64;
  peak_ = std::max(peak_, used_);
  if (memory_.data() == nullptr) return nullptr;
  IDEFICS_CHECK(used_ <= memory_.size());
  return memory_.data() + start;
}

Matrix<float> Arena::take_matrix(int64_t rows, int64_t cols) {
  return Matrix<float>(take_array<float>(rows * cols), rows, cols);
}

Activation Arena::take_activation(Element dtype, int64_t rows, int64_t cols) {
  const int64_t stride = dtype == Element::kBf16 ? (cols + 1) / 2 * 2 : cols;
  return Activation(take(static_cast<size_t>(rows * stride * dtype_bytes(dtype))), dtype, rows, cols, stride);
}

}  // namespace idefics
