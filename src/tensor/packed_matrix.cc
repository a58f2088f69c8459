#include "tensor/packed_matrix.h"

#include <algorithm>

#include "base/half.h"
#include "kernels/packing.h"

namespace idefics {

namespace {

using kernels::kPanel;

int64_t panel_elements(Element dtype, int64_t k) { return kPanel * (dtype == Element::kBf16 ? (k + 1) / 2 * 2 : k); }

}  // namespace

PackedMatrix::PackedMatrix(ThreadPool& pool, Element dtype, int64_t n, int64_t k, const RowSource& rows,
                           std::vector<float> bias)
    : dtype_(dtype), n_(static_cast<int32_t>(n)), k_(static_cast<int32_t>(k)), bias_(std::move(bias)) {
  IDEFICS_CHECK(n > 0 && k > 0 && n <= INT32_MAX && k <= INT32_MAX);
  IDEFICS_CHECK(bias_.empty() || static_cast<int64_t>(bias_.size()) == n);
  data_ = Buffer(kernels::packed_bytes(n_, k_, dtype), "weights");
  // One row buffer per panel in flight, made before the region: its body must not throw.
  std::vector<std::vector<float>> scratch(static_cast<size_t>(pool.num_threads()),
                                          std::vector<float>(static_cast<size_t>(kPanel * k)));
  std::atomic<size_t> next_scratch{0};
  const int64_t per_thread = (num_panels() + pool.num_threads() - 1) / pool.num_threads();
  pool.parallel_for(num_panels(), per_thread, [&](int64_t begin, int64_t end) {
    float* buffer = scratch[next_scratch.fetch_add(1)].data();
    for (int64_t p = begin; p < end; ++p) {
      const int64_t count = std::min<int64_t>(kPanel, n - p * kPanel);
      for (int64_t c = 0; c < count; ++c) rows(p * kPanel + c, buffer + c * k);
      kernels::pack({.w = buffer,
                     .w_dtype = Element::kF32,
                     .w_stride = k,
                     .packed = data_.data(),
                     .dtype = dtype_,
                     .n0 = static_cast<int32_t>(p * kPanel),
                     .n1 = static_cast<int32_t>(p * kPanel + count),
                     .n = n_,
                     .k = k_});
    }
  });
}

void PackedMatrix::read_row(int64_t n, float* out) const {
  IDEFICS_CHECK(n >= 0 && n < n_);
  const int64_t start = n / kPanel * panel_elements(dtype_, k_), column = n % kPanel;
  if (dtype_ == Element::kF32) {
    const float* panel = data_.as<float>().data() + start;
    for (int64_t i = 0; i < k_; ++i) out[i] = panel[i * kPanel + column];
  } else {
    const uint16_t* panel = data_.as<uint16_t>().data() + start;
    for (int64_t i = 0; i < k_; ++i) out[i] = bf16_to_f32(panel[(i / 2) * kPanel * 2 + column * 2 + i % 2]);
  }
}

}  // namespace idefics
