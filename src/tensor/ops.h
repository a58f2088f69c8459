// The operations that the model is written in. Each checks shapes (a wrong shape is a fault of ours), splits its work
// over the pool, and calls the kernel table. Formulas: kernels/table.h. No operation allocates. Results do not depend
// on the number of threads or of rows in the call.
#pragma once

#include <cstdint>
#include <span>

#include "base/thread_pool.h"
#include "kernels/table.h"
#include "tensor/arena.h"
#include "tensor/packed_matrix.h"
#include "tensor/view.h"

namespace idefics {

// What a forward pass runs on: passed down as an argument, never global. One owner thread.
struct Exec {
  const kernels::Table& kernels;
  ThreadPool& pool;
  Arena& arena;
};

namespace ops {

// y = a W^T + bias, rounded to the type of y.      Shapes: a [T, K], w [N, K], y [T, N].
void matmul(const Exec& exec, const Activation& a, const PackedMatrix& w, const Activation& y);
// y = y + a W^T + bias.
void matmul_add(const Exec& exec, const Activation& a, const PackedMatrix& w, Matrix<float> y);
// y = gelu_tanh(a W^T + bias), rounded to the type of y.
void matmul_gelu(const Exec& exec, const Activation& a, const PackedMatrix& w, const Activation& y);

// Says which matrix is read next, so that threads which wait meanwhile can fetch some of it.
void expect(const Exec& exec, const PackedMatrix& next);

// x [T, E] -> y [T, E] in the compute type or in float32.
void layer_norm(const Exec& exec, Matrix<const float> x, std::span<const float> w, std::span<const float> b, float eps,
                const Activation& y);
void rms_norm(const Exec& exec, Matrix<const float> x, std::span<const float> w, float eps, const Activation& y);

// Rotates each of `heads` heads of D = 2 * cos.cols() values of x in place.  x [T, heads * D], pos [T].
void rope(const Exec& exec, Matrix<float> x, int heads, Matrix<const float> cos, Matrix<const float> sin,
          std::span<const int32_t> pos);

// x [T, 2 I] (gate, up) -> y [T, I].
void swiglu(const Exec& exec, Matrix<const float> x, const Activation& y);

// x -> y, rounded to the type of y.
void convert(const Exec& exec, Matrix<const float> x, const Activation& y);

// Where the K and V of one sequence lie: for each kv head the addresses of its blocks of 64 tokens.
struct KvBlocks {
  KvType dtype;
  int kv_heads, head_dim;
  int64_t num_blocks;
  void* const* k;  // [kv_heads][num_blocks]
  void* const* v;
};
// Bytes of one K block and of one V block.
int64_t k_block_bytes(KvType dtype, int head_dim);
int64_t v_block_bytes(KvType dtype, int head_dim);

// Consecutive rows of a step that are consecutive tokens of one sequence.
struct KvRows {
  int64_t first_row, num_rows;
  int64_t first_token;
  KvBlocks blocks;  // of the same type, kv heads and head size for all sequences of a call
};

// Stores these rows of k and v (each [T, kv_heads * D]) as tokens first_token .. first_token + num_rows - 1.
void kv_store(const Exec& exec, const Activation& k, const Activation& v, std::span<const KvRows> sequences);

// y[t, h] = attention of q[t, h] over the first limit[t] tokens of its sequence, kv head h / (heads / kv_heads), for
// the rows t of these sequences.
// Shapes: q [T, heads * D], y [T, heads * D], limit [T], each at least 1.
void attention(const Exec& exec, const Activation& q, int heads, std::span<const KvRows> sequences,
               std::span<const int32_t> limit, float scale, const Activation& y);

}  // namespace ops
}  // namespace idefics
