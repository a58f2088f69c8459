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

// With few rows b comes from memory. Fetching 2 KiB ahead, across the ends of panels, took a GEMV on weights of 256 MiB
// from 11.4 to 16.0 GB/s on a Xeon that reads 17.4 GB/s (bf16; 1, 4 and 8 KiB gave 14.5). With more rows it gains
// nothing.
constexpr int kFewRows = 2;
constexpr int64_t kAhead = 2048;

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
    for (int c = 0; c < kCols; ++c) {
      if (kRows <= kFewRows) _mm_prefetch(b + kAhead + c * 64, _MM_HINT_T0);
      column[c] = _mm512_loadu_ps(b + c * 64);
    }
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

void kv_store_f32(const KvStoreArgs& a) {
  float* k = static_cast<float*>(a.k_block) + a.slot;
  float* v = static_cast<float*>(a.v_block) + int64_t{a.slot} * padded_head(a.d);
  for (int32_t i = 0; i < a.d; ++i) k[i * kBlock] = a.k[i];
  for (int32_t i = 0; i < a.d; i += Avx512::kLanes) Avx512::store(v + i, Avx512::load_first(a.v + i, a.d - i));
}

// The other half of each word of v belongs to another token, which another thread may be writing: hence 16-bit stores
// under a mask, and no reading.
void kv_store_bf16(const KvStoreArgs& a) {
  uint32_t* k = static_cast<uint32_t*>(a.k_block) + a.slot;
  uint16_t* v = static_cast<uint16_t*>(a.v_block) + int64_t{a.slot / 2} * padded_head(a.d) * 2;
  const __m512i shift = _mm512_set1_epi32(a.slot % 2 * 16);
  const __mmask32 halves = a.slot % 2 == 0 ? 0x55555555u : 0xaaaaaaaau;
  for (int32_t i = 0; i < a.d; i += Avx512::kLanes) {
    alignas(32) uint32_t pairs[Avx512::kLanes / 2];
    const __m256i keys = Avx512::to_bf16(Avx512::load_first(a.k + i, a.d - i));
    _mm256_store_si256(reinterpret_cast<__m256i*>(pairs), keys);
    for (int32_t j = 0; j < Avx512::kLanes / 2; ++j) k[(i / 2 + j) * kBlock] = pairs[j];
    const __m512i values = _mm512_cvtepu16_epi32(Avx512::to_bf16(Avx512::load_first(a.v + i, a.d - i)));
    _mm512_mask_storeu_epi16(v + 2 * i, halves, _mm512_sllv_epi32(values, shift));
  }
}

void kv_store(const KvStoreArgs& a) noexcept { a.dtype == DType::kF32 ? kv_store_f32(a) : kv_store_bf16(a); }

}  // namespace

const Table kAvx512Table = {
    "avx512",       gemm<F32>,       gemm<Bf16>, layer_norm<Avx512>,     rms_norm<Avx512>,        rope<Avx512>,
    swiglu<Avx512>, to_bf16<Avx512>, kv_store,   attention<Avx512, F32>, attention<Avx512, Bf16>,
};

}  // namespace idefics::kernels
