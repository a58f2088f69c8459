// Vector operations of AVX-512 for the templates in kernels/simd.h: what the levels avx512 and amx have in common.
#pragma once

#include <immintrin.h>

#include "kernels/table.h"

namespace idefics::kernels {
namespace {

// Loads a line of a matrix that streams in from memory and is read once, and asks for the line kAhead bytes further on.
// In assembly so that each load follows its own fetch: gcc puts the fetches of four lines in front of the loads, and
// then one core of a Xeon reads 16 GB/s instead of 21. 3, 6 and 8 KiB are as good as 4; 2 are not.
inline __m512i load_streamed(const char* p) {
  constexpr int kAhead = 4096;
  __m512i x;
  asm volatile(
      "prefetcht0 %c2(%1)\n\t"
      "vmovdqu64 (%1), %0"
      : "=v"(x)
      : "r"(p), "i"(kAhead), "m"(*reinterpret_cast<const char(*)[64]>(p)));
  return x;
}

// The 8-bit integers of `count` pairs lie in words of memory as two bytes; each becomes a float, whose upper half is
// all there is of it.
inline void widen_q8(const int8_t* from, int32_t count, uint16_t* to) {
  for (int32_t i = 0; i < count; i += 32) {
    const __m512i pairs = _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i)));
    const __m512i even = _mm512_srai_epi32(_mm512_slli_epi32(pairs, 24), 24), odd = _mm512_srai_epi32(pairs, 8);
    const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(_mm512_cvtepi32_ps(even)), 16);
    const __m512i high = _mm512_castps_si512(_mm512_cvtepi32_ps(odd));
    _mm512_storeu_si512(to + i, _mm512_mask_blend_epi16(0xaaaaaaaau, low, high));
  }
}

struct Avx512Vectors {
  using Vector = __m512;
  static constexpr int32_t kLanes = 16;

  static __mmask16 first(int32_t count) {
    if (count >= kLanes) return 0xffff;
    return static_cast<__mmask16>(count <= 0 ? 0 : (1u << count) - 1u);
  }
  static __m256i to_bf16(Vector x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)); }

  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector set(float x) { return _mm512_set1_ps(x); }
  static Vector load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Vector x) { _mm512_storeu_ps(p, x); }
  static Vector load_first(const float* p, int32_t count) { return _mm512_maskz_loadu_ps(first(count), p); }
  static Vector load_first(const void* x, DType dtype, int64_t at, int32_t count) {
    if (dtype == DType::kF32) return load_first(static_cast<const float*>(x) + at, count);
    const __m256i halves = _mm256_maskz_loadu_epi16(first(count), static_cast<const uint16_t*>(x) + at);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
  static void store_first(void* y, DType dtype, int64_t at, int32_t count, Vector x) {
    if (dtype == DType::kF32) {
      _mm512_mask_storeu_ps(static_cast<float*>(y) + at, first(count), x);
    } else {
      _mm256_mask_storeu_epi16(static_cast<uint16_t*>(y) + at, first(count), to_bf16(x));
    }
  }
  static Vector keep_first(Vector x, int32_t count, Vector other) { return _mm512_mask_mov_ps(other, first(count), x); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector sub(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
  static Vector div(Vector a, Vector b) { return _mm512_div_ps(a, b); }
  static Vector max(Vector a, Vector b) { return _mm512_max_ps(a, b); }
  static Vector sqrt(Vector x) { return _mm512_sqrt_ps(x); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  static Vector fnma(Vector a, Vector b, Vector c) { return _mm512_fnmadd_ps(a, b, c); }
  static float sum(Vector x) { return _mm512_reduce_add_ps(x); }
  static float highest(Vector x) { return _mm512_reduce_max_ps(x); }

  // 2^floor(x) * p(x - floor(x)): p is a minimax polynomial on [0, 1) with p(0) = 1 exactly, of relative error 8e-8
  // (1.4e-7 with the roundings). A subnormal result would trap into microcode, so there are none.
  static Vector exp2(Vector x) {
    const Vector f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    Vector p = set(0.0018671302f);
    p = fma(p, f, set(0.00901703f));
    p = fma(p, f, set(0.055799913f));
    p = fma(p, f, set(0.24016444f));
    p = fma(p, f, set(0.6931513f));
    p = fma(p, f, set(1.0f));
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, set(-126.0f), _CMP_NLT_UQ), p, x);
  }
};

}  // namespace
}  // namespace idefics::kernels
