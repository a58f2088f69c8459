// Packing weights into the panels that the GEMM kernels read (layout: kernels/table.h). Done once, when a model is
// loaded.
#pragma once

#include <stddef.h>

#include "kernels/table.h"

namespace idefics::kernels {

// Number of panels of a matrix with n columns.
int32_t num_panels(int32_t n);
// Bytes of a packed matrix [K, N].      REQUIRES: n >= 1, k >= 1.
size_t packed_bytes(int32_t n, int32_t k, DType dtype);

// Columns [n0, n1) of a packed matrix [K, N] become the rows of a weight: B[k][n0 + i] = w[i][k], converted to `dtype`.
// Several weights may so share one packed matrix (q, k and v; gate and up). The call that writes column N - 1 also
// clears the columns beyond N; every call clears the odd k beyond K of its columns.
// Threads: calls for different columns may run at the same time.
struct PackArgs {
  const void* w;  // [n1 - n0, K] of w_dtype, row stride w_stride elements; of any alignment
  DType w_dtype;
  int64_t w_stride;
  void* packed;  // packed_bytes(n, k, dtype) bytes, aligned to 4
  DType dtype;
  int32_t n0, n1;
  int32_t n, k;  // N and K of the packed matrix
};
void pack(const PackArgs& args);

}  // namespace idefics::kernels
