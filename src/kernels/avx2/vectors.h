// Vector operations of AVX2 for the templates in kernels/simd.h.
#pragma once

#include <immintrin.h>

#include "kernels/table.h"

namespace idefics::kernels {
namespace {

// The elements with even and odd index of eight pairs of bf16.
inline __m256 even_of(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
inline __m256 odd_of(__m256i pairs) {
  // Two shifts rather than a mask: in the micro kernel the mask would be the seventeenth register.
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_srli_epi32(pairs, 16), 16));
}

inline __m256i load_words(const char* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

struct Avx2Vectors {
  using Vector = __m256;
  static constexpr int32_t kLanes = 8;

  static __m256i first(int32_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }

  // Rounds to nearest even, in place: the upper half of each word is the bf16. NaN becomes a quiet NaN.
  static Vector round_to_bf16(Vector x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const Vector nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    return odd_of(_mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), nan)));
  }
  static __m128i to_bf16(Vector x) {
    const __m256i upper = _mm256_srli_epi32(_mm256_castps_si256(round_to_bf16(x)), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
  }

  static Vector zero() { return _mm256_setzero_ps(); }
  static Vector set(float x) { return _mm256_set1_ps(x); }
  static Vector load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Vector x) { _mm256_storeu_ps(p, x); }
  static Vector load_first(const float* p, int32_t count) {
    return count >= kLanes ? load(p) : _mm256_maskload_ps(p, first(count));
  }
  static Vector load_first(const void* x, DType dtype, int64_t at, int32_t count) {
    if (dtype == DType::kF32) return load_first(static_cast<const float*>(x) + at, count);
    const uint16_t* from = static_cast<const uint16_t*>(x) + at;
    alignas(16) uint16_t values[kLanes] = {};
    for (int32_t i = 0; i < count && i < kLanes; ++i) values[i] = from[i];
    const __m128i* halves = reinterpret_cast<const __m128i*>(count >= kLanes ? from : values);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(halves)), 16));
  }
  static void store_first(void* y, DType dtype, int64_t at, int32_t count, Vector x) {
    if (dtype == DType::kF32) {
      float* to = static_cast<float*>(y) + at;
      count >= kLanes ? store(to, x) : _mm256_maskstore_ps(to, first(count), x);
      return;
    }
    uint16_t* to = static_cast<uint16_t*>(y) + at;
    if (count >= kLanes) return _mm_storeu_si128(reinterpret_cast<__m128i*>(to), to_bf16(x));
    alignas(16) uint16_t values[kLanes];
    _mm_store_si128(reinterpret_cast<__m128i*>(values), to_bf16(x));
    for (int32_t i = 0; i < count; ++i) to[i] = values[i];
  }
  static Vector keep_first(Vector x, int32_t count, Vector other) {
    return _mm256_blendv_ps(other, x, _mm256_castsi256_ps(first(count)));
  }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector sub(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
  static Vector div(Vector a, Vector b) { return _mm256_div_ps(a, b); }
  static Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
  static Vector sqrt(Vector x) { return _mm256_sqrt_ps(x); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
  static Vector fnma(Vector a, Vector b, Vector c) { return _mm256_fnmadd_ps(a, b, c); }
  static float sum(Vector x) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static float highest(Vector x) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }

  // 2^floor(x) * p(x - floor(x)), p as at the AVX-512 level; floor(x) is added to the exponent of p. From 128 on this
  // gives infinity: the exponent 255 with the mantissa of p(0) = 1. minps hands on its second operand when one is NaN.
  static Vector exp2(Vector x) {
    const Vector low = _mm256_min_ps(set(128.0f), x);
    const Vector whole = _mm256_floor_ps(low);
    const Vector f = sub(low, whole);
    Vector p = set(0.00021612919f);
    p = fma(p, f, set(0.0012467846f));
    p = fma(p, f, set(0.009675452f));
    p = fma(p, f, set(0.05548528f));
    p = fma(p, f, set(0.24022931f));
    p = fma(p, f, set(0.69314706f));
    p = fma(p, f, set(1.0f));
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(whole), 23);
    const Vector y = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
    return _mm256_and_ps(y, _mm256_cmp_ps(x, set(-126.0f), _CMP_NLT_UQ));
  }
};

}  // namespace
}  // namespace idefics::kernels
