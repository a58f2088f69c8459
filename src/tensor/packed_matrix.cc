#include "tensor/packed_matrix.h"

#include "base/check.h"

namespace idefics {

PackedMatrix::PackedMatrix(Arena& memory, Format format, int64_t n, int64_t k, std::vector<float> bias)
    : format_(format), n_(static_cast<int32_t>(n)), k_(static_cast<int32_t>(k)), bias_(std::move(bias)) {
  IDEFICS_CHECK(n > 0 && k > 0 && n <= INT32_MAX && k <= INT32_MAX);
  IDEFICS_CHECK(bias_.empty() || static_cast<int64_t>(bias_.size()) == n);
  data_ = memory.take(kernels::packed_bytes(n_, k_, format));
}

kernels::PackArgs PackedMatrix::row_packing(int64_t first, int64_t count, Element from, const void* rows) const {
  IDEFICS_CHECK(first >= 0 && count > 0 && first + count <= n_);
  return {.w = rows,
          .w_dtype = from,
          .w_stride = k_,
          .packed = data_,
          .format = format_,
          .n0 = static_cast<int32_t>(first),
          .n1 = static_cast<int32_t>(first + count),
          .n = n_,
          .k = k_};
}

void PackedMatrix::read_row(int64_t n, float* out) const {
  IDEFICS_CHECK(n >= 0 && n < n_);
  kernels::unpack_column(data_, format_, k_, static_cast<int32_t>(n), out);
}

}  // namespace idefics
