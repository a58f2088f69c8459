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

// Whole lines of the cache, and an odd number of them: rows at a distance of, say, 6 KiB would all fall into a few sets
// of it.
static int64_t odd_lines(int64_t bytes) { return ((bytes + 63) / 64 | 1) * 64; }

Activation Arena::take_activation(Format format, int64_t rows, int64_t cols) {
  const Element dtype = format.input();
  const int64_t stride = odd_lines(cols * dtype_bytes(dtype)) / dtype_bytes(dtype);
  void* data = take(static_cast<size_t>(rows * stride * dtype_bytes(dtype)));
  PreparedOperand prepared;
  if (format == Format::kQ4 || format == Format::kInt8) {
    const int64_t group = format == Format::kQ4 ? kernels::kGroup : kernels::kGroupInt8;
    prepared.num_groups = (cols + group - 1) / group;
    prepared.groups = take_array<float>(rows * prepared.num_groups);
  }
  if (format == Format::kInt8) {
    prepared.integers = take_array<int32_t>(rows * prepared.num_groups);
    prepared.values = take_array<int8_t>(rows * prepared.num_groups * kernels::kGroupInt8);
  }
  return Activation(data, dtype, rows, cols, stride, prepared);
}

}  // namespace idefics
