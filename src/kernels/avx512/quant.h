// What the levels avx512 and amx have in common for quantised matrices: the vector operations that kernels/simd_quant.h
// asks for, products of int8 by vpdpbusd, and the quantisation of activations.
#pragma once

#include <immintrin.h>

#include "kernels/avx512/vectors.h"
#include "kernels/simd_quant.h"

namespace idefics::kernels {
namespace {

struct Avx512Quant : Avx512Vectors {
  static constexpr int kGroupRows = 6;  // with 4 vectors: 24 sums, 4 vectors of weights and one input in 32 registers
  static constexpr int kGroupCols = 4;
  using Words = __m512i;

  static Vector even_of(Vector pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs), 16)); }
  static Vector odd_of(Vector pairs) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_castps_si512(pairs), _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u))));
  }
  static Vector load_bf16(const uint16_t* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static Vector load_int8(const int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static Words load_words(const char* p) { return _mm512_loadu_si512(p); }
  // A permutation looks at the lowest 4 bits of its indices alone.
  static Vector nibble(Words words, int j) {
    const __m512 table = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    return _mm512_permutexvar_ps(_mm512_srli_epi32(words, static_cast<unsigned>(4 * j)), table);
  }
};

// ---- int8
//
// vpdpbusd wants one side without sign: 128 is added to the weights, by flipping their highest bit, and 128 times the
// sum of the row's integers is taken away before the first product.

constexpr int32_t kQuads = kGroupInt8 / 4;
constexpr int32_t kInt8Rows = 6;

inline __m512i unsigned_weights(const char* p) {
  return _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(static_cast<char>(0x80)));
}
inline __m512i quad(const char* p) {
  int32_t bits;
  __builtin_memcpy(&bits, p, sizeof(bits));
  return _mm512_set1_epi32(bits);
}

// In assembly: with the intrinsic GCC 12 copies every sum before and behind each product.
inline __m512i dot_bytes(__m512i sum, __m512i without_sign, __m512i with_sign) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(without_sign), "v"(with_sign));
  return sum;
}

// What a group adds to the sums [kRows][kPanel]. `a`: the group in the first of the rows, a_stride bytes apart.
// `weights`: without sign unless kFlip. scale, integers: of this group, `groups` apart from row to row.
template <int kRows, bool kFlip>
void multiply_int8(const char* a, int64_t a_stride, const char* weights, const float* scale, const int32_t* integers,
                   int64_t groups, float* sums) {
  __m512i dot[kRows][4];
#pragma GCC unroll 8  // or GCC makes a loop of vectors of it, and keeps the sums on the stack
  for (int r = 0; r < kRows; ++r) {
    const __m512i start = _mm512_set1_epi32(-128 * integers[r * groups]);
    for (int c = 0; c < 4; ++c) dot[r][c] = start;
  }
  const char* const end = a + kGroupInt8;
  do {
    __m512i w[4];
    for (int c = 0; c < 4; ++c) {
      w[c] = kFlip ? unsigned_weights(weights + c * 64) : _mm512_loadu_si512(weights + c * 64);
    }
    for (int r = 0; r < kRows; ++r) {
      const __m512i x = quad(a + r * a_stride);
      for (int c = 0; c < 4; ++c) dot[r][c] = dot_bytes(dot[r][c], w[c], x);
    }
    a += 4;
    weights += kPanel * 4;
  } while (a != end);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const __m512 factor = _mm512_set1_ps(scale[r * groups]);
    for (int c = 0; c < 4; ++c) {
      float* sum = sums + r * kPanel + c * 16;
      _mm512_storeu_ps(sum, _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][c]), factor, _mm512_loadu_ps(sum)));
    }
  }
}

using MultiplyInt8 = void (*)(const char*, int64_t, const char*, const float*, const int32_t*, int64_t, float*);
constexpr MultiplyInt8 kMultiplyInt8[kInt8Rows] = {multiply_int8<1, false>, multiply_int8<2, false>,
                                                   multiply_int8<3, false>, multiply_int8<4, false>,
                                                   multiply_int8<5, false>, multiply_int8<6, false>};

// Adds to the sums [rows][kPanel], at most kSharedRows of them.
void add_rows_int8(const QuantGemmArgs& q, int32_t panel, int32_t m, int32_t rows, float* sums) {
  const GemmArgs& a = q.gemm;
  const int32_t groups = num_groups(a.k, kGroupInt8);
  const char* row = static_cast<const char*>(a.a) + m * a.a_stride;
  const char* weights = static_cast<const char*>(a.b) + panel * int8_panel_bytes(a.k);
  alignas(64) char flipped[kGroupInt8 * kPanel];
  for (int32_t g = 0; g < groups; ++g, weights += kGroupInt8 * kPanel) {
    const float* scale = q.a_groups + int64_t{m} * groups + g;
    const int32_t* integers = q.a_integers + int64_t{m} * groups + g;
    if (rows == 1) {
      for (int32_t i = 0; i < kGroupInt8 * kPanel; i += 64) _mm_prefetch(weights + kAheadOfRow + i, _MM_HINT_T0);
      multiply_int8<1, true>(row + g * kGroupInt8, 0, weights, scale, integers, groups, sums);
      continue;
    }
    for (int32_t i = 0; i < kGroupInt8 * kPanel; i += 64) {
      _mm512_store_si512(flipped + i, unsigned_weights(weights + i));
    }
    for (int32_t r = 0; r < rows;) {
      const int32_t some = next_rows(rows - r, kInt8Rows);
      kMultiplyInt8[some - 1](row + r * a.a_stride + g * kGroupInt8, a.a_stride, flipped, scale + r * groups,
                              integers + r * groups, groups, sums + r * kPanel);
      r += some;
    }
  }
}

// The scales of the columns, bias and epilogue.
void finish_int8(const GemmArgs& a, int32_t m, int32_t rows, int32_t panel, float* sums) {
  const char* end = static_cast<const char*>(a.b) + (panel + 1) * int8_panel_bytes(a.k);
  const float* scale = reinterpret_cast<const float*>(end) - kPanel;
  for (int32_t c = 0; c < kPanel; c += 16) {
    const __m512 factor = _mm512_loadu_ps(scale + c);
    for (int32_t r = 0; r < rows; ++r) {
      float* sum = sums + r * kPanel + c;
      _mm512_storeu_ps(sum, _mm512_mul_ps(_mm512_loadu_ps(sum), factor));
    }
  }
  finish<Avx512Vectors>(a, m, rows, panel, sums);
}

void gemm_int8(const QuantGemmArgs& args) noexcept {
  const QuantGemmArgs q = args;
  const GemmArgs& a = q.gemm;
  alignas(64) float sums[kSharedRows * kPanel];
  for (int32_t panel = a.panel0; panel < a.panel1; ++panel) {
    for (int32_t m = a.m0; m < a.m1;) {
      const int32_t rows = next_rows(a.m1 - m, kSharedRows);
      for (int32_t i = 0; i < rows * kPanel; i += 16) _mm512_store_ps(sums + i, _mm512_setzero_ps());
      add_rows_int8(q, panel, m, rows, sums);
      finish_int8(a, m, rows, panel, sums);
      m += rows;
    }
  }
}

void quantize(const QuantizeArgs& args) noexcept {
  const QuantizeArgs a = args;
  const int32_t groups = num_groups(a.k, kGroupInt8);
  const __m512 size = _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff));
  for (int32_t t = a.t0; t < a.t1; ++t) {
    for (int32_t g = 0; g < groups; ++g) {
      const float* x = reinterpret_cast<const float*>(a.x + t * a.x_stride + g * kGroupInt8);
      const int64_t at = int64_t{t} * groups + g;
      const int32_t words = words_of<Bf16>(a.k - g * kGroupInt8);
      __m512 part[4];
      __m512i most_bits = _mm512_setzero_si512();  // sizes have the order of their bits, NaN above all
      for (int32_t i = 0; i < 2; ++i) {
        const __m512 pairs = Avx512Vectors::load_first(x + 16 * i, words - 16 * i);
        part[2 * i] = Avx512Quant::even_of(pairs);
        part[2 * i + 1] = Avx512Quant::odd_of(pairs);
        for (int32_t j = 2 * i; j < 2 * i + 2; ++j) {
          most_bits = _mm512_max_epi32(most_bits, _mm512_castps_si512(_mm512_and_ps(part[j], size)));
        }
      }
      const int32_t bits = _mm512_reduce_max_epi32(most_bits);
      float most;
      __builtin_memcpy(&most, &bits, sizeof(most));
      const bool finite = bits < 0x7f800000, good = finite && most >= 0x1p-100f;
      const __m512 inverse = _mm512_set1_ps(127 / most);
      const __mmask16 some = good ? 0xffff : 0;
      __m512i sum = _mm512_setzero_si512();
      for (int32_t i = 0; i < 2; ++i) {
        const __m512i even = _mm512_maskz_cvtps_epi32(some, _mm512_mul_ps(part[2 * i], inverse));
        const __m512i odd = _mm512_maskz_cvtps_epi32(some, _mm512_mul_ps(part[2 * i + 1], inverse));
        sum = _mm512_add_epi32(sum, _mm512_add_epi32(even, odd));
        const __m512i low = _mm512_and_si512(even, _mm512_set1_epi32(0xff));
        const __m512i both = _mm512_or_si512(low, _mm512_slli_epi32(odd, 8));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(a.y + at * kGroupInt8) + i, _mm512_cvtepi32_epi16(both));
      }
      a.sum[at] = _mm512_reduce_add_epi32(sum);
      a.scale[at] = good ? most / 127 : finite ? 0.0f : __builtin_nanf("");
    }
  }
}

}  // namespace
}  // namespace idefics::kernels
