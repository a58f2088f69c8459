// The AMX level: products of bf16 matrices on tiles. A tile of the right operand is 16 rows of pairs by 16 columns, and
// packed matrices and blocks hold exactly that, at a stride of 256 bytes; so nothing is repacked.
#include <immintrin.h>

#include "kernels/amx/tiles.h"
#include "kernels/avx512/vectors.h"
#include "kernels/levels.h"
#include "kernels/simd.h"

namespace idefics::kernels {
namespace {

// sums += a * b
template <int kSums, int kA, int kB>
inline void dot() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kA), "i"(kB));
}

constexpr int32_t kTileWords = 16;  // in a row of a tile: 16 floats, or 16 pairs of bf16

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
  void load() const { asm volatile("ldtilecfg (%0)" ::"r"(this) : "memory"); }
};

// ---- GEMM
//
// Tiles 0 to 3 hold the sums of up to 16 rows and a panel of 64 columns, tile 4 the left operand, 5 to 7 in turn the
// right one. That is 5 loads of 8 cycles for 4 products of 16 cycles, so data must come from L1 or steadily from L2:
// the words of K are taken in slices, of which the panel's part stays in L1 while the rows of `a` pass by. Sums wait in
// a buffer meanwhile; storing and loading a float changes nothing, so the order of summation is that of K.
//
// What passes by must not push that part out of L1: rows and sums are loaded past it. And while the last slice of a
// group of rows is multiplied, the group before is finished, some rows at each step: vectors and tiles then work at the
// same time, and the sums are still in L1. With both, the product of 512 rows with a matrix of 768 x 3072 and GELU went
// from 1370 to 1640 Gflop/s.

constexpr int32_t kMostSlice = 128;  // words
constexpr int32_t kMostRows = 512;   // rows that share a slice

void shape_gemm(int32_t rows) {
  Shapes shapes;
  for (int tile = 0; tile < 5; ++tile) shapes.set(tile, rows, kTileWords);
  for (int tile = 5; tile < 8; ++tile) shapes.set(tile, kTileRows, kTileWords);
  shapes.load();
}

inline void clear_sums() {
  clear<0>();
  clear<1>();
  clear<2>();
  clear<3>();
}
inline void load_sums(const float* sums) {
  load_past<0>(sums, kRowBytes);
  load_past<1>(sums + 16, kRowBytes);
  load_past<2>(sums + 32, kRowBytes);
  load_past<3>(sums + 48, kRowBytes);
}
inline void store_sums(float* sums) {
  store<0>(sums, kRowBytes);
  store<1>(sums + 16, kRowBytes);
  store<2>(sums + 32, kRowBytes);
  store<3>(sums + 48, kRowBytes);
}

// Asks for the lines of the same tile of the next step.
inline void fetch_next(const char* tile) {
  const char* next = tile + kTileWords * kRowBytes;
  for (int32_t i = 0; i < kTileWords; ++i) _mm_prefetch(next + i * kRowBytes, _MM_HINT_T0);
}

// Adds the products of 16 words.
template <bool kFetch>
inline void multiply_step(const char* a, int64_t a_stride, const char* b) {
  kFetch ? load<4>(a, a_stride) : load_past<4>(a, a_stride);
  if (kFetch) fetch_next(b);
  load<5>(b, kRowBytes);
  dot<0, 4, 5>();
  if (kFetch) fetch_next(b + 64);
  load<6>(b + 64, kRowBytes);
  dot<1, 4, 6>();
  if (kFetch) fetch_next(b + 128);
  load<7>(b + 128, kRowBytes);
  dot<2, 4, 7>();
  if (kFetch) fetch_next(b + 192);
  load<5>(b + 192, kRowBytes);
  dot<3, 4, 5>();
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
  multiply_step<false>(tail.a, 64, tail.b);
}

// The sums [rows][kPanel] of one panel and at most 16 rows. The matrix streams in from memory: each step fetches the
// next one into L1, in the order in which tiles take its lines. From memory, with 2, 8 and 16 rows and K = 576, that
// reads 17.6, 17.2 and 16.5 GB/s on one core; copying each step into L1 with vectors reads 16.3, 15.9 and 15.4, and
// fetching lines in the order in which they lie 16.4, 16.0 and 15.9. (One row, on vectors, reads 18.3.)
void multiply_group(const GemmArgs& a, int32_t panel, int32_t m, int32_t rows, Tail& tail, float* sums) {
  const int32_t words = words_of<Bf16>(a.k), full = words / kTileWords * kTileWords;
  const int64_t a_stride = a.a_stride * 2;
  const char* row = static_cast<const char*>(a.a) + m * a_stride;
  const char* b = static_cast<const char*>(a.b) + int64_t{panel} * words * kRowBytes;
  clear_sums();
  for (int32_t word = 0; word < full; word += kTileWords) {
    multiply_step<true>(row + int64_t{word} * kWord, a_stride, b + int64_t{word} * kRowBytes);
  }
  if (full < words) multiply_tail(row + int64_t{full} * kWord, a_stride, rows, words - full, tail);
  store_sums(sums);
}

// Finishes a group of rows in parts.
class Finisher {
 public:
  Finisher(const GemmArgs& args, int32_t panel) : args_(args), panel_(panel) {}
  // The rows [m, m + 16), of which the sums lie at `sums`, in so many steps. The group before must have ended.
  void begin(int32_t m, const float* sums, int32_t steps) {
    m_ = m, sums_ = sums, left_ = kTileRows;
    at_once_ = steps < 1 ? kTileRows : (kTileRows + steps - 1) / steps;
  }
  void step() { finish_rows(left_ < at_once_ ? left_ : at_once_); }
  void end() { finish_rows(left_); }

 private:
  void finish_rows(int32_t rows) {
    if (rows == 0) return;
    finish<Avx512Vectors>(args_, m_, rows, panel_, sums_);
    m_ += rows, sums_ += rows * kPanel, left_ -= rows;
  }

  const GemmArgs& args_;
  int32_t panel_, m_ = 0, left_ = 0, at_once_ = 0;
  const float* sums_ = nullptr;
};

// The words of a slice: as many as fit, or a little less if the last one would be small.
inline int32_t slice_words(int32_t words) {
  const int32_t steps = words / kTileWords, slices = (words + kMostSlice - 1) / kMostSlice;
  return slices < 1 ? 0 : (steps + slices - 1) / slices * kTileWords;
}

// One panel and the rows [m0, m1), whole groups of 16; at most kMostRows in all. The matrix streams in from L3 or
// memory, at a fraction of the speed at which tiles use it; so each step fetches its share of the next slice into L2:
// that took the product of 1024 rows with a matrix of 768 x 2304 from 1480 to 1990 Gflop/s; all lines at once, between
// groups of rows, gave 1800. It also fetches its share of the next group's sums, which are stored soon.
void multiply_panel(const GemmArgs& a, int32_t panel, int32_t m0, int32_t m1, Tail& tail) {
  alignas(64) float sums[kMostRows * kPanel];
  const int32_t words = words_of<Bf16>(a.k), full = words / kTileWords * kTileWords, slice = slice_words(full);
  const int64_t a_stride = a.a_stride * 2, share = kTileWords * kRowBytes * kTileRows / (m1 - m0);
  const char* b = static_cast<const char*>(a.b) + int64_t{panel} * words * kRowBytes;
  Finisher finisher(a, panel);
  int32_t word0 = 0;
  do {
    const int32_t word1 = full - word0 > slice ? word0 + slice : full, steps = (word1 - word0) / kTileWords;
    const int32_t sum_lines = kTileRows * kRowBytes / 64 / (steps < 1 ? 1 : steps);
    const char* next = b + int64_t{word1} * kRowBytes;
    for (int32_t m = m0; m < m1; m += kTileRows) {
      float* group = sums + (m - m0) * kPanel;
      const char* next_sums = reinterpret_cast<const char*>(m + kTileRows < m1 ? group + kTileRows * kPanel : sums);
      const char* row = static_cast<const char*>(a.a) + m * a_stride;
      word0 == 0 ? clear_sums() : load_sums(group);
      for (int32_t word = word0; word < word1; word += kTileWords) {
        multiply_step<false>(row + int64_t{word} * kWord, a_stride, b + int64_t{word} * kRowBytes);
        for (const char* const end = next + share; next < end; next += 64) _mm_prefetch(next, _MM_HINT_T1);
        for (int32_t i = 0; i < sum_lines; ++i, next_sums += 64) _mm_prefetch(next_sums, _MM_HINT_T0);
        finisher.step();
      }
      const bool last = word1 == full;
      if (last && full < words) {
        multiply_tail(row + int64_t{full} * kWord, a_stride, kTileRows, words - full, tail);
      }
      store_sums(group);
      if (last) finisher.end();
      if (last) finisher.begin(m, group, steps);
    }
    word0 = word1;
  } while (word0 < full);
  finisher.end();
}

// ---- GEMM of one row
//
// Decoding is made of these, and vectors get more out of memory than tiles. The sums are those of tdpbf16ps, step by
// step as its description has it: over 16 pairs, the even and the odd products each from zero, then both onto the sum.
// The caller has made subnormals zero, as they are in tiles.

// Keeps subnormals out while it lives.
class FlushSubnormals {
 public:
  FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushSubnormals() { _mm_setcsr(before_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
  unsigned before_;
};

inline void add_step_of_row(const char* a, const char* b, __m512* sums) {
  const __m512i odd_half = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u));
  __m512 even[4] = {}, odd[4] = {};
  for (int32_t word = 0; word < kTileWords; ++word, a += kWord, b += kRowBytes) {
    uint32_t pair;
    __builtin_memcpy(&pair, a, sizeof(pair));
    const __m512i x = _mm512_set1_epi32(static_cast<int32_t>(pair));
    const __m512 x_even = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
    const __m512 x_odd = _mm512_castsi512_ps(_mm512_and_si512(x, odd_half));
    for (int32_t i = 0; i < 4; ++i) {
      const __m512i y = load_streamed(b + i * 64);
      even[i] = _mm512_fmadd_ps(x_even, _mm512_castsi512_ps(_mm512_slli_epi32(y, 16)), even[i]);
      odd[i] = _mm512_fmadd_ps(x_odd, _mm512_castsi512_ps(_mm512_and_si512(y, odd_half)), odd[i]);
    }
  }
  for (int32_t i = 0; i < 4; ++i) sums[i] = _mm512_add_ps(sums[i], _mm512_add_ps(even[i], odd[i]));
}

// Not inlined: arithmetic must not leave the life of a FlushSubnormals.
__attribute__((noinline)) void multiply_row(const GemmArgs& a, int32_t panel, Tail& tail, float* out) {
  const int32_t words = words_of<Bf16>(a.k), full = words / kTileWords * kTileWords;
  const char* row = static_cast<const char*>(a.a) + a.m0 * a.a_stride * 2;
  const char* b = static_cast<const char*>(a.b) + int64_t{panel} * words * kRowBytes;
  __m512 sums[4] = {};
  for (int32_t word = 0; word < full; word += kTileWords) {
    add_step_of_row(row + int64_t{word} * kWord, b + int64_t{word} * kRowBytes, sums);
  }
  if (full < words) {
    copy_words(row + int64_t{full} * kWord, words - full, tail.a);
    add_step_of_row(tail.a, tail.b, sums);
  }
  for (int32_t i = 0; i < 4; ++i) _mm512_store_ps(out + 16 * i, sums[i]);
}

// ---- GEMM: all rows of a call

void fill_tail(const GemmArgs& a, int32_t panel, Tail& tail) {
  const int32_t words = words_of<Bf16>(a.k), full = words / kTileWords * kTileWords;
  if (full == words) return;
  const char* b = static_cast<const char*>(a.b) + (int64_t{panel} * words + full) * kRowBytes;
  for (int32_t word = 0; word < kTileWords; ++word) {
    for (int32_t i = 0; i < kRowBytes; i += 64) {
      copy_words(b + word * kRowBytes + i, full + word < words ? 16 : 0, tail.b + word * kRowBytes + i);
    }
  }
}

// Several panels one right behind the other: a pause between two panels is a pause of the memory.
void gemm_row(const GemmArgs& a) {
  constexpr int32_t kPanels = 16;
  Tail tail;
  alignas(64) float sums[kPanels * kPanel];
  for (int32_t first = a.panel0; first < a.panel1; first += kPanels) {
    const int32_t count = a.panel1 - first < kPanels ? a.panel1 - first : kPanels;
    {
      const FlushSubnormals flush;
      for (int32_t i = 0; i < count; ++i) {
        fill_tail(a, first + i, tail);
        multiply_row(a, first + i, tail, sums + i * kPanel);
      }
    }
    for (int32_t i = 0; i < count; ++i) finish<Avx512Vectors>(a, a.m0, 1, first + i, sums + i * kPanel);
  }
}

// At most 16 rows, of which those from m0 on. Here too several panels follow each other; and vectors are slow for a
// while after the last tile instruction (see attention), so the sums of all of them are finished together.
void gemm_group(const GemmArgs& a, int32_t m0) {
  constexpr int32_t kPanels = 8;
  Tail tail;
  alignas(64) float sums[kPanels * kTileRows * kPanel];
  const int32_t rows = a.m1 - m0;
  shape_gemm(rows);
  for (int32_t first = a.panel0; first < a.panel1; first += kPanels) {
    const int32_t count = a.panel1 - first < kPanels ? a.panel1 - first : kPanels;
    for (int32_t i = 0; i < count; ++i) {
      fill_tail(a, first + i, tail);
      multiply_group(a, first + i, m0, rows, tail, sums + i * kTileRows * kPanel);
    }
    for (int32_t i = 0; i < count; ++i) finish<Avx512Vectors>(a, m0, rows, first + i, sums + i * kTileRows * kPanel);
  }
}

void gemm(const GemmArgs& args) noexcept {
  const GemmArgs a = args;
  const int32_t rows = a.m1 - a.m0, rest = rows == kTileRows ? rows : rows % kTileRows, m1 = a.m1 - rest;
  if (rows == 1) return gemm_row(a);
  if (m1 > a.m0) {
    Tail tail;
    shape_gemm(kTileRows);
    for (int32_t panel = a.panel0; panel < a.panel1; ++panel) {
      fill_tail(a, panel, tail);
      for (int32_t m = a.m0; m < m1; m += kMostRows) {
        multiply_panel(a, panel, m, m1 - m > kMostRows ? m + kMostRows : m1, tail);
      }
    }
  }
  if (rest > 0) gemm_group(a, m1);
  asm volatile("tilerelease");
}

// ---- attention
//
// As kernels/simd_attention.h has it, for groups of 16 query rows. Several groups take a block together, first all on
// tiles (scores), then all on vectors (softmax), then all on tiles again (weighted values): for about 280 cycles after
// each tile instruction one of the two multipliers for vectors stands still, so the fewer changes the better.

constexpr int32_t kGroups = 2;

// The state of 16 rows between two blocks. Rows that the call does not have see what the last one sees, and are
// dropped.
struct Group {
  alignas(64) uint16_t q[kTileRows * kMaxHead];  // [16][dp]
  alignas(64) float out[kTileRows * kMaxHead];   // [16][dp] sum of probability * value, relative to `max`
  alignas(64) float scores[kTileRows * kBlock];  // of the block in hand; then probabilities, with the same stride
  alignas(64) float max[kTileRows];
  __m512 sum[kTileRows];  // sums of probabilities, relative to `max`, one for each lane
  int32_t limit[kTileRows];
  int32_t least, most;  // of the limits
};

// What a call has in hand.
struct Attention {
  AttentionArgs args;
  int32_t rows;  // of a tile, in all groups
  int32_t dp;
  // |scale| log2(e): exp(scale q k) = 2^(factor (sign q) k). With a factor above zero the highest score need not be
  // scaled before it is known to be the highest; a scale of zero becomes a sign of zero.
  float factor, sign;
  Group groups[kGroups];
  // A V block without the values that rows must not see; of q8 all of it, as bf16.
  alignas(64) uint16_t values[kBlock * kMaxHead];
  alignas(64) uint16_t keys[kBlock * kMaxHead];  // a K block of q8 as bf16
};

// Tiles 0 to 3 are sums, 4 and 5 operands; 6 and 7 take the words of D that do not fill a tile.
void shape_attention(int32_t rows, int32_t tail_words) {
  Shapes shapes;
  for (int tile = 0; tile < 5; ++tile) shapes.set(tile, rows, kTileWords);
  shapes.set(5, kTileRows, kTileWords);
  if (tail_words != 0) {
    shapes.set(6, rows, tail_words);
    shapes.set(7, tail_words, kTileWords);
  }
  shapes.load();
}

// sums 0 .. kTiles-1 += a * b
template <int kTiles, int kA, int kB>
inline void multiply_columns(const void* a, int64_t a_stride, const char* b, int64_t b_stride) {
  load<kA>(a, a_stride);
  load<kB>(b, b_stride);
  dot<0, kA, kB>();
  if constexpr (kTiles > 1) {
    load<kB>(b + 64, b_stride);
    dot<1, kA, kB>();
  }
  if constexpr (kTiles > 2) {
    load<kB>(b + 128, b_stride);
    dot<2, kA, kB>();
  }
  if constexpr (kTiles > 3) {
    load<kB>(b + 192, b_stride);
    dot<3, kA, kB>();
  }
}

void score(const Attention& a, const void* keys, Group& group) {
  const char* k = static_cast<const char*>(keys);
  const int32_t words = a.dp / 2;
  clear_sums();
  int32_t word = 0;
  for (; word + kTileWords <= words; word += kTileWords) {
    multiply_columns<4, 4, 5>(group.q + 2 * word, a.dp * 2, k + word * kRowBytes, kRowBytes);
  }
  if (word < words) multiply_columns<4, 6, 7>(group.q + 2 * word, a.dp * 2, k + word * kRowBytes, kRowBytes);
  store_sums(group.scores);
}

// out += probabilities * values, for the kTiles tiles of columns from `column` on.
template <int kTiles>
inline void add_columns(int32_t dp, const char* v, int32_t column, Group& group) {
  const int32_t stride = dp * kWord;
  const char* p = reinterpret_cast<const char*>(group.scores);
  const char* b = v + column * kWord;
  float* sums = group.out + column;
  load<0>(sums, stride);
  if constexpr (kTiles > 1) load<1>(sums + 16, stride);
  if constexpr (kTiles > 2) load<2>(sums + 32, stride);
  if constexpr (kTiles > 3) load<3>(sums + 48, stride);
  for (int32_t i = 0; i < kBlock / 2 / kTileWords; ++i) {
    multiply_columns<kTiles, 4, 5>(p + i * 64, kRowBytes, b + i * kTileWords * stride, stride);
  }
  store<0>(sums, stride);
  if constexpr (kTiles > 1) store<1>(sums + 16, stride);
  if constexpr (kTiles > 2) store<2>(sums + 32, stride);
  if constexpr (kTiles > 3) store<3>(sums + 48, stride);
}

void add_values(int32_t dp, const void* values, Group& group) {
  const char* v = static_cast<const char*>(values);
  int32_t column = 0;
  for (; column + 64 <= dp; column += 64) add_columns<4>(dp, v, column, group);
  switch ((dp - column) / 16) {
    case 3: return add_columns<3>(dp, v, column, group);
    case 2: return add_columns<2>(dp, v, column, group);
    case 1: return add_columns<1>(dp, v, column, group);
  }
}

inline int64_t query(const AttentionArgs& args, int32_t row) {
  const int32_t token = row / args.group, head = row % args.group;
  return token * args.q_stride + int64_t{head} * args.d;
}

void start(const Attention& a, int32_t r0, Group& group) {
  const AttentionArgs& args = a.args;
  group.least = INT32_MAX;
  group.most = 0;
  for (int32_t r = 0; r < a.rows; ++r) {
    const int32_t row = r0 + r < args.r1 ? r0 + r : args.r1 - 1;
    const int64_t q = query(args, row);
    for (int32_t i = 0; i < a.dp; i += 16) {
      const __m512 x =
          _mm512_mul_ps(Avx512Vectors::load_first(args.q, args.q_dtype, q + i, args.d - i), _mm512_set1_ps(a.sign));
      Avx512Vectors::store_first(group.q, DType::kBf16, r * a.dp + i, 16, x);
      _mm512_store_ps(group.out + r * a.dp + i, _mm512_setzero_ps());
    }
    group.sum[r] = _mm512_setzero_ps();
    group.limit[r] = args.limit[row / args.group];
    if (group.limit[r] < group.least) group.least = group.limit[r];
    if (group.limit[r] > group.most) group.most = group.limit[r];
  }
  _mm512_store_ps(group.max, _mm512_set1_ps(-__builtin_inff()));
}

// Rows of queries lie far apart, and each is read once: nothing else fetches them in time.
void fetch_queries(const AttentionArgs& args, int32_t r0, int32_t r1) {
  const int64_t bytes = args.q_dtype == DType::kF32 ? 4 : 2;
  for (int32_t r = r0; r < r1 && r < args.r1; ++r) {
    const char* row = static_cast<const char*>(args.q) + query(args, r) * bytes;
    for (int64_t i = 0; i < args.d * bytes; i += 64) _mm_prefetch(row + i, _MM_HINT_T0);
  }
}

// Lane r of the result is the highest lane of rows[r].
inline __m512 highest_of_rows(const __m512* rows) {
  __m512 pairs[8], quads[4];
  for (int i = 0; i < 8; ++i) {
    const __m512 x = rows[2 * i], y = rows[2 * i + 1];
    pairs[i] = _mm512_max_ps(_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y));
  }
  for (int i = 0; i < 4; ++i) {
    const __m512d x = _mm512_castps_pd(pairs[2 * i]), y = _mm512_castps_pd(pairs[2 * i + 1]);
    quads[i] = _mm512_max_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  }
  const auto fold = [](__m512 x, __m512 y) {
    return _mm512_max_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
  };
  return fold(fold(quads[0], quads[1]), fold(quads[2], quads[3]));
}

// Lane r of the result is the highest score of a key that row r sees. kWhole: every row sees all keys of the block.
template <bool kWhole>
inline __m512 highest_scores(int32_t rows, int32_t first_key, const Group& group) {
  const __m512 least = _mm512_set1_ps(-__builtin_inff());
  __m512 high[kTileRows];
  for (int32_t r = 0; r < rows; ++r) {
    __m512 x[4];
    for (int32_t i = 0; i < 4; ++i) {
      x[i] = _mm512_load_ps(group.scores + r * kBlock + 16 * i);
      if (!kWhole) x[i] = Avx512Vectors::keep_first(x[i], group.limit[r] - first_key - 16 * i, least);
    }
    high[r] = _mm512_max_ps(_mm512_max_ps(x[0], x[1]), _mm512_max_ps(x[2], x[3]));
  }
  for (int32_t r = rows; r < kTileRows; ++r) high[r] = least;
  return highest_of_rows(high);
}

// Brings the blocks that the tiles want next into L1 while vectors are at work.
struct Fetch {
  const char *k, *v;
  int32_t lines;  // at each call, of each
  void next() {
    for (int32_t i = 0; i < lines; ++i, k += 64, v += 64) {
      _mm_prefetch(k, _MM_HINT_T0);
      _mm_prefetch(v, _MM_HINT_T0);
    }
  }
};

// Brings the scores of q8 to those of the keys.
void scale_scores(int32_t rows, const float* k_scale, Group& group) {
  for (int32_t i = 0; i < kBlock; i += 16) {
    const __m512 scale = _mm512_loadu_ps(k_scale + i);
    for (int32_t r = 0; r < rows; ++r) {
      float* score = group.scores + r * kBlock + i;
      _mm512_store_ps(score, _mm512_mul_ps(_mm512_load_ps(score), scale));
    }
  }
}

// Scores become probabilities relative to the new maximum; `sum` and `out` of the group are brought to that maximum.
// v_scale: null, or what a probability is multiplied with once it is summed.
template <bool kWhole>
void soften(const Attention& a, int32_t first_key, const float* v_scale, Group& group, Fetch& fetch) {
  using V = Avx512Vectors;
  const __m512 factor = _mm512_set1_ps(a.factor);
  const __m512 block_max = highest_scores<kWhole>(a.rows, first_key, group), old_max = _mm512_load_ps(group.max);
  const __m512 max = _mm512_mask_mov_ps(old_max, _mm512_cmp_ps_mask(old_max, block_max, _CMP_LT_OQ), block_max);
  const __m512 shrink = V::exp2(_mm512_mul_ps(_mm512_sub_ps(old_max, max), factor));
  alignas(64) float shrinks[kTileRows];
  _mm512_store_ps(shrinks, shrink);
  _mm512_store_ps(group.max, max);
  uint32_t shrunk = _mm512_cmp_ps_mask(shrink, _mm512_set1_ps(1.0f), _CMP_NEQ_UQ) & ((1u << a.rows) - 1u);
  for (int32_t r = 0; r < a.rows; ++r) {
    auto* p = reinterpret_cast<uint16_t*>(group.scores + r * kBlock);
    if (!kWhole && group.limit[r] <= first_key) {
      _mm512_store_si512(p, _mm512_setzero_si512());
      _mm512_store_si512(p + 32, _mm512_setzero_si512());
      shrunk &= ~(1u << r);
      continue;
    }
    const __m512 row_max = _mm512_set1_ps(group.max[r]);
    __m512 x[4];
    for (int32_t i = 0; i < 4; ++i) {
      const __m512 score = _mm512_load_ps(group.scores + r * kBlock + 16 * i);
      x[i] = V::exp2(_mm512_mul_ps(_mm512_sub_ps(score, row_max), factor));
      if (!kWhole) x[i] = V::keep_first(x[i], group.limit[r] - first_key - 16 * i, V::zero());
    }
    const __m512 sum = _mm512_add_ps(_mm512_add_ps(x[0], x[1]), _mm512_add_ps(x[2], x[3]));
    group.sum[r] = _mm512_fmadd_ps(group.sum[r], _mm512_set1_ps(shrinks[r]), sum);
    for (int32_t i = 0; i < 4 && v_scale != nullptr; ++i) {
      x[i] = _mm512_mul_ps(x[i], _mm512_loadu_ps(v_scale + 16 * i));
      if (!kWhole) x[i] = V::keep_first(x[i], group.limit[r] - first_key - 16 * i, V::zero());
    }
    _mm512_store_si512(p, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(x[1], x[0])));
    _mm512_store_si512(p + 32, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(x[3], x[2])));
    fetch.next();
  }
  for (; shrunk != 0; shrunk &= shrunk - 1) {
    const int32_t r = __builtin_ctz(shrunk);
    for (int32_t i = 0; i < a.dp; i += 16) {
      float* out = group.out + r * a.dp + i;
      _mm512_store_ps(out, _mm512_mul_ps(_mm512_load_ps(out), _mm512_set1_ps(shrinks[r])));
    }
  }
}

// Copies a V block, with zeros for the keys from `count` on. Says whether all values of the keys from `first` on, of
// those that are left, are finite.
bool copy_values(const uint16_t* v, int32_t dp, int32_t first, int32_t count, uint16_t* to) {
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  __mmask32 infinite = 0;
  for (int32_t key = 0; key < kBlock; key += 2) {
    const auto halves = [key](int32_t from) -> __mmask32 {
      return from <= key ? 0xffffffffu : from == key + 1 ? 0xaaaaaaaau : 0;
    };
    const __mmask32 kept = ~halves(count), shared = halves(first);
    for (int32_t i = 0; i < 2 * dp; i += 32) {
      const __m512i x = _mm512_maskz_loadu_epi16(kept, v + key * dp + i);
      _mm512_store_si512(to + key * dp + i, x);
      infinite |= _mm512_mask_cmpeq_epi16_mask(shared, _mm512_and_si512(x, exponent), exponent);
    }
  }
  return infinite == 0;
}

// Each row with the values that it sees.
void add_values_row_by_row(Attention& a, const uint16_t* v, int32_t first_key, Group& group) {
  alignas(64) float before[kTileRows * kMaxHead], after[kTileRows * kMaxHead];
  const auto bytes = static_cast<size_t>(a.rows * a.dp) * sizeof(float);
  __builtin_memcpy(before, group.out, bytes);
  for (int32_t r = 0; r < a.rows; ++r) {
    copy_values(v, a.dp, kBlock, group.limit[r] - first_key, a.values);
    __builtin_memcpy(group.out, before, bytes);
    add_values(a.dp, a.values, group);
    __builtin_memcpy(after + r * a.dp, group.out + r * a.dp, bytes / static_cast<size_t>(a.rows));
  }
  __builtin_memcpy(group.out, after, bytes);
}

// The same where some row does not see the whole block. The probabilities of hidden keys are zero, so their values do
// nothing once those that no row sees are zero as well. Only an infinite or NaN value that some rows see and others do
// not must be kept from the others: 0 * NaN is NaN.
void add_seen_values(Attention& a, const uint16_t* v, int32_t first_key, Group& group) {
  if (copy_values(v, a.dp, group.least - first_key, group.most - first_key, a.values)) {
    add_values(a.dp, a.values, group);
  } else {
    add_values_row_by_row(a, v, first_key, group);
  }
}

// One block for those of `count` groups that see some of it.
void add_block(Attention& a, int32_t block, bool last, int32_t count) {
  const int32_t first_key = block * kBlock;
  const auto* v = static_cast<const uint16_t*>(a.args.v_blocks[block]);
  const auto sees_nothing = [first_key](const Group& group) { return group.most <= first_key; };
  const auto sees_all = [first_key](const Group& group) { return group.least >= first_key + kBlock; };
  for (int32_t i = 0; i < count; ++i) {
    if (!sees_nothing(a.groups[i])) score(a, a.args.k_blocks[block], a.groups[i]);
  }
  Fetch fetch = {static_cast<const char*>(a.args.k_blocks[last ? block : block + 1]), reinterpret_cast<const char*>(v),
                 a.dp * 2 / (count * a.rows)};
  for (int32_t i = 0; i < count; ++i) {
    Group& group = a.groups[i];
    if (sees_nothing(group)) continue;
    sees_all(group) ? soften<true>(a, first_key, nullptr, group, fetch)
                    : soften<false>(a, first_key, nullptr, group, fetch);
  }
  for (int32_t i = 0; i < count; ++i) {
    Group& group = a.groups[i];
    if (sees_nothing(group)) continue;
    sees_all(group) ? add_values(a.dp, v, group) : add_seen_values(a, v, first_key, group);
  }
}

// The same for a block of q8. Values are finite whatever lies in their slots, and the probabilities of hidden keys are
// zero: nothing need be hidden from a row.
void add_block_q8(Attention& a, int32_t block, bool last, int32_t count) {
  const int32_t first_key = block * kBlock, size = kBlock * a.dp;
  const auto* k = static_cast<const int8_t*>(a.args.k_blocks[block]);
  const auto* v = static_cast<const int8_t*>(a.args.v_blocks[block]);
  const auto *k_scale = reinterpret_cast<const float*>(k + size), *v_scale = reinterpret_cast<const float*>(v + size);
  const auto sees_nothing = [first_key](const Group& group) { return group.most <= first_key; };
  widen_q8(k, size, a.keys);
  widen_q8(v, size, a.values);
  for (int32_t i = 0; i < count; ++i) {
    if (!sees_nothing(a.groups[i])) score(a, a.keys, a.groups[i]);
  }
  const int32_t next = last ? block : block + 1;
  Fetch fetch = {static_cast<const char*>(a.args.k_blocks[next]), static_cast<const char*>(a.args.v_blocks[next]),
                 a.dp / (count * a.rows)};
  for (int32_t i = 0; i < count; ++i) {
    Group& group = a.groups[i];
    if (sees_nothing(group)) continue;
    scale_scores(a.rows, k_scale, group);
    group.least >= first_key + kBlock ? soften<true>(a, first_key, v_scale, group, fetch)
                                      : soften<false>(a, first_key, v_scale, group, fetch);
  }
  for (int32_t i = 0; i < count; ++i) {
    if (!sees_nothing(a.groups[i])) add_values(a.dp, a.values, a.groups[i]);
  }
}

void finish(const Attention& a, int32_t r0, const Group& group) {
  const AttentionArgs& args = a.args;
  for (int32_t r = 0; r < a.rows && r0 + r < args.r1; ++r) {
    const int32_t token = (r0 + r) / args.group, head = (r0 + r) % args.group;
    const __m512 sum = _mm512_set1_ps(_mm512_reduce_add_ps(group.sum[r]));
    for (int32_t i = 0; i < args.d; i += 16) {
      // The products of hidden keys are zeros of either sign: + 0 makes all zeros alike.
      const __m512 y = _mm512_div_ps(_mm512_load_ps(group.out + r * a.dp + i), sum);
      Avx512Vectors::store_first(args.y, args.y_dtype, token * args.y_stride + int64_t{head} * args.d + i, args.d - i,
                                 _mm512_add_ps(y, _mm512_setzero_ps()));
    }
  }
}

template <void (*kAddBlock)(Attention&, int32_t, bool, int32_t)>
void attention(const AttentionArgs& args) noexcept {
  if (args.r0 >= args.r1) return;
  Attention a;
  a.args = args;
  a.rows = args.r1 - args.r0 < kTileRows ? args.r1 - args.r0 : kTileRows;
  a.dp = padded_head(args.d);
  a.factor = args.scale == 0 ? 1 : __builtin_fabsf(args.scale) * kLog2E;
  a.sign = args.scale == 0 ? 0 : args.scale < 0 ? -1 : 1;
  shape_attention(a.rows, a.dp / 2 % kTileWords);
  constexpr int32_t kRows = kGroups * kTileRows;
  for (int32_t r0 = args.r0; r0 < args.r1; r0 += kRows) {
    int32_t count = 0;
    for (int32_t r = r0; count < kGroups && r < args.r1; r += kTileRows) start(a, r, a.groups[count++]);
    fetch_queries(args, r0 + kRows, r0 + 2 * kRows);
    int32_t most = 0;
    for (int32_t i = 0; i < count; ++i) most = a.groups[i].most > most ? a.groups[i].most : most;
    for (int32_t block = 0; block * kBlock < most; ++block) kAddBlock(a, block, (block + 1) * kBlock >= most, count);
    for (int32_t i = 0; i < count; ++i) finish(a, r0 + i * kTileRows, a.groups[i]);
  }
  asm volatile("tilerelease");
}

}  // namespace

const AmxKernels kAmxKernels = {gemm, attention<add_block>, attention<add_block_q8>};

}  // namespace idefics::kernels
