// The AMX level: quantised matrices. One product of tiles takes 32 inputs as bf16, or 64 as int8: just a group. Its
// sums are stored, and vectors scale them and add them up. Few rows are left to the vectors of the AVX-512 level, which
// sum in the same order.
#include <immintrin.h>

#include "kernels/amx/tiles.h"
#include "kernels/avx512/quant.h"
#include "kernels/levels.h"

namespace idefics::kernels {
namespace {

// sums += a * b
template <bool kInt8, int kSums, int kA, int kB>
inline void dot() {
  if constexpr (kInt8) {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kA), "i"(kB));
  } else {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kA), "i"(kB));
  }
}

constexpr int32_t kTileBytes = 1024;
constexpr int32_t kGroupTileBytes = kTileRows * kRowBytes;  // the right operand of a group: 16 rows of a panel

// Tiles 0 to 3 are sums, 4 the left operand, 5 to 7 the right one: 16 rows all.
void shape_tiles() {
  struct alignas(64) {
    uint8_t palette = 1, reserved[15] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } shapes;
  asm volatile("ldtilecfg (%0)" ::"r"(&shapes) : "memory");
}

// dots [16][kPanel] = a (16 rows of 64 bytes) times a group.
template <bool kInt8>
inline void multiply_tiles(const char* a, int64_t a_stride, const char* b, char* dots) {
  load<4>(a, a_stride);
  clear<0>();
  load<5>(b, kRowBytes);
  dot<kInt8, 0, 4, 5>();
  clear<1>();
  load<6>(b + 64, kRowBytes);
  dot<kInt8, 1, 4, 6>();
  clear<2>();
  load<7>(b + 128, kRowBytes);
  dot<kInt8, 2, 4, 7>();
  clear<3>();
  load<5>(b + 192, kRowBytes);
  dot<kInt8, 3, 4, 5>();
  store<0>(dots, kRowBytes);
  store<1>(dots + 64, kRowBytes);
  store<2>(dots + 128, kRowBytes);
  store<3>(dots + 192, kRowBytes);
}

// Keeps subnormals out while it lives, as tiles do.
class FlushSubnormals {
 public:
  FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushSubnormals() { _mm_setcsr(before_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
  unsigned before_;
};

constexpr int32_t kTogether = 4;  // groups whose products are added up before the sums go back to memory
constexpr int32_t kFewRows = 4;   // that vectors multiply faster

// The left operand of a group where it cannot be taken from `a` as it lies: fewer than 16 rows, or the end of K.
struct LeftTile {
  alignas(64) char bytes[kTileBytes];
};

// ---- q8 and q4

// The group as pairs of bf16 [16][kPanel][2]. Small integers are bf16 already: the upper halves of the floats.
template <typename Type>
void unpack_pairs(const char* group, char* pairs) {
  if constexpr (Type::kOffset) {
    for (int32_t i = 0; i < kGroup / 8; ++i) {
      for (int32_t c = 0; c < kPanel; c += 16) {
        const __m512i words = Avx512Quant::load_words(group + (i * kPanel + c) * kWord);
        for (int32_t j = 0; j < 8; j += 2) {
          const __m512i low = _mm512_castps_si512(Avx512Quant::nibble(words, j));
          const __m512i high = _mm512_castps_si512(Avx512Quant::nibble(words, j + 1));
          _mm512_store_si512(pairs + ((4 * i + j / 2) * kPanel + c) * kWord,
                             _mm512_or_si512(_mm512_srli_epi32(low, 16), high));
        }
      }
    }
  } else {
    const int8_t* v = reinterpret_cast<const int8_t*>(group);
    for (int32_t i = 0; i < kPairs; ++i) {
      for (int32_t c = 0; c < kPanel; c += 16) {
        const __m512i low = _mm512_castps_si512(Avx512Quant::load_int8(v + 2 * i * kPanel + c));
        const __m512i high = _mm512_castps_si512(Avx512Quant::load_int8(v + (2 * i + 1) * kPanel + c));
        _mm512_store_si512(pairs + (i * kPanel + c) * kWord, _mm512_or_si512(_mm512_srli_epi32(low, 16), high));
      }
    }
  }
}

// The rows [m, m + rows) of `a` in bytes [64 g, 64 g + 64), of which `bytes` lie before the end of K.
struct Left {
  const char* data;
  int64_t stride;
};
inline Left left_tile(const char* a, int64_t stride, int32_t rows, int32_t bytes, LeftTile& copy) {
  if (rows == kTileRows && bytes >= 64) return {a, stride};
  for (int32_t r = 0; r < kTileRows; ++r) {
    const __mmask16 some = r < rows ? Avx512Vectors::first((bytes + 3) / 4) : 0;
    _mm512_store_si512(copy.bytes + r * 64, _mm512_maskz_loadu_epi32(some, a + (r < rows ? r : 0) * stride));
  }
  return {copy.bytes, 64};
}

// sums [rows][kPanel] += what `count` groups from g on give, their dot products being in dots [count][16][kPanel].
template <bool kInt8>
inline void add_dots(const QuantGemmArgs& q, int32_t m, int32_t rows, int32_t g, int32_t count, const char* dots,
                     const float* scales, float* sums) {
  const int32_t groups = num_groups(q.gemm.k, kInt8 ? kGroupInt8 : kGroup);
  for (int32_t r = 0; r < rows; ++r) {
    const float* factors = kInt8 ? q.a_groups + int64_t{m + r} * groups + g : nullptr;
    __m512 sum[4];
    for (int32_t c = 0; c < 4; ++c) sum[c] = _mm512_load_ps(sums + r * kPanel + 16 * c);
    for (int32_t i = 0; i < count; ++i) {
      const char* row = dots + i * kGroupTileBytes + r * kRowBytes;
      for (int32_t c = 0; c < 4; ++c) {
        if constexpr (kInt8) {
          const __m512 dot = _mm512_cvtepi32_ps(_mm512_load_si512(row + 64 * c));
          sum[c] = _mm512_fmadd_ps(dot, _mm512_set1_ps(factors[i]), sum[c]);
        } else {
          sum[c] = _mm512_fmadd_ps(_mm512_load_ps(scales + i * kPanel + 16 * c), _mm512_load_ps(row + 64 * c), sum[c]);
        }
      }
    }
    for (int32_t c = 0; c < 4; ++c) _mm512_store_ps(sums + r * kPanel + 16 * c, sum[c]);
  }
}

constexpr int32_t kMostRows = 128;  // rows that share an unpacked group

template <typename Type>
__attribute__((noinline)) void add_rows_on_tiles(const QuantGemmArgs& q, int32_t panel, int32_t m, int32_t rows,
                                                 float* sums) {
  const GemmArgs& a = q.gemm;
  const int32_t groups = num_groups(a.k, kGroup);
  alignas(64) char pairs[kTogether * kGroupTileBytes], dots[kTogether * kGroupTileBytes];
  alignas(64) float scales[kTogether * kPanel];
  LeftTile copy;
  const char* row = static_cast<const char*>(a.a) + m * a.a_stride * 2;
  const char* group = static_cast<const char*>(a.b) + panel * Type::panel_bytes(a.k) + Type::first_group(a.k);
  for (int32_t g = 0; g < groups; g += kTogether) {
    const int32_t count = groups - g < kTogether ? groups - g : kTogether;
    for (int32_t i = 0; i < count; ++i, group += Type::kGroupBytes) {
      unpack_pairs<Type>(group, pairs + i * kGroupTileBytes);
      const uint16_t* scale = reinterpret_cast<const uint16_t*>(group + Type::kScale);
      for (int32_t c = 0; c < kPanel; c += 16) {
        _mm512_store_ps(scales + i * kPanel + c, Avx512Quant::load_bf16(scale + c));
      }
    }
    for (int32_t r = 0; r < rows; r += kTileRows) {
      const int32_t some = rows - r < kTileRows ? rows - r : kTileRows;
      for (int32_t i = 0; i < count; ++i) {
        const char* from = row + r * a.a_stride * 2 + (g + i) * 64;
        const Left left = left_tile(from, a.a_stride * 2, some, words_of<Bf16>(a.k - (g + i) * kGroup) * kWord, copy);
        multiply_tiles<false>(left.data, left.stride, pairs + i * kGroupTileBytes, dots + i * kGroupTileBytes);
      }
      add_dots<false>(q, m + r, some, g, count, dots, scales, sums + r * kPanel);
    }
  }
}

template <typename Type>
__attribute__((noinline)) void add_few_rows(const QuantGemmArgs& q, int32_t panel, int32_t m, int32_t rows,
                                            float* sums) {
  rows == 1 ? add_row<Avx512Quant, Type>(q, panel, m, sums) : add_rows<Avx512Quant, Type>(q, panel, m, rows, sums);
}

template <typename Type>
void gemm(const QuantGemmArgs& args) noexcept {
  const QuantGemmArgs q = args;
  const GemmArgs& a = q.gemm;
  alignas(64) float sums[kMostRows * kPanel];
  const bool tiles = a.m1 - a.m0 > kFewRows;
  if (tiles) shape_tiles();
  for (int32_t panel = a.panel0; panel < a.panel1; ++panel) {
    for (int32_t m = a.m0; m < a.m1; m += kMostRows) {
      const int32_t rows = a.m1 - m < kMostRows ? a.m1 - m : kMostRows;
      start_sums<Avx512Quant, Type>(q, panel, m, rows, sums);
      {
        const FlushSubnormals flush;
        tiles ? add_rows_on_tiles<Type>(q, panel, m, rows, sums) : add_few_rows<Type>(q, panel, m, rows, sums);
      }
      finish<Avx512Vectors>(a, m, rows, panel, sums);
    }
  }
  if (tiles) asm volatile("tilerelease");
}

// ---- int8

void add_rows_int8_on_tiles(const QuantGemmArgs& q, int32_t panel, int32_t m, int32_t rows, float* sums) {
  const GemmArgs& a = q.gemm;
  const int32_t groups = num_groups(a.k, kGroupInt8);
  alignas(64) char dots[kTogether * kGroupTileBytes];
  LeftTile copy;
  const char* row = static_cast<const char*>(a.a) + m * a.a_stride;
  const char* weights = static_cast<const char*>(a.b) + panel * int8_panel_bytes(a.k);
  for (int32_t g = 0; g < groups; g += kTogether) {
    const int32_t count = groups - g < kTogether ? groups - g : kTogether;
    for (int32_t r = 0; r < rows; r += kTileRows) {
      const int32_t some = rows - r < kTileRows ? rows - r : kTileRows;
      for (int32_t i = 0; i < count; ++i) {
        const char* from = row + r * a.a_stride + (g + i) * kGroupInt8;
        const Left left = left_tile(from, a.a_stride, some, kGroupInt8, copy);
        multiply_tiles<true>(left.data, left.stride, weights + (g + i) * int8_group_bytes(),
                             dots + i * kGroupTileBytes);
      }
      add_dots<true>(q, m + r, some, g, count, dots, nullptr, sums + r * kPanel);
    }
  }
}

void gemm_int8_on_tiles(const QuantGemmArgs& args) noexcept {
  const QuantGemmArgs q = args;
  const GemmArgs& a = q.gemm;
  if (a.m1 - a.m0 <= kFewRows) return gemm_int8(q);
  alignas(64) float sums[kMostRows * kPanel];
  shape_tiles();
  for (int32_t panel = a.panel0; panel < a.panel1; ++panel) {
    for (int32_t m = a.m0; m < a.m1; m += kMostRows) {
      const int32_t rows = a.m1 - m < kMostRows ? a.m1 - m : kMostRows;
      for (int32_t i = 0; i < rows * kPanel; i += 16) _mm512_store_ps(sums + i, _mm512_setzero_ps());
      add_rows_int8_on_tiles(q, panel, m, rows, sums);
      finish_int8(a, m, rows, panel, sums);
    }
  }
  asm volatile("tilerelease");
}

}  // namespace

const QuantKernels kAmxQuant = {gemm<Q8>, gemm<Q4>, gemm_int8_on_tiles, group_sums<Avx512Quant>, quantize};

}  // namespace idefics::kernels
