// The kernel table: one struct of function pointers over plain argument structs. `ref/` fills every slot in plain C++
// and says what is meant; `avx2/`, `avx512/` and `amx/` replace the slots they improve. Only tensor/ops calls these
// functions.
//
// Rules for every kernel
//   1. noexcept; no allocation; no shared state. Work is split by the caller; a kernel computes the part that its
//      arguments name, and writes nothing else.
//   2. One fixed order of summation for each output element, whatever the number of rows in the call, the split between
//      threads or the position of the row in the call: the same inputs give the same bytes alone and in any batch.
//      (Levels may differ from each other in the last bits; a level never differs from itself.)
//   3. Where a struct says `dtype`, kF32 means float and kBf16 means uint16_t with bfloat16 bits. A float that is
//   stored
//      as bf16 is rounded to nearest, ties to even; where bf16 takes part a subnormal may become zero.
//   4. NaN and Inf spread as in plain arithmetic into the elements that depend on them, and into no other.
//   5. Outputs overlap no input, unless the struct says otherwise. Pointers are aligned to their elements, no more;
//      packed matrices and blocks are fastest on 64-byte boundaries.
// This header includes only freestanding headers and has no function of external linkage that is defined here: a file
// compiled for a CPU level must not see inline functions of the library, or the linker may put that level's code into
// everybody's path.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace idefics::kernels {

enum class DType : uint8_t { kF32, kBf16 };
enum class KvType : uint8_t { kF32, kBf16, kQ8 };  // of keys and values: see kBlock

// Packed matrices: columns in panels of kPanel. A matrix B [K, N] (weights: N = outputs, K = inputs; B[k][n] = W[n][k])
// lies as  f32: [P][K][kPanel]   bf16: [P][Kp/2][kPanel][2], P = N/kPanel rounded up, Kp = K rounded up to even, the
// pair holding k and k + 1 of one column. Columns beyond N and the odd k beyond K are zero. (kernels/packing.h packs.)
inline constexpr int32_t kPanel = 64;

// Quantised matrices: groups of inputs that share a scale, in the same panels. G = K / group rounded up; inputs beyond
// K are zero. A panel is
//   q8    [G] { int8 v [32][kPanel], bf16 scale [kPanel] }                                        W = scale v
//   q4    bf16 offset [G][kPanel], [G] { uint32 [4][kPanel], bf16 scale [kPanel] }      W = scale (v - 8) + offset
//         a word holds the v of 8 inputs of one column, 4 bits each, the first in the lowest
//   int8  [G] { int8 v [16][kPanel][4] }, float scale [kPanel]                          W = scale v, |v| <= 127
// 8.5, 5 and 8 bits a weight. A group with a NaN or an Inf has NaN for scale (int8: the column has).
inline constexpr int32_t kGroup = 32;      // q8, q4
inline constexpr int32_t kGroupInt8 = 64;  // int8
static inline constexpr int32_t num_groups(int32_t k, int32_t group) { return k / group + (k % group != 0); }
static inline constexpr int64_t q8_group_bytes() { return kGroup * kPanel + 2 * kPanel; }
static inline constexpr int64_t q4_group_bytes() { return kGroup * kPanel / 2 + 2 * kPanel; }
static inline constexpr int64_t int8_group_bytes() { return kGroupInt8 * kPanel; }
static inline constexpr int64_t q8_panel_bytes(int32_t k) { return num_groups(k, kGroup) * q8_group_bytes(); }
static inline constexpr int64_t q4_panel_bytes(int32_t k) {
  return num_groups(k, kGroup) * (2 * kPanel + q4_group_bytes());
}
static inline constexpr int64_t int8_panel_bytes(int32_t k) {
  return num_groups(k, kGroupInt8) * int8_group_bytes() + 4 * kPanel;
}

enum class Epilogue : uint8_t {
  kStore,     // y = acc + bias
  kGeluTanh,  // y = gelu_tanh(acc + bias), gelu_tanh(u) = 0.5 u (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3)))
  kAdd,       // y = y + (acc + bias); y must be f32
};

// y[m, n] = epilogue(sum over k of a[m, k] * B[k, n], in increasing k (f32) or in pairs of k (bf16), from zero)
struct GemmArgs {
  const void* a;      // [M, K] of the table slot's dtype, row stride a_stride elements; bf16: element K of a row is
                      // readable and zero when K is odd
  const void* b;      // packed, as above, of the same dtype
  const float* bias;  // [N] or null
  void* y;            // [M, N] of y_dtype, row stride y_stride elements
  int64_t a_stride, y_stride;
  int32_t m0, m1;          // rows [m0, m1)
  int32_t panel0, panel1;  // panels [panel0, panel1)
  int32_t n, k;            // N and K of the whole matrices, at least 1
  DType y_dtype;
  Epilogue epilogue;
};

// Products with quantised matrices. `gemm.b` is packed as above, `gemm.a` and the sum of an element are
//   q8    a: bf16; for each group in increasing order  sum = scale T + sum, T the dot product over the group: even and
//         odd inputs each from zero, then both together
//   q4    a: bf16; first, from zero, for each group  sum = offset (sum of a over the group) + sum,  then as q8, with v
//   - 8 int8  a: int8 [M, Kp], Kp = K rounded up to a multiple of kGroupInt8, with zeros beyond K; for each group
//         sum = a_scale T + sum, T an exact integer; at last sum * scale of the column
// each step a fused multiply-add; then bias and epilogue as in a product of floats.
struct QuantGemmArgs {
  GemmArgs gemm;
  const float* a_groups;      // [M, G] q4: sum of a over each group; int8: a_scale of each group; q8: null
  const int32_t* a_integers;  // [M, G] int8: sum of the integers of each group; else null
};

// y[t, g] = sum of x[t, k] over the inputs of group g
struct GroupSumsArgs {
  const uint16_t* x;  // bf16 [T, K], row stride x_stride; element K of a row is readable and zero when K is odd
  float* y;           // [T, G]
  int64_t x_stride;
  int32_t t0, t1, k;
};

// For each row and group of kGroupInt8, in float32: most = the largest |x|, scale = most / 127, y = x (127 / most) to
// the nearest integer, ties to even; sum = sum of the y. All levels give the same bytes. A group whose `most` is below
// 2^-100 has zeros for y and scale; one with a NaN or an Inf has zeros for y and NaN for scale.
struct QuantizeArgs {
  const uint16_t* x;  // bf16 [T, K], row stride x_stride; element K of a row is readable and zero when K is odd
  int8_t* y;          // [T, Kp], as QuantGemmArgs has it
  float* scale;       // [T, G]
  int32_t* sum;       // [T, G]
  int64_t x_stride;
  int32_t t0, t1, k;
};

// May be in place: y == x with equal strides and y_dtype kF32; so may RmsNormArgs.
// y[t, :] = (x[t, :] - mean) / sqrt(variance + eps) * w + b, statistics over the E values of the row, biased variance
struct LayerNormArgs {
  const float* x;  // [T, E], row stride x_stride
  const float* w;  // [E]
  const float* b;  // [E]
  void* y;         // [T, E] of y_dtype, row stride y_stride
  int64_t x_stride, y_stride;
  int32_t t0, t1, e;
  float eps;
  DType y_dtype;
};

// y[t, :] = x[t, :] / sqrt(mean(x[t, :]^2) + eps) * w
struct RmsNormArgs {
  const float* x;  // [T, E], row stride x_stride
  const float* w;  // [E]
  void* y;         // [T, E] of y_dtype, row stride y_stride
  int64_t x_stride, y_stride;
  int32_t t0, t1, e;
  float eps;
  DType y_dtype;
};

// In place, rotate-half: for j < D/2:  x[j] = x[j] c_j - x[j+D/2] s_j,  x[j+D/2] = x[j+D/2] c_j + x[j] s_j
struct RopeArgs {
  float* x;          // [T, H, D]: row stride x_stride, heads contiguous
  const float* cos;  // [positions, D/2]
  const float* sin;
  const int32_t* pos;  // [T] row of cos and sin
  int64_t x_stride;
  int32_t t0, t1, heads, d;
};

// y[t, i] = silu(x[t, i]) * x[t, I + i],  silu(u) = u / (1 + exp(-u))
struct SwigluArgs {
  const float* x;  // [T, 2 I], row stride x_stride: gate, then up
  void* y;         // [T, I] of y_dtype, row stride y_stride
  int64_t x_stride, y_stride;
  int32_t t0, t1, i;
  DType y_dtype;
};

// y[t, :] = x[t, :] rounded to bf16; element n of a row is set to zero when n is odd
struct ToBf16Args {
  const float* x;  // [T, N], row stride x_stride
  uint16_t* y;     // row stride y_stride >= n rounded up to even
  int64_t x_stride, y_stride;
  int32_t t0, t1, n;
};

// Keys and values lie in blocks of kBlock tokens, one K and one V block for each (block, layer, kv head):
//   f32:   K [D][kBlock]              V [kBlock][Dp]
//   bf16:  K [Dp/2][kBlock][2]        V [kBlock/2][Dp][2]     (pairs along the summed index, as in packed matrices)
//   q8:    int8 in the order of bf16, then float scale [kBlock], one for each token: x = scale v, |v| <= 127
// Dp = D rounded up to a multiple of 16. Elements beyond D are zero: kv_store writes them, so a fresh block needs no
// preparation, and what an earlier owner left in it can reach nobody (see AttentionArgs).
// q8 of a row x of D floats: most = the largest |x|, scale = most / 127, v = x (127 / most) to the nearest integer,
// ties to even; all levels give the same bytes. A row whose `most` is below 2^-100 has zeros for v and scale; one with
// a NaN or an Inf has zeros for v and NaN for scale.
inline constexpr int32_t kBlock = 64;
inline constexpr int32_t kMaxHead = 256;                                               // the largest D
static inline constexpr int32_t padded_head(int32_t d) { return (d + 15) / 16 * 16; }  // static: see the top
static inline constexpr int64_t q8_block_bytes(int32_t d) { return int64_t{kBlock} * (padded_head(d) + 4); }

// Writes the K and V rows of some tokens and one kv head into the places [slot0, slot1) of a block pair of `dtype`, and
// zeros beyond D. Different slots of one block may be written by different threads at the same time.
struct KvStoreArgs {
  const void* k;  // [slot1 - slot0, D] of x_dtype, row stride k_stride
  const void* v;  // [slot1 - slot0, D] of x_dtype, row stride v_stride
  void* k_block;
  void* v_block;
  int64_t k_stride, v_stride;
  int32_t slot0, slot1, d;  // 0 <= slot0 <= slot1 <= kBlock; d: 1 .. kMaxHead
  KvType dtype;
  DType x_dtype = DType::kF32;
};

// y[r, :] = sum over keys j < limit[r] of softmax_j(scale * q[r, :] . k[j, :]) * v[j, :]
// Softmax online over blocks of kBlock keys in increasing order, in f32: for each block the maximum, then the sums; a
// block in which a row sees no key leaves that row as it is. bf16: q and the probabilities are rounded to bf16, sums
// are f32. q8 is bf16 with the scales outside of the products: q . v of a key times its scale is the score, and a
// probability is multiplied with the scale of its value before it is rounded. Keys at and beyond limit[r] do not
// influence row r, whatever bytes lie in their slots (NaN too). Rows r in [r0, r1) are pairs (token r / group, head r %
// group of the group of query heads that share this kv head):
//   q row r at q + (r / group) * q_stride + (r % group) * d,   y row likewise with y_stride.
struct AttentionArgs {
  const void* q;                // [.., D] of q_dtype
  void* y;                      // of y_dtype
  const void* const* k_blocks;  // [ceil(max limit / kBlock)] for this layer and kv head
  const void* const* v_blocks;
  const int32_t* limit;        // [tokens] number of keys that token r / group sees, at least 1
  int64_t q_stride, y_stride;  // elements from token to token
  int32_t r0, r1, group, d;    // d: 1 .. kMaxHead
  float scale;
  DType y_dtype;
  DType q_dtype = DType::kF32;
};

struct QuantKernels {
  void (*gemm_q8)(const QuantGemmArgs&) noexcept;
  void (*gemm_q4)(const QuantGemmArgs&) noexcept;
  void (*gemm_int8)(const QuantGemmArgs&) noexcept;
  void (*group_sums)(const GroupSumsArgs&) noexcept;
  void (*quantize)(const QuantizeArgs&) noexcept;
};

struct Table {
  const char* name;  // "ref", "avx2", "avx512", "amx"
  void (*gemm_f32)(const GemmArgs&) noexcept;
  void (*gemm_bf16)(const GemmArgs&) noexcept;
  void (*layer_norm)(const LayerNormArgs&) noexcept;
  void (*rms_norm)(const RmsNormArgs&) noexcept;
  void (*rope)(const RopeArgs&) noexcept;
  void (*swiglu)(const SwigluArgs&) noexcept;
  void (*to_bf16)(const ToBf16Args&) noexcept;
  void (*kv_store)(const KvStoreArgs&) noexcept;
  void (*attention_f32)(const AttentionArgs&) noexcept;   // K and V blocks f32
  void (*attention_bf16)(const AttentionArgs&) noexcept;  // K and V blocks bf16
  void (*attention_q8)(const AttentionArgs&) noexcept;    // K and V blocks q8
  QuantKernels quant = {};
};

// The best table of this CPU, or the one that the environment variable IDEFICS_KERNELS names (ref, avx2, avx512,
// amx).
// Throws Error{kUsage} when that name is unknown or the CPU lacks it: a forced level never falls back silently.
const Table& choose_table();
// The table of a level by name, or null when it is unknown, not built, or this CPU lacks it.
const Table* find_table(const char* name);

}  // namespace idefics::kernels
