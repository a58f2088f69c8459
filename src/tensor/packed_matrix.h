// The weights of a linear layer, in the layout that the kernels read.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/packing.h"
#include "tensor/arena.h"
#include "tensor/view.h"

namespace idefics {

// W [N, K] as panels of 64 outputs (kernels/table.h), with an optional bias [N]. Packed once, never changed. The panels
// lie in an arena, which must live as long: one allocation for all weights, so that small ones lie on huge pages too.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  // Room for n rows of k elements, which are to be set one by one or together. `bias` may be empty.
  PackedMatrix(Arena& memory, Format format, int64_t n, int64_t k, std::vector<float> bias = {});

  // What sets rows [first, first + count) of W when it is given to kernels::pack: `rows` are `count` rows of K elements
  // of type `from`, one behind the other, of any alignment; they are rounded to nearest, or quantised.
  // Threads: different rows may be set at the same time.
  kernels::PackArgs row_packing(int64_t first, int64_t count, Element from, const void* rows) const;

  Format format() const { return format_; }
  Element dtype() const { return format_.input(); }  // of what it is multiplied with
  int32_t n() const { return n_; }
  int32_t k() const { return k_; }
  int32_t num_panels() const { return kernels::num_panels(n_); }
  const void* data() const { return data_; }
  size_t bytes() const { return kernels::packed_bytes(n_, k_, format_); }  // of all panels
  int64_t panel_bytes() const { return static_cast<int64_t>(bytes()) / num_panels(); }
  const float* bias() const { return bias_.empty() ? nullptr : bias_.data(); }

  // Row n of W, widened. Reads far apart: meant for single rows (a tied embedding), not for sweeps.
  void read_row(int64_t n, float* out) const;

 private:
  Format format_ = Element::kF32;
  int32_t n_ = 0, k_ = 0;
  void* data_ = nullptr;
  std::vector<float> bias_;
};

}  // namespace idefics
