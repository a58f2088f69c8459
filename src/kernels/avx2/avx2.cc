// The AVX2 level. There is no bf16 arithmetic, so bf16 is widened: the two elements of a 32-bit word become floats by a
// shift and a mask, and are added one after the other. The left operand of the micro kernel is floats for both types.
#include <immintrin.h>

#include "kernels/levels.h"
#include "kernels/simd.h"
#include "kernels/simd_attention.h"

namespace idefics::kernels {
namespace {

// The elements with even and odd index of eight pairs of bf16.
inline __m256 even_of(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
inline __m256 odd_of(__m256i pairs) {
  // Two shifts rather than a mask: in the micro kernel the mask would be the seventeenth register.
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_srli_epi32(pairs, 16), 16));
}

inline __m256i load_words(const char* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// ---- the micro kernel

enum class Start : uint8_t { kZero, kOut };

constexpr int32_t kMostRows = 6;
constexpr int64_t kAhead = 2048;  // a GEMV reads from memory: see the AVX-512 level

template <typename Type, Start kStart, int kRows, int kCols>
void multiply(const Product& product) {
  const Product p = product;
  const int64_t a_stride = p.a_stride / kWord;
  __m256 sum[kRows][kCols];
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kCols; ++c) {
      sum[r][c] = kStart == Start::kZero ? _mm256_setzero_ps() : _mm256_loadu_ps(p.out + r * p.out_stride + c * 8);
    }
  }
  const float* a = p.a;
  const char* b = p.b;
  const char* const end = b + p.words * p.b_stride;
  do {  // not `while`: for no words at all GCC would keep a second copy of the sums, on the stack
    for (int half = 0; half < Type::kPerWord; ++half) {
      const auto column = [ b, half ](int c) __attribute__((always_inline)) {
        const __m256i words = load_words(b + c * 32);
        return Type::kPerWord == 1 ? _mm256_castsi256_ps(words) : half == 0 ? even_of(words) : odd_of(words);
      };
      if constexpr (kRows < kCols) {  // the shorter list stays in registers
        __m256 x[kRows];
        for (int r = 0; r < kRows; ++r) x[r] = _mm256_broadcast_ss(a + r * a_stride);
        for (int c = 0; c < kCols; ++c) {
          if (kRows == 1 && kCols == 8 && half == 0 && c % 2 == 0) _mm_prefetch(b + kAhead + c * 32, _MM_HINT_T0);
          const __m256 y = column(c);
          for (int r = 0; r < kRows; ++r) sum[r][c] = _mm256_fmadd_ps(x[r], y, sum[r][c]);
        }
      } else {
        __m256 y[kCols];
        for (int c = 0; c < kCols; ++c) y[c] = column(c);
        for (int r = 0; r < kRows; ++r) {
          const __m256 x = _mm256_broadcast_ss(a + r * a_stride);
          for (int c = 0; c < kCols; ++c) sum[r][c] = _mm256_fmadd_ps(x, y[c], sum[r][c]);
        }
      }
      ++a;
      asm("" : "+r"(b));  // hides b: GCC would load for both halves at once, and run out of registers
    }
    b += p.b_stride;
  } while (b != end);
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kCols; ++c) _mm256_storeu_ps(p.out + r * p.out_stride + c * 8, sum[r][c]);
  }
}

// As many columns at a time as keep the sums, a vector of each column and one of a in 16 registers; at least 8 sums, or
// the latency of the multiply-add would be the limit.
template <typename Type, Start kStart, int kRows>
void multiply_rows(int32_t cols, Product product) {
  constexpr int kWide = kRows == 1 ? 8 : kRows == 2 ? 4 : kRows == 3 ? 3 : 2;
  for (; cols >= kWide * 8; cols -= kWide * 8) {
    multiply<Type, kStart, kRows, kWide>(product);
    product.b += kWide * 8 * kWord;
    product.out += kWide * 8;
  }
  for (; cols > 0; cols -= 8) {
    multiply<Type, kStart, kRows, 1>(product);
    product.b += 8 * kWord;
    product.out += 8;
  }
}

template <typename Type, Start kStart>
inline void multiply(int32_t rows, int32_t cols, const Product& product) {
  switch (rows) {
    case 1: return multiply_rows<Type, kStart, 1>(cols, product);
    case 2: return multiply_rows<Type, kStart, 2>(cols, product);
    case 3: return multiply_rows<Type, kStart, 3>(cols, product);
    case 4: return multiply_rows<Type, kStart, 4>(cols, product);
    case 5: return multiply_rows<Type, kStart, 5>(cols, product);
    case 6: return multiply_rows<Type, kStart, 6>(cols, product);
  }
}

// ---- vectors

struct Avx2 {
  using Vector = __m256;
  static constexpr int32_t kLanes = 8;
  static constexpr int32_t kMaxRows = kMostRows;
  template <typename Type>
  static constexpr int32_t kPerFloat = 1;

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

  template <typename Type>
  static void store_operand(float* p, Vector x) {
    store(p, Type::kPerWord == 1 ? x : round_to_bf16(x));
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
    return fma(set(*p), even_of(load_words(pairs)), sum);
  }
};

// ---- slots that are not the same on every width

void gemm_f32(const GemmArgs& args) noexcept {
  const GemmArgs a = args;
  const int64_t a_stride = a.a_stride * kWord;
  alignas(64) float sums[kMostRows * kPanel];
  for (int32_t panel = a.panel0; panel < a.panel1; ++panel) {
    const char* b = static_cast<const char*>(a.b) + int64_t{panel} * a.k * (kPanel * kWord);
    for (int32_t m = a.m0; m < a.m1;) {
      const int32_t rows = next_rows(a.m1 - m, kMostRows);
      const float* row = static_cast<const float*>(a.a) + m * a.a_stride;
      multiply<F32, Start::kZero>(rows, kPanel, {row, b, sums, a_stride, kPanel * kWord, kPanel, a.k});
      finish<Avx2>(a, m, rows, panel, sums);
      m += rows;
    }
  }
}

// Rows of a are widened a piece at a time: 6 x 512 floats are 12 KiB, a quarter of L1.
constexpr int32_t kPieceWords = 256;

void widen(const uint16_t* a, int64_t a_stride, int32_t rows, int32_t words, float* out) {
  for (int32_t r = 0; r < rows; ++r) {
    const char* from = reinterpret_cast<const char*>(a + r * a_stride);
    float* to = out + r * (2 * kPieceWords);
    int32_t i = 0;
    for (; i + 8 <= 2 * words; i += 8) {
      const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * i));
      _mm256_store_ps(to + i, even_of(_mm256_cvtepu16_epi32(eight)));
    }
    for (; i < 2 * words; ++i) {
      uint16_t one;
      __builtin_memcpy(&one, from + 2 * i, sizeof(one));
      const uint32_t bits = uint32_t{one} << 16;
      __builtin_memcpy(to + i, &bits, sizeof(bits));
    }
  }
}

void gemm_bf16(const GemmArgs& args) noexcept {
  const GemmArgs a = args;
  const int32_t words = words_of<Bf16>(a.k);
  alignas(64) float piece[kMostRows * 2 * kPieceWords];
  alignas(64) float sums[kMostRows * kPanel];
  for (int32_t panel = a.panel0; panel < a.panel1; ++panel) {
    const char* b = static_cast<const char*>(a.b) + int64_t{panel} * words * (kPanel * kWord);
    for (int32_t m = a.m0; m < a.m1;) {
      const int32_t rows = next_rows(a.m1 - m, kMostRows);
      const uint16_t* row = static_cast<const uint16_t*>(a.a) + m * a.a_stride;
      for (int32_t i = 0; i < rows * kPanel; i += Avx2::kLanes) Avx2::store(sums + i, Avx2::zero());
      for (int32_t w = 0; w < words; w += kPieceWords) {
        const int32_t count = words - w < kPieceWords ? words - w : kPieceWords;
        widen(row + 2 * w, a.a_stride, rows, count, piece);
        multiply<Bf16, Start::kOut>(
            rows, kPanel,
            {piece, b + int64_t{w} * (kPanel * kWord), sums, 2 * kPieceWords * kWord, kPanel * kWord, kPanel, count});
      }
      finish<Avx2>(a, m, rows, panel, sums);
      m += rows;
    }
  }
}

void store_f32(const KvStoreArgs& a, int32_t slot, const float* key, const float* value) {
  float* k = static_cast<float*>(a.k_block) + slot;
  float* v = static_cast<float*>(a.v_block) + int64_t{slot} * padded_head(a.d);
  for (int32_t i = 0; i < a.d; ++i) k[i * kBlock] = key[i];
  for (int32_t i = 0; i < padded_head(a.d); i += Avx2::kLanes) Avx2::store(v + i, Avx2::load_first(value + i, a.d - i));
}

// The other half of each word of v belongs to another token, which another thread may be writing: hence 16-bit stores.
void store_bf16(const KvStoreArgs& a, int32_t slot, const float* key, const float* value) {
  uint32_t* k = static_cast<uint32_t*>(a.k_block) + slot;
  uint16_t* v = static_cast<uint16_t*>(a.v_block) + int64_t{slot / 2} * padded_head(a.d) * 2 + slot % 2;
  for (int32_t i = 0; i < padded_head(a.d); i += Avx2::kLanes) {
    alignas(16) uint32_t pairs[Avx2::kLanes / 2];
    alignas(16) uint16_t values[Avx2::kLanes];
    _mm_store_si128(reinterpret_cast<__m128i*>(pairs), Avx2::to_bf16(Avx2::load_first(key + i, a.d - i)));
    _mm_store_si128(reinterpret_cast<__m128i*>(values), Avx2::to_bf16(Avx2::load_first(value + i, a.d - i)));
    for (int32_t j = 0; j < Avx2::kLanes / 2; ++j) k[(i / 2 + j) * kBlock] = pairs[j];
    for (int32_t j = 0; j < Avx2::kLanes; ++j) v[2 * (i + j)] = values[j];
  }
}

void kv_store(const KvStoreArgs& args) noexcept {
  const KvStoreArgs a = args;
  for (int32_t slot = a.slot0; slot < a.slot1; ++slot) {
    const float* key = a.k + (slot - a.slot0) * a.k_stride;
    const float* value = a.v + (slot - a.slot0) * a.v_stride;
    a.dtype == DType::kF32 ? store_f32(a, slot, key, value) : store_bf16(a, slot, key, value);
  }
}

}  // namespace

const Table kAvx2Table = {
    "avx2",       gemm_f32,      gemm_bf16, layer_norm<Avx2>,     rms_norm<Avx2>,        rope<Avx2>,
    swiglu<Avx2>, to_bf16<Avx2>, kv_store,  attention<Avx2, F32>, attention<Avx2, Bf16>,
};

}  // namespace idefics::kernels
