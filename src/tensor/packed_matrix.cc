#include "tensor/packed_matrix.h"

#include "base/half.h"

namespace idefics {

namespace {

using kernels::kPanel;

int64_t panel_elements(Element dtype, int64_t k) { return kPanel * (dtype == Element::kBf16 ? (k + 1) / 2 * 2 : k); }

}  // namespace

PackedMatrix::PackedMatrix(Arena& memory, Element dtype, int64_t n, int64_t k, std::vector<float> bias)
    : dtype_(dtype), n_(static_cast<int32_t>(n)), k_(static_cast<int32_t>(k)), bias_(std::move(bias)) {
  IDEFICS_CHECK(n > 0 && k > 0 && n <= INT32_MAX && k <= INT32_MAX);
  IDEFICS_CHECK(bias_.empty() || static_cast<int64_t>(bias_.size()) == n);
  data_ = memory.take(kernels::packed_bytes(n_, k_, dtype));
}

kernels::PackArgs PackedMatrix::row_packing(int64_t first, int64_t count, Element from, const void* rows) const {
  IDEFICS_CHECK(first >= 0 && count > 0 && first + count <= n_);
  return {.w = rows,
          .w_dtype = from,
          .w_stride = k_,
          .packed = data_,
          .dtype = dtype_,
          .n0 = static_cast<int32_t>(first),
          .n1 = static_cast<int32_t>(first + count),
          .n = n_,
          .k = k_};
}

void PackedMatrix::read_row(int64_t n, float* out) const {
  IDEFICS_CHECK(n >= 0 && n < n_);
  const int64_t start = n / kPanel * panel_elements(dtype_, k_), column = n % kPanel;
  if (dtype_ == Element::kF32) {
    const float* panel = static_cast<const float*>(data_) + start;
    for (int64_t i = 0; i < k_; ++i) out[i] = panel[i * kPanel + column];
  } else {
    const uint16_t* panel = static_cast<const uint16_t*>(data_) + start;
    for (int64_t i = 0; i < k_; ++i) out[i] = bf16_to_f32(panel[(i / 2) * kPanel * 2 + column * 2 + i % 2]);
  }
}

}  // namespace idefics
