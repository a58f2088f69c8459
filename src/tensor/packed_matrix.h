// The weights of a linear layer, in the layout that the kernels read.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace idefics {

// W [N, K] as panels of 64 outputs (kernels/table.h), with an optional bias [N]. Packed once, never changed.
class PackedMatrix {
 public:
  // Writes row n of W (K floats) to `out`. Called from several threads, each row once.
  using RowSource = std::function<void(int64_t n, float* out)>;

  PackedMatrix() = default;
  // Rows are rounded to `dtype` (to nearest even). `bias` may be empty.
  PackedMatrix(ThreadPool& pool, Element dtype, int64_t n, int64_t k, const RowSource& rows,
               std::vector<float> bias = {});

  Element dtype() const { return dtype_; }
  int32_t n() const { return n_; }
  int32_t k() const { return k_; }
  int32_t num_panels() const { return (n_ + kernels::kPanel - 1) / kernels::kPanel; }
  const void* data() const { return data_.data(); }
  const float* bias() const { return bias_.empty() ? nullptr : bias_.data(); }
  size_t bytes() const { return data_.size() + bias_.size() * sizeof(float); }

  // Row n of W, widened. Reads one element per 256 bytes: meant for single rows (a tied embedding), not for sweeps.
  void read_row(int64_t n, float* out) const;

 private:
  Element dtype_ = Element::kF32;
  int32_t n_ = 0, k_ = 0;
  Buffer data_;
  std::vector<float> bias_;
};

}  // namespace idefics
