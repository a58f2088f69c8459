// The AVX-512 level. bf16 products are summed by vdpbf16ps, which takes the pairs of packed matrices as they lie; so
// f32 and bf16 differ in one instruction, and everything that multiplies looks at memory as rows of 32-bit words.
#include <immintrin.h>

#include "kernels/avx512/vectors.h"
#include "kernels/levels.h"
#include "kernels/simd.h"
#include "kernels/simd_attention.h"

namespace idefics::kernels {
namespace {

template <typename Type>
inline __m512 dot(__m512 sum, __m512 a, __m512 b) {
  if constexpr (Type::kPerWord == 1) {
    return _mm512_fmadd_ps(a, b, sum);
  } else {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
}

inline __m512 broadcast_word(const char* word) {
  int32_t bits;
  __builtin_memcpy(&bits, word, sizeof(bits));
  return _mm512_castsi512_ps(_mm512_set1_epi32(bits));
}

// ---- the micro kernel

enum class Start : uint8_t { kZero, kOut };

// 6 rows x 4 vectors: 24 sums, 4 vectors of b and 1 of a fill 29 of the 32 registers.
constexpr int32_t kMostRows = 6;
constexpr int32_t kMostCols = 4;

// With few rows b comes from memory. With many it comes from L2, and fetching ahead loses nothing.
template <typename Type, Start kStart, int kRows, int kCols>
void multiply(const Product& product) {
  const Product p = product;
  __m512 sum[kRows][kCols];
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kCols; ++c) {
      sum[r][c] = kStart == Start::kZero ? _mm512_setzero_ps() : _mm512_loadu_ps(p.out + r * p.out_stride + c * 16);
    }
  }
  const char* a = reinterpret_cast<const char*>(p.a);
  const char* b = p.b;
  const char* const end = b + p.words * p.b_stride;
  do {  // not `while`: for no words at all GCC would keep a second copy of the sums, on the stack
    __m512 column[kCols];
    for (int c = 0; c < kCols; ++c) column[c] = _mm512_castsi512_ps(load_streamed(b + c * 64));
    for (int r = 0; r < kRows; ++r) {
      const __m512 x = broadcast_word(a + r * p.a_stride);
      for (int c = 0; c < kCols; ++c) sum[r][c] = dot<Type>(sum[r][c], x, column[c]);
    }
    a += kWord;
    b += p.b_stride;
  } while (b != end);
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kCols; ++c) _mm512_storeu_ps(p.out + r * p.out_stride + c * 16, sum[r][c]);
  }
}

using Multiply = void (*)(const Product&);

template <typename Type, Start kStart, int kCols>
constexpr Multiply kMultiply[kMostRows] = {
    multiply<Type, kStart, 1, kCols>, multiply<Type, kStart, 2, kCols>, multiply<Type, kStart, 3, kCols>,
    multiply<Type, kStart, 4, kCols>, multiply<Type, kStart, 5, kCols>, multiply<Type, kStart, 6, kCols>,
};

template <typename Type, Start kStart>
inline void multiply(int32_t rows, int32_t cols, Product product) {
  for (; cols >= 64; cols -= 64) {
    kMultiply<Type, kStart, 4>[rows - 1](product);
    product.b += 64 * kWord;
    product.out += 64;
  }
  switch (cols / 16) {
    case 3: return kMultiply<Type, kStart, 3>[rows - 1](product);
    case 2: return kMultiply<Type, kStart, 2>[rows - 1](product);
    case 1: return kMultiply<Type, kStart, 1>[rows - 1](product);
  }
}

// ---- what the templates ask for

struct Avx512 : Avx512Vectors {
  static constexpr int32_t kMaxRows = kMostRows;
  template <typename Type>
  static constexpr int32_t kPerFloat = Type::kPerWord;

  template <typename Type>
  static void store_operand(float* p, Vector x) {
    if constexpr (Type::kPerWord == 1) {
      _mm512_storeu_ps(p, x);
    } else {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(x));
    }
  }
  template <typename Type>
  static void multiply_zero(int32_t rows, int32_t cols, const Product& product) {
    multiply<Type, Start::kZero>(rows, cols, product);
  }
  template <typename Type>
  static void multiply_add(int32_t rows, int32_t cols, const Product& product) {
    multiply<Type, Start::kOut>(rows, cols, product);
  }
  static void widen(const int8_t* from, int32_t count, uint16_t* to) { widen_q8(from, count, to); }
  static Vector add_even(Vector sum, const float* p, const char* pairs) {
    const __m512i even = _mm512_and_si512(_mm512_loadu_si512(pairs), _mm512_set1_epi32(0xffff));
    return dot<Bf16>(sum, broadcast_word(reinterpret_cast<const char*>(p)), _mm512_castsi512_ps(even));
  }
};

// ---- slots that are not the same on every width

template <typename Type>
void gemm(const GemmArgs& args) noexcept {
  const GemmArgs a = args;
  const int64_t a_stride = a.a_stride * (kWord / Type::kPerWord);
  const int32_t words = words_of<Type>(a.k);
  alignas(64) float sums[kMostRows * kPanel];
  for (int32_t panel = a.panel0; panel < a.panel1; ++panel) {
    const char* b = static_cast<const char*>(a.b) + int64_t{panel} * words * (kPanel * kWord);
    for (int32_t m = a.m0; m < a.m1;) {
      const int32_t rows = next_rows(a.m1 - m, kMostRows);
      const char* row = static_cast<const char*>(a.a) + m * a_stride;
      kMultiply<Type, Start::kZero, kMostCols>[rows - 1](
          {reinterpret_cast<const float*>(row), b, sums, a_stride, kPanel * kWord, kPanel, words});
      finish<Avx512>(a, m, rows, panel, sums);
      m += rows;
    }
  }
}

void store_f32(const KvStoreArgs& a, int32_t slot, const float* key, const float* value) {
  float* k = static_cast<float*>(a.k_block) + slot;
  float* v = static_cast<float*>(a.v_block) + int64_t{slot} * padded_head(a.d);
  for (int32_t i = 0; i < a.d; ++i) k[i * kBlock] = key[i];
  for (int32_t i = 0; i < a.d; i += Avx512::kLanes) Avx512::store(v + i, Avx512::load_first(value + i, a.d - i));
}

// The other half of each word of v belongs to another token, which another thread may be writing: hence 16-bit stores
// under a mask, and no reading.
void store_bf16(const KvStoreArgs& a, int32_t slot, const float* key, const float* value) {
  uint32_t* k = static_cast<uint32_t*>(a.k_block) + slot;
  uint16_t* v = static_cast<uint16_t*>(a.v_block) + int64_t{slot / 2} * padded_head(a.d) * 2;
  const __m512i shift = _mm512_set1_epi32(slot % 2 * 16);
  const __mmask32 halves = slot % 2 == 0 ? 0x55555555u : 0xaaaaaaaau;
  for (int32_t i = 0; i < a.d; i += Avx512::kLanes) {
    alignas(32) uint32_t pairs[Avx512::kLanes / 2];
    const __m256i keys = Avx512::to_bf16(Avx512::load_first(key + i, a.d - i));
    _mm256_store_si256(reinterpret_cast<__m256i*>(pairs), keys);
    for (int32_t j = 0; j < Avx512::kLanes / 2; ++j) k[(i / 2 + j) * kBlock] = pairs[j];
    const __m512i values = _mm512_cvtepu16_epi32(Avx512::to_bf16(Avx512::load_first(value + i, a.d - i)));
    _mm512_mask_storeu_epi16(v + 2 * i, halves, _mm512_sllv_epi32(values, shift));
  }
}

// rows[r] word c becomes rows[c] word r.
inline void transpose(__m512i* rows) {
  __m512i x[16];
  for (int i = 0; i < 16; i += 2) {
    x[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    x[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  __m512i y[16];  // y[4 i + j]: in lane n, word 4 n + j of rows 4 i .. 4 i + 3
  for (int i = 0; i < 16; i += 4) {
    y[i] = _mm512_unpacklo_epi64(x[i], x[i + 2]);
    y[i + 1] = _mm512_unpackhi_epi64(x[i], x[i + 2]);
    y[i + 2] = _mm512_unpacklo_epi64(x[i + 1], x[i + 3]);
    y[i + 3] = _mm512_unpackhi_epi64(x[i + 1], x[i + 3]);
  }
  for (int j = 0; j < 4; ++j) {
    const __m512i even0 = _mm512_shuffle_i32x4(y[j], y[4 + j], 0x88), odd0 = _mm512_shuffle_i32x4(y[j], y[4 + j], 0xdd);
    const __m512i even1 = _mm512_shuffle_i32x4(y[8 + j], y[12 + j], 0x88);
    const __m512i odd1 = _mm512_shuffle_i32x4(y[8 + j], y[12 + j], 0xdd);
    rows[j] = _mm512_shuffle_i32x4(even0, even1, 0x88);
    rows[8 + j] = _mm512_shuffle_i32x4(even0, even1, 0xdd);
    rows[4 + j] = _mm512_shuffle_i32x4(odd0, odd1, 0x88);
    rows[12 + j] = _mm512_shuffle_i32x4(odd0, odd1, 0xdd);
  }
}

// 16 elements from x[at] on, then 16 from x[next] on, as bf16; of each as many as there are, then zeros.
inline __m512i join_bf16(const void* x, DType dtype, int64_t at, int32_t count, int64_t next, int32_t next_count) {
  if (dtype == DType::kF32) {
    const __m512 low = Avx512::load_first(x, dtype, at, count), high = Avx512::load_first(x, dtype, next, next_count);
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
  }
  const auto* from = static_cast<const uint16_t*>(x);
  const __m256i low = _mm256_maskz_loadu_epi16(Avx512::first(count), from + at);
  const __m256i high = _mm256_maskz_loadu_epi16(Avx512::first(next_count), from + next);
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

// Sixteen tokens at once: one by one, each key would be D / 2 words in as many lines.
void store_16_bf16(const KvStoreArgs& a, int32_t slot) {
  constexpr int32_t kLanes = Avx512::kLanes;
  const int32_t dp = padded_head(a.d);
  uint32_t* k = static_cast<uint32_t*>(a.k_block) + slot;
  for (int32_t i = 0; i < dp; i += 2 * kLanes) {
    __m512i pairs[16];
    for (int32_t r = 0; r < 16; ++r) {
      const int64_t key = (slot - a.slot0 + r) * a.k_stride + i;
      pairs[r] = join_bf16(a.k, a.x_dtype, key, a.d - i, key + kLanes, a.d - i - kLanes);
    }
    transpose(pairs);
    for (int32_t j = 0; j < 16 && 2 * j < dp - i; ++j) _mm512_storeu_si512(k + (i / 2 + j) * kBlock, pairs[j]);
  }
  alignas(64) uint16_t order[32];
  for (uint16_t j = 0; j < 32; ++j) order[j] = static_cast<uint16_t>(j / 2 + j % 2 * 16);
  uint16_t* v = static_cast<uint16_t*>(a.v_block) + int64_t{slot} * dp;
  for (int32_t r = 0; r < 16; r += 2, v += 2 * dp) {
    const int64_t even = (slot - a.slot0 + r) * a.v_stride, odd = even + a.v_stride;
    for (int32_t i = 0; i < dp; i += kLanes) {
      const __m512i both = join_bf16(a.v, a.x_dtype, even + i, a.d - i, odd + i, a.d - i);
      _mm512_storeu_si512(v + 2 * i, _mm512_permutexvar_epi16(_mm512_load_si512(order), both));
    }
  }
}

void kv_store(const KvStoreArgs& args) noexcept {
  const KvStoreArgs a = args;
  for (int32_t slot = a.slot0; slot < a.slot1;) {
    if (a.dtype == KvType::kBf16 && slot % 2 == 0 && slot + 16 <= a.slot1) {
      store_16_bf16(a, slot);
      slot += 16;
      continue;
    }
    alignas(64) float key_room[kMaxHead], value_room[kMaxHead];
    const float* key = as_floats<Avx512>(a.k, a.x_dtype, (slot - a.slot0) * a.k_stride, a.d, key_room);
    const float* value = as_floats<Avx512>(a.v, a.x_dtype, (slot - a.slot0) * a.v_stride, a.d, value_room);
    switch (a.dtype) {
      case KvType::kF32: store_f32(a, slot, key, value); break;
      case KvType::kBf16: store_bf16(a, slot, key, value); break;
      case KvType::kQ8: store_q8<Avx512>(a, slot, key, value); break;
    }
    ++slot;
  }
}

}  // namespace

const Table kAvx512Table = {
    "avx512",       gemm<F32>,       gemm<Bf16>, layer_norm<Avx512>,     rms_norm<Avx512>,        rope<Avx512>,
    swiglu<Avx512>, to_bf16<Avx512>, kv_store,   attention<Avx512, F32>, attention<Avx512, Bf16>, attention_q8<Avx512>,
};

}  // namespace idefics::kernels
