// The AMX level: products of bf16 matrices on tiles. A tile of the right operand is 16 rows of pairs by 16 columns, and
// packed matrices and blocks hold exactly that, at a stride of 256 bytes; so nothing is repacked.
//
// The intrinsics of GCC 12 do not say that loads read memory: fence() must stand between writes to a buffer and loads
// from it.
#include <immintrin.h>

#include "kernels/avx512/vectors.h"
#include "kernels/levels.h"
#include "kernels/simd.h"

namespace idefics::kernels {
namespace {

inline void fence() { asm volatile("" ::: "memory"); }

constexpr int32_t kTileRows = 16;
constexpr int32_t kTileWords = 16;  // in a row of a tile: 16 floats, or 16 pairs of bf16
constexpr int32_t kRowBytes = kPanel * kWord;

// The shapes of the 8 tiles of this thread; changing them costs about 170 cycles and clears the tiles.
struct alignas(64) Shapes {
  uint8_t palette = 1, start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
  void set(int tile, int32_t tile_rows, int32_t words) {
    rows[tile] = static_cast<uint8_t>(tile_rows);
    row_bytes[tile] = static_cast<uint16_t>(words * kWord);
  }
  void load() const {
    fence();
    _tile_loadconfig(this);
  }
};

// ---- GEMM
//
// Tiles 0 to 3 hold the sums of up to 16 rows and a panel of 64 columns, tile 4 the left operand, 5 to 7 in turn the
// right one. That is 5 loads of 8 cycles for 4 products of 16 cycles, so data must come from L1 or steadily from L2:
// the words of K are taken in slices, of which the panel's part stays in L1 while the rows of `a` pass by. Sums wait in
// a buffer meanwhile; storing and loading a float changes nothing, so the order of summation is that of K.

constexpr int32_t kSlice = 128;     // words
constexpr int32_t kMostRows = 256;  // rows that share a slice

void shape_gemm(int32_t rows) {
  Shapes shapes;
  for (int tile = 0; tile < 5; ++tile) shapes.set(tile, rows, kTileWords);
  for (int tile = 5; tile < 8; ++tile) shapes.set(tile, kTileRows, kTileWords);
  shapes.load();
}

inline void clear_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}
inline void load_sums(const float* sums) {
  fence();
  _tile_loadd(0, sums, kRowBytes);
  _tile_loadd(1, sums + 16, kRowBytes);
  _tile_loadd(2, sums + 32, kRowBytes);
  _tile_loadd(3, sums + 48, kRowBytes);
}
inline void store_sums(float* sums) {
  _tile_stored(0, sums, kRowBytes);
  _tile_stored(1, sums + 16, kRowBytes);
  _tile_stored(2, sums + 32, kRowBytes);
  _tile_stored(3, sums + 48, kRowBytes);
}

// Adds the products of 16 words.
inline void multiply_step(const char* a, int64_t a_stride, const char* b) {
  _tile_loadd(4, a, a_stride);
  _tile_loadd(5, b, kRowBytes);
  _tile_dpbf16ps(0, 4, 5);
  _tile_loadd(6, b + 64, kRowBytes);
  _tile_dpbf16ps(1, 4, 6);
  _tile_loadd(7, b + 128, kRowBytes);
  _tile_dpbf16ps(2, 4, 7);
  _tile_loadd(5, b + 192, kRowBytes);
  _tile_dpbf16ps(3, 4, 5);
}

// The last words of K when they do not fill a tile, with zeros behind them.
struct Tail {
  alignas(64) char a[kTileRows * 64];
  alignas(64) char b[kTileWords * kRowBytes];
};

inline void copy_words(const char* from, int32_t words, char* to) {
  const __mmask16 some = Avx512Vectors::first(words);
  _mm512_store_si512(to, _mm512_maskz_loadu_epi32(some, from));
}

inline void multiply_tail(const char* a, int64_t a_stride, int32_t rows, int32_t words, Tail& tail) {
  for (int32_t r = 0; r < rows; ++r) copy_words(a + r * a_stride, words, tail.a + r * 64);
  fence();
  multiply_step(tail.a, 64, tail.b);
}

// With few rows the panel comes from memory: see avx512.cc.
constexpr int32_t kFewRows = 4;
constexpr int64_t kAhead = 4096;

// One panel and the rows [m0, m1), in groups of `rows`, which divides their number; at most kMostRows in all.
void multiply_panel(const GemmArgs& a, int32_t panel, int32_t m0, int32_t m1, int32_t rows, Tail& tail) {
  alignas(64) float sums[kMostRows * kPanel];
  const int32_t words = words_of<Bf16>(a.k), full = words / kTileWords * kTileWords;
  const int64_t a_stride = a.a_stride * 2;
  const char* b = static_cast<const char*>(a.b) + int64_t{panel} * words * kRowBytes;
  int32_t word0 = 0;
  do {
    const int32_t word1 = full - word0 > kSlice ? word0 + kSlice : full;
    for (int32_t m = m0; m < m1; m += rows) {
      float* group = sums + (m - m0) * kPanel;
      const char* row = static_cast<const char*>(a.a) + m * a_stride;
      word0 == 0 ? clear_sums() : load_sums(group);
      fence();
      for (int32_t word = word0; word < word1; word += kTileWords) {
        const char* from = b + int64_t{word} * kRowBytes;
        if (rows <= kFewRows) {
          for (int32_t i = 0; i < kTileWords * kRowBytes; i += 64) _mm_prefetch(from + kAhead + i, _MM_HINT_T0);
        }
        multiply_step(row + int64_t{word} * kWord, a_stride, from);
      }
      if (word1 == full && full < words) {
        multiply_tail(row + int64_t{full} * kWord, a_stride, rows, words - full, tail);
      }
      store_sums(group);
      if (word1 == full) finish<Avx512Vectors>(a, m, rows, panel, group);
    }
    word0 = word1;
  } while (word0 < full);
}

void gemm(const GemmArgs& args) noexcept {
  const GemmArgs a = args;
  const int32_t words = words_of<Bf16>(a.k), full = words / kTileWords * kTileWords;
  const int32_t rest = (a.m1 - a.m0) % kTileRows, m1 = a.m1 - rest;
  Tail tail;
  for (int32_t panel = a.panel0; panel < a.panel1; ++panel) {
    const char* b = static_cast<const char*>(a.b) + int64_t{panel} * words * kRowBytes;
    for (int32_t word = full; full < words && word < full + kTileWords; ++word) {
      for (int32_t i = 0; i < kRowBytes; i += 64) {
        copy_words(b + int64_t{word} * kRowBytes + i, word < words ? 16 : 0, tail.b + (word - full) * kRowBytes + i);
      }
    }
    if (m1 > a.m0) shape_gemm(kTileRows);
    for (int32_t m = a.m0; m < m1; m += kMostRows) {
      multiply_panel(a, panel, m, m1 - m > kMostRows ? m + kMostRows : m1, kTileRows, tail);
    }
    if (rest == 0) continue;
    shape_gemm(rest);
    multiply_panel(a, panel, m1, a.m1, rest, tail);
  }
  _tile_release();
}

}  // namespace

const AmxKernels kAmxKernels = {gemm};

}  // namespace idefics::kernels
