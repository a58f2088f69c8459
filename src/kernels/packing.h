// Packing weights into the panels that the GEMM kernels read (layout: kernels/table.h). Done once, when a model is
// loaded.
#pragma once

#include <stddef.h>

#include "kernels/table.h"

namespace idefics::kernels {

// What a packed matrix is made of: a plain type, or one of the quantised forms of kernels/table.h.
class Format {
 public:
  enum Kind : uint8_t { kF32, kBf16, kQ8, kQ4, kInt8 };
  constexpr Format(Kind kind) : kind_(kind) {}
  constexpr Format(DType dtype) : kind_(dtype == DType::kF32 ? kF32 : kBf16) {}
  constexpr operator Kind() const { return kind_; }

  // The type of what is multiplied with such a matrix. (int8 quantises it on the way.)
  constexpr DType input() const { return kind_ == kF32 ? DType::kF32 : DType::kBf16; }
  constexpr bool quantized() const { return kind_ > kBf16; }

 private:
  Kind kind_;
};

// "f32", "bf16", "q8", "q4" or "int8".
const char* name_of(Format format);

// Number of panels of a matrix with n columns.
int32_t num_panels(int32_t n);
// Bytes of a packed matrix [K, N].      REQUIRES: n >= 1, k >= 1.
size_t packed_bytes(int32_t n, int32_t k, Format format);

// Columns [n0, n1) of a packed matrix [K, N] become the rows of a weight: B[k][n0 + i] = w[i][k], converted to
// `format`. Several weights may so share one packed matrix (q, k and v; gate and up). The call that writes column N - 1
// also clears the columns beyond N; every call clears what lies beyond K in its columns. Threads: calls for different
// columns may run at the same time.
struct PackArgs {
  const void* w;  // [n1 - n0, K] of w_dtype, row stride w_stride elements; of any alignment
  DType w_dtype;
  int64_t w_stride;
  void* packed;  // packed_bytes(n, k, format) bytes, aligned to 4
  Format format;
  int32_t n0, n1;
  int32_t n, k;  // N and K of the packed matrix
};
void pack(const PackArgs& args);

// The part of `pack` for the quantised forms (quantize.cc).
void pack_quantized(const PackArgs& args);

// Column n of a packed matrix [K, ..], widened. Reads a line for each element or two: meant for single columns.
void unpack_column(const void* packed, Format format, int32_t k, int32_t n, float* out);

}  // namespace idefics::kernels
