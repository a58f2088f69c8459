// The AVX2 level. There is no bf16 arithmetic, so bf16 is widened: the two elements of a 32-bit word become floats by a
// shift and a mask, and are added one after the other. The left operand of the micro kernel is floats for both types.
#include <immintrin.h>

#include "kernels/avx2/vectors.h"
#include "kernels/levels.h"
#include "kernels/simd.h"
#include "kernels/simd_attention.h"

namespace idefics::kernels {
namespace {

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

// ---- what the templates ask for

struct Avx2 : Avx2Vectors {
  static constexpr int32_t kMaxRows = kMostRows;
  template <typename Type>
  static constexpr int32_t kPerFloat = 1;

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
  // As at the AVX-512 level.
  static void widen(const int8_t* from, int32_t count, uint16_t* to) {
    for (int32_t i = 0; i < count; i += 16) {
      const __m256i pairs = _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
      const __m256i even = _mm256_srai_epi32(_mm256_slli_epi32(pairs, 24), 24), odd = _mm256_srai_epi32(pairs, 8);
      const __m256i low = _mm256_srli_epi32(_mm256_castps_si256(_mm256_cvtepi32_ps(even)), 16);
      const __m256i high = _mm256_castps_si256(_mm256_cvtepi32_ps(odd));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm256_blend_epi16(low, high, 0xaa));
    }
  }
  static Vector add_even(Vector sum, const float* p, const char* pairs) {
    return fma(set(*p), even_of(load_words(pairs)), sum);
  }
};

// ---- slots that are not the same on every width

// Rows of a are widened a piece at a time: 6 x 256 floats are 6 KiB, an eighth of L1.
constexpr int32_t kPiece = 256;  // inputs

void widen(const uint16_t* a, int64_t a_stride, int32_t rows, int32_t count, float* out) {
  for (int32_t r = 0; r < rows; ++r) {
    const char* from = reinterpret_cast<const char*>(a + r * a_stride);
    float* to = out + r * kPiece;
    int32_t i = 0;
    for (; i + 8 <= count; i += 8) {
      const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * i));
      _mm256_store_ps(to + i, even_of(_mm256_cvtepu16_epi32(eight)));
    }
    for (; i < count; ++i) {
      uint16_t one;
      __builtin_memcpy(&one, from + 2 * i, sizeof(one));
      const uint32_t bits = uint32_t{one} << 16;
      __builtin_memcpy(to + i, &bits, sizeof(bits));
    }
  }
}

// Some inputs of a panel as floats, 16 columns after the other: [kPanel / 16][kPiece][16]. In the panel those 16
// columns are one line of four, or of two for bf16 which must be widened besides; in a copy they lie close together.
constexpr int32_t kCopyCols = 16;

template <typename Type>
void copy_piece(const char* b, int32_t words, float* out) {
  for (int32_t w = 0; w < words; ++w, b += kPanel * kWord) {
    for (int32_t c = 0; c < kPanel; c += Avx2::kLanes) {
      const __m256i both = load_words(b + c * kWord);
      float* to = out + c / kCopyCols * (kPiece * kCopyCols) + c % kCopyCols + w * Type::kPerWord * kCopyCols;
      if constexpr (Type::kPerWord == 1) {
        _mm256_store_ps(to, _mm256_castsi256_ps(both));
      } else {
        _mm256_store_ps(to, even_of(both));
        _mm256_store_ps(to + kCopyCols, odd_of(both));
      }
    }
  }
}

constexpr int32_t kFewRows = 12;      // that a copy does not pay for
constexpr int32_t kSharedRows = 384;  // that share a copy

// One input of six rows: two vectors of a copy, each row's number in all lanes, twelve multiply-adds.
#define IDEFICS_ROW(from, low, high)        \
  "vbroadcastss " from                      \
  ", %%ymm14\n\t"                           \
  "vfmadd231ps %%ymm12, %%ymm14, %%ymm" low \
  "\n\t"                                    \
  "vfmadd231ps %%ymm13, %%ymm14, %%ymm" high "\n\t"
#define IDEFICS_INPUT(of_a, of_b)                                                           \
  "vmovaps " of_b                                                                           \
  "(%[b]), %%ymm12\n\t"                                                                     \
  "vmovaps 32+" of_b "(%[b]), %%ymm13\n\t" IDEFICS_ROW(of_a "(%[a])", "0", "1")             \
      IDEFICS_ROW(of_a "(%[a],%[s])", "2", "3") IDEFICS_ROW(of_a "(%[a],%[s],2)", "4", "5") \
          IDEFICS_ROW(of_a "(%[a3])", "6", "7") IDEFICS_ROW(of_a "(%[a3],%[s])", "8", "9")  \
              IDEFICS_ROW(of_a "(%[a3],%[s],2)", "10", "11")

#define IDEFICS_LOAD(at, low, high) "vmovups " at "(%[y]), %%ymm" low "\n\tvmovups 32+" at "(%[y]), %%ymm" high "\n\t"
#define IDEFICS_STORE(at, low, high) "vmovups %%ymm" low ", " at "(%[y])\n\tvmovups %%ymm" high ", 32+" at "(%[y])\n\t"

// sums [6][kCopyCols], kPanel apart, += the inputs [6][4 fours] times a copy [4 fours][kCopyCols], fours at least 1. In
// assembly: of four inputs in a row GCC 12 makes code that moves the sums around or keeps some on the stack, and with
// one input at a time counting takes the place of multiply-adds.
void multiply_six(const float* a, int64_t a_stride, const float* b, int32_t fours, float* sums) {
  static_assert(kPanel == 64 && kCopyCols == 16);
  const float* a3 = a + 3 * a_stride;
  asm volatile(
      IDEFICS_LOAD("0", "0", "1") IDEFICS_LOAD("256", "2", "3") IDEFICS_LOAD("512", "4", "5")
      IDEFICS_LOAD("768", "6", "7") IDEFICS_LOAD("1024", "8", "9") IDEFICS_LOAD("1280", "10", "11")
      "1:\n\t"
      IDEFICS_INPUT("0", "0") IDEFICS_INPUT("4", "64") IDEFICS_INPUT("8", "128") IDEFICS_INPUT("12", "192")
      "addq $16, %[a]\n\t"
      "addq $16, %[a3]\n\t"
      "addq $256, %[b]\n\t"
      "decl %[n]\n\t"
      "jnz 1b\n\t"
      IDEFICS_STORE("0", "0", "1") IDEFICS_STORE("256", "2", "3") IDEFICS_STORE("512", "4", "5")
      IDEFICS_STORE("768", "6", "7") IDEFICS_STORE("1024", "8", "9") IDEFICS_STORE("1280", "10", "11")
      : [a] "+r"(a), [a3] "+r"(a3), [b] "+r"(b), [n] "+r"(fours)
      : [s] "r"(a_stride * kWord), [y] "r"(sums)
      : "memory", "cc", "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", "ymm8", "ymm9", "ymm10", "ymm11",
        "ymm12", "ymm13", "ymm14");
}
#undef IDEFICS_ROW
#undef IDEFICS_INPUT
#undef IDEFICS_LOAD
#undef IDEFICS_STORE

// sums [rows][kPanel] = the products of these rows with a panel. Every sum goes on from piece to piece in the order of
// the inputs, as without copies.
template <typename Type>
void multiply_shared(const GemmArgs& a, const char* b, int32_t m, int32_t rows, float* sums) {
  alignas(64) float copy[kPiece * kPanel], wide[kMostRows * kPiece];
  const int32_t words = words_of<Type>(a.k);
  constexpr int32_t kPieceWords = kPiece / Type::kPerWord;
  for (int32_t i = 0; i < rows * kPanel; i += Avx2::kLanes) Avx2::store(sums + i, Avx2::zero());
  for (int32_t w = 0; w < words; w += kPieceWords) {
    const int32_t some = words - w < kPieceWords ? words - w : kPieceWords, count = some * Type::kPerWord;
    copy_piece<Type>(b + int64_t{w} * (kPanel * kWord), some, copy);
    for (int32_t r = 0; r < rows;) {
      const int32_t together = next_rows(rows - r, kMostRows);
      const int64_t at = (m + r) * a.a_stride + int64_t{w} * Type::kPerWord;
      const float* row = wide;
      int64_t stride = kPiece;
      if constexpr (Type::kPerWord == 1) {
        row = static_cast<const float*>(a.a) + at;
        stride = a.a_stride;
      } else {
        widen(static_cast<const uint16_t*>(a.a) + at, a.a_stride, together, count, wide);
      }
      for (int32_t c = 0; c < kPanel; c += kCopyCols)
        if (together == kMostRows && count % 4 == 0) {
          multiply_six(row, stride, copy + c * kPiece, count / 4, sums + r * kPanel + c);
        } else {
          multiply<F32, Start::kOut>(together, kCopyCols,
                                     {row, reinterpret_cast<const char*>(copy + c * kPiece), sums + r * kPanel + c,
                                      stride * kWord, kCopyCols * kWord, kPanel, count});
        }
      r += together;
    }
  }
}

void multiply_few(const GemmArgs& a, F32, const char* b, int32_t m, int32_t rows, float* sums) {
  const float* row = static_cast<const float*>(a.a) + m * a.a_stride;
  multiply<F32, Start::kZero>(rows, kPanel, {row, b, sums, a.a_stride * kWord, kPanel * kWord, kPanel, a.k});
}

void multiply_few(const GemmArgs& a, Bf16, const char* b, int32_t m, int32_t rows, float* sums) {
  alignas(64) float wide[kMostRows * kPiece];
  const int32_t words = words_of<Bf16>(a.k);
  const uint16_t* row = static_cast<const uint16_t*>(a.a) + m * a.a_stride;
  for (int32_t i = 0; i < rows * kPanel; i += Avx2::kLanes) Avx2::store(sums + i, Avx2::zero());
  for (int32_t w = 0; w < words; w += kPiece / 2) {
    const int32_t count = words - w < kPiece / 2 ? words - w : kPiece / 2;
    widen(row + 2 * w, a.a_stride, rows, 2 * count, wide);
    multiply<Bf16, Start::kOut>(
        rows, kPanel, {wide, b + int64_t{w} * (kPanel * kWord), sums, kPiece * kWord, kPanel * kWord, kPanel, count});
  }
}

template <typename Type>
void gemm(const GemmArgs& args) noexcept {
  const GemmArgs a = args;
  const bool few = a.m1 - a.m0 <= kFewRows;
  const int32_t most = few ? kMostRows : kSharedRows;
  alignas(64) float sums[kSharedRows * kPanel];
  for (int32_t panel = a.panel0; panel < a.panel1; ++panel) {
    const char* b = static_cast<const char*>(a.b) + int64_t{panel} * words_of<Type>(a.k) * (kPanel * kWord);
    for (int32_t m = a.m0; m < a.m1;) {
      const int32_t rows = next_rows(a.m1 - m, most);
      few ? multiply_few(a, Type(), b, m, rows, sums) : multiply_shared<Type>(a, b, m, rows, sums);
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
    alignas(32) float key_room[kMaxHead], value_room[kMaxHead];
    const float* key = as_floats<Avx2>(a.k, a.x_dtype, (slot - a.slot0) * a.k_stride, a.d, key_room);
    const float* value = as_floats<Avx2>(a.v, a.x_dtype, (slot - a.slot0) * a.v_stride, a.d, value_room);
    switch (a.dtype) {
      case KvType::kF32: store_f32(a, slot, key, value); break;
      case KvType::kBf16: store_bf16(a, slot, key, value); break;
      case KvType::kQ8: store_q8<Avx2>(a, slot, key, value); break;
    }
  }
}

}  // namespace

const Table kAvx2Table = {
    "avx2",       gemm<F32>,     gemm<Bf16>, layer_norm<Avx2>,     rms_norm<Avx2>,        rope<Avx2>,
    swiglu<Avx2>, to_bf16<Avx2>, kv_store,   attention<Avx2, F32>, attention<Avx2, Bf16>, attention_q8<Avx2>,
};

}  // namespace idefics::kernels
