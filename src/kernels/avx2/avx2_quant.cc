// The AVX2 level: quantised matrices. int8 is multiplied as int16: the instruction for bytes, vpmaddubsw, saturates at
// two products of 128 * 127, and to keep clear of that costs as much as widening the weights, which rows share.
#include <immintrin.h>

#include "kernels/avx2/vectors.h"
#include "kernels/levels.h"
#include "kernels/simd_quant.h"

namespace idefics::kernels {
namespace {

struct Avx2Quant : Avx2Vectors {
  static constexpr int kGroupRows = 6;  // with 2 vectors: 12 sums, 2 vectors of weights and one input in 16 registers
  static constexpr int kGroupCols = 2;
  using Words = __m256i;

  static Vector even_of(Vector pairs) { return kernels::even_of(_mm256_castps_si256(pairs)); }
  static Vector odd_of(Vector pairs) { return kernels::odd_of(_mm256_castps_si256(pairs)); }
  static Vector load_bf16(const uint16_t* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return kernels::even_of(_mm256_cvtepu16_epi32(bits));
  }
  static Vector load_int8(const int8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  static Words load_words(const char* p) { return kernels::load_words(p); }
  // As the low bits of 2^23, from which 2^23 + 8 is taken.
  static Vector nibble(Words words, int j) {
    const __m256i four = _mm256_and_si256(_mm256_srli_epi32(words, 4 * j), _mm256_set1_epi32(15));
    const __m256i whole = _mm256_or_si256(four, _mm256_set1_epi32(0x4b000000));
    return sub(_mm256_castsi256_ps(whole), set(0x1p23f + 8));
  }
};

// ---- int8

constexpr int32_t kInt16Pairs = kGroupInt8 / 2;
constexpr int32_t kInt8Rows = 4;

// A group as pairs of int16: [32][kPanel] words.
void widen_weights(const char* weights, char* pairs) {
  for (int32_t q = 0; q < kInt16Pairs / 2; ++q) {
    for (int32_t c = 0; c < kPanel * kWord; c += 32) {
      const __m256i x = load_words(weights + q * kPanel * kWord + c);
      const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8);  // inputs 0 and 2
      const __m256i odd = _mm256_srai_epi16(x, 8);                         // inputs 1 and 3
      const __m256i first = _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xaa);
      const __m256i second = _mm256_blend_epi16(_mm256_srli_epi32(even, 16), odd, 0xaa);
      char* to = pairs + 2 * q * kPanel * kWord + c;
      _mm256_store_si256(reinterpret_cast<__m256i*>(to), first);
      _mm256_store_si256(reinterpret_cast<__m256i*>(to + kPanel * kWord), second);
    }
  }
}

// What a group adds to the sums [kRows][kPanel]. a [kRows][32] pairs of int16; scale: of this group, `groups` apart.
template <int kRows>
void multiply_int8(const char* a, const char* weights, const float* scale, int64_t groups, float* sums) {
  constexpr int kCols = 2;
  for (int32_t c0 = 0; c0 < kPanel; c0 += kCols * 8) {
    __m256i dot[kRows][kCols];
    for (int r = 0; r < kRows; ++r) {
      for (int c = 0; c < kCols; ++c) dot[r][c] = _mm256_setzero_si256();
    }
    const char* x = a;
    const char* w = weights + c0 * kWord;
    const char* const end = x + kInt16Pairs * kWord;
    do {
      __m256i y[kCols];
      for (int c = 0; c < kCols; ++c) y[c] = load_words(w + c * 32);
      for (int r = 0; r < kRows; ++r) {
        int32_t pair;
        __builtin_memcpy(&pair, x + r * kInt16Pairs * kWord, sizeof(pair));
        const __m256i both = _mm256_set1_epi32(pair);
        for (int c = 0; c < kCols; ++c) dot[r][c] = _mm256_add_epi32(dot[r][c], _mm256_madd_epi16(both, y[c]));
      }
      x += kWord;
      w += kPanel * kWord;
    } while (x != end);
    for (int r = 0; r < kRows; ++r) {
      const __m256 factor = _mm256_set1_ps(scale[r * groups]);
      for (int c = 0; c < kCols; ++c) {
        float* sum = sums + r * kPanel + c0 + c * 8;
        _mm256_storeu_ps(sum, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r][c]), factor, _mm256_loadu_ps(sum)));
      }
    }
  }
}

using MultiplyInt8 = void (*)(const char*, const char*, const float*, int64_t, float*);
constexpr MultiplyInt8 kMultiplyInt8[kInt8Rows] = {multiply_int8<1>, multiply_int8<2>, multiply_int8<3>,
                                                   multiply_int8<4>};

void add_rows_int8(const QuantGemmArgs& q, int32_t panel, int32_t m, int32_t rows, float* sums) {
  const GemmArgs& a = q.gemm;
  const int32_t groups = num_groups(a.k, kGroupInt8);
  alignas(32) char weights[kInt16Pairs * kPanel * kWord], x[kSharedRows * kInt16Pairs * kWord];
  for (int32_t g = 0; g < groups; ++g) {
    widen_weights(static_cast<const char*>(a.b) + panel * int8_panel_bytes(a.k) + g * int8_group_bytes(), weights);
    for (int32_t r = 0; r < rows; ++r) {
      const char* row = static_cast<const char*>(a.a) + (m + r) * a.a_stride + g * kGroupInt8;
      for (int32_t i = 0; i < kGroupInt8; i += 16) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + i));
        _mm256_store_si256(reinterpret_cast<__m256i*>(x + (r * kGroupInt8 + i) * 2), _mm256_cvtepi8_epi16(bytes));
      }
    }
    for (int32_t r = 0; r < rows;) {
      const int32_t some = next_rows(rows - r, kInt8Rows);
      kMultiplyInt8[some - 1](x + r * kInt16Pairs * kWord, weights, q.a_groups + int64_t{m + r} * groups + g, groups,
                              sums + r * kPanel);
      r += some;
    }
  }
}

void gemm_int8(const QuantGemmArgs& args) noexcept {
  const QuantGemmArgs q = args;
  const GemmArgs& a = q.gemm;
  alignas(32) float sums[kSharedRows * kPanel];
  for (int32_t panel = a.panel0; panel < a.panel1; ++panel) {
    const char* end = static_cast<const char*>(a.b) + (panel + 1) * int8_panel_bytes(a.k);
    const float* scale = reinterpret_cast<const float*>(end) - kPanel;
    for (int32_t m = a.m0; m < a.m1;) {
      const int32_t rows = next_rows(a.m1 - m, kSharedRows);
      for (int32_t i = 0; i < rows * kPanel; i += 8) _mm256_store_ps(sums + i, _mm256_setzero_ps());
      add_rows_int8(q, panel, m, rows, sums);
      for (int32_t i = 0; i < rows * kPanel; i += 8) {
        _mm256_store_ps(sums + i, _mm256_mul_ps(_mm256_load_ps(sums + i), _mm256_loadu_ps(scale + i % kPanel)));
      }
      finish<Avx2Vectors>(a, m, rows, panel, sums);
      m += rows;
    }
  }
}

void quantize(const QuantizeArgs& args) noexcept {
  const QuantizeArgs a = args;
  const int32_t groups = num_groups(a.k, kGroupInt8);
  const __m256 size = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  for (int32_t t = a.t0; t < a.t1; ++t) {
    for (int32_t g = 0; g < groups; ++g) {
      const float* x = reinterpret_cast<const float*>(a.x + t * a.x_stride + g * kGroupInt8);
      const int64_t at = int64_t{t} * groups + g;
      const int32_t words = words_of<Bf16>(a.k - g * kGroupInt8);
      __m256 part[8];
      __m256i most_bits = _mm256_setzero_si256();  // sizes have the order of their bits, NaN above all
      for (int32_t i = 0; i < 4; ++i) {
        const __m256 pairs = Avx2Vectors::load_first(x + 8 * i, words - 8 * i);
        part[2 * i] = Avx2Quant::even_of(pairs);
        part[2 * i + 1] = Avx2Quant::odd_of(pairs);
        for (int32_t j = 2 * i; j < 2 * i + 2; ++j) {
          most_bits = _mm256_max_epi32(most_bits, _mm256_castps_si256(_mm256_and_ps(part[j], size)));
        }
      }
      alignas(32) int32_t lanes[8];
      _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), most_bits);
      int32_t bits = 0;
      for (const int32_t lane : lanes) bits = lane > bits ? lane : bits;
      float most;
      __builtin_memcpy(&most, &bits, sizeof(most));
      const bool finite = bits < 0x7f800000, good = finite && most >= 0x1p-100f;
      const __m256 inverse = _mm256_set1_ps(127 / most);
      const __m256i some = _mm256_set1_epi32(good ? -1 : 0);
      __m256i sum = _mm256_setzero_si256();
      for (int32_t i = 0; i < 4; ++i) {
        const __m256i even = _mm256_and_si256(_mm256_cvtps_epi32(_mm256_mul_ps(part[2 * i], inverse)), some);
        const __m256i odd = _mm256_and_si256(_mm256_cvtps_epi32(_mm256_mul_ps(part[2 * i + 1], inverse)), some);
        sum = _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
        const __m256i low = _mm256_set1_epi32(0xff);
        const __m256i both =
            _mm256_or_si256(_mm256_and_si256(even, low), _mm256_slli_epi32(_mm256_and_si256(odd, low), 8));
        const __m128i bytes = _mm_packus_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(a.y + at * kGroupInt8) + i, bytes);
      }
      _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sum);
      int32_t total = 0;
      for (const int32_t lane : lanes) total += lane;
      a.sum[at] = total;
      a.scale[at] = good ? most / 127 : finite ? 0.0f : __builtin_nanf("");
    }
  }
}

}  // namespace

const QuantKernels kAvx2Quant = {
    gemm_groups<Avx2Quant, Q8>, gemm_groups<Avx2Quant, Q4>, gemm_int8, group_sums<Avx2Quant>, quantize,
};

}  // namespace idefics::kernels
