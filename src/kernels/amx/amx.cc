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

// With few rows the panel comes from memory. Fetching 2 KiB ahead, a tile's worth with each tile, took a GEMV from
// 13.4 to 15.4 GB/s on a Xeon whose vectors reach 17.5 GB/s.
constexpr int32_t kFewRows = 4;

inline void fetch_ahead(const char* b) {
  for (int32_t i = 0; i < 1024; i += 64) _mm_prefetch(b + 2048 + i, _MM_HINT_T0);
}

// Adds the products of 16 words.
template <bool kFetch>
inline void multiply_step(const char* a, int64_t a_stride, const char* b) {
  _tile_loadd(4, a, a_stride);
  if (kFetch) fetch_ahead(b);
  _tile_loadd(5, b, kRowBytes);
  _tile_dpbf16ps(0, 4, 5);
  if (kFetch) fetch_ahead(b + 1024);
  _tile_loadd(6, b + 64, kRowBytes);
  _tile_dpbf16ps(1, 4, 6);
  if (kFetch) fetch_ahead(b + 2048);
  _tile_loadd(7, b + 128, kRowBytes);
  _tile_dpbf16ps(2, 4, 7);
  if (kFetch) fetch_ahead(b + 3072);
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
  multiply_step<false>(tail.a, 64, tail.b);
}

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
        rows <= kFewRows ? multiply_step<true>(row + int64_t{word} * kWord, a_stride, from)
                         : multiply_step<false>(row + int64_t{word} * kWord, a_stride, from);
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

// ---- attention
//
// As kernels/simd_attention.h has it, with 16 query rows in a group and whatever a group needs in L1. The products for
// the scores of the next step are started before the exponentials of this one, so that tiles and vectors work together.

constexpr int32_t kGroups = 2;  // share a block while it is in L1
constexpr int32_t kBlockSteps = kBlock / 2 / kTileWords;

// The state of 16 rows between two blocks. Rows that the call does not have see what the last one sees, and are
// dropped.
struct Group {
  alignas(64) uint16_t q[kTileRows * kMaxHead];  // [16][dp]
  alignas(64) float out[kTileRows * kMaxHead];   // [16][dp] sum of probability * value, relative to `max`
  alignas(64) float max[kTileRows];
  __m512 sum[kTileRows];  // sums of probabilities, relative to `max`, one for each lane
  int32_t limit[kTileRows];
  int32_t least, most;  // of the limits
};

// One block for one group.
struct Step {
  alignas(64) float scores[kTileRows * kBlock];
  alignas(64) uint16_t probabilities[kTileRows * kBlock];
};

// What a call has in hand.
struct Attention {
  AttentionArgs args;
  int32_t rows;  // of a tile, in all groups
  int32_t dp;
  Group groups[kGroups];
  Step steps[2];
  alignas(64) uint16_t values[kBlock * kMaxHead];  // a V block without the values that some row must not see
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

void start(Attention& a, int32_t r0, Group& group) {
  const AttentionArgs& args = a.args;
  group.least = INT32_MAX;
  group.most = 0;
  for (int32_t r = 0; r < a.rows; ++r) {
    const int32_t row = r0 + r < args.r1 ? r0 + r : args.r1 - 1;
    const int32_t token = row / args.group, head = row % args.group;
    const float* q = args.q + token * args.q_stride + int64_t{head} * args.d;
    for (int32_t i = 0; i < a.dp; i += 16) {
      Avx512Vectors::store_first(group.q, DType::kBf16, r * a.dp + i, 16, Avx512Vectors::load_first(q + i, args.d - i));
      _mm512_store_ps(group.out + r * a.dp + i, _mm512_setzero_ps());
    }
    group.sum[r] = _mm512_setzero_ps();
    group.limit[r] = args.limit[token];
    if (group.limit[r] < group.least) group.least = group.limit[r];
    if (group.limit[r] > group.most) group.most = group.limit[r];
  }
  _mm512_store_ps(group.max, _mm512_set1_ps(-__builtin_inff()));
}

void score(const Attention& a, int32_t block, const Group& group, Step& step) {
  const char* k = static_cast<const char*>(a.args.k_blocks[block]);
  const char* q = reinterpret_cast<const char*>(group.q);
  const int32_t q_stride = a.dp * 2, words = a.dp / 2;
  clear_sums();
  fence();
  int32_t word = 0;
  for (; word + kTileWords <= words; word += kTileWords) {
    const char* from = k + word * kRowBytes;
    _tile_loadd(4, q + word * kWord, q_stride);
    _tile_loadd(5, from, kRowBytes);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(5, from + 64, kRowBytes);
    _tile_dpbf16ps(1, 4, 5);
    _tile_loadd(5, from + 128, kRowBytes);
    _tile_dpbf16ps(2, 4, 5);
    _tile_loadd(5, from + 192, kRowBytes);
    _tile_dpbf16ps(3, 4, 5);
  }
  if (word < words) {
    const char* from = k + word * kRowBytes;
    _tile_loadd(6, q + word * kWord, q_stride);
    _tile_loadd(7, from, kRowBytes);
    _tile_dpbf16ps(0, 6, 7);
    _tile_loadd(7, from + 64, kRowBytes);
    _tile_dpbf16ps(1, 6, 7);
    _tile_loadd(7, from + 128, kRowBytes);
    _tile_dpbf16ps(2, 6, 7);
    _tile_loadd(7, from + 192, kRowBytes);
    _tile_dpbf16ps(3, 6, 7);
  }
  store_sums(step.scores);
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

// Scores become probabilities relative to the new maximum; `sum` and `out` of the group are brought to that maximum.
// kWhole: every row sees all keys of the block. `factor` is scale * log2(e): exp(scale s) = 2^(factor s).
template <bool kWhole>
void soften(const Attention& a, int32_t first_key, float factor, Group& group, Step& step) {
  using V = Avx512Vectors;
  const __m512 least = _mm512_set1_ps(-__builtin_inff());
  __m512 high[kTileRows];
  for (int32_t r = 0; r < kTileRows; ++r) {
    high[r] = least;
    if (r >= a.rows) continue;
    __m512 x[4];
    for (int32_t i = 0; i < 4; ++i) {
      float* s = step.scores + r * kBlock + 16 * i;
      x[i] = _mm512_mul_ps(_mm512_load_ps(s), _mm512_set1_ps(factor));
      if (!kWhole) x[i] = V::keep_first(x[i], group.limit[r] - first_key - 16 * i, least);
      _mm512_store_ps(s, x[i]);
    }
    high[r] = _mm512_max_ps(_mm512_max_ps(x[0], x[1]), _mm512_max_ps(x[2], x[3]));
  }
  const __m512 block_max = highest_of_rows(high), old_max = _mm512_load_ps(group.max);
  const __m512 max = _mm512_mask_mov_ps(old_max, _mm512_cmp_ps_mask(old_max, block_max, _CMP_LT_OQ), block_max);
  alignas(64) float shrink[kTileRows];
  _mm512_store_ps(shrink, V::exp2(_mm512_sub_ps(old_max, max)));
  _mm512_store_ps(group.max, max);
  for (int32_t r = 0; r < a.rows; ++r) {
    uint16_t* p = step.probabilities + r * kBlock;
    if (!kWhole && group.limit[r] <= first_key) {
      _mm512_store_si512(p, _mm512_setzero_si512());
      _mm512_store_si512(p + 32, _mm512_setzero_si512());
      continue;
    }
    const __m512 row_max = _mm512_set1_ps(group.max[r]);
    __m512 x[4];
    for (int32_t i = 0; i < 4; ++i) {
      x[i] = V::exp2(_mm512_sub_ps(_mm512_load_ps(step.scores + r * kBlock + 16 * i), row_max));
    }
    const __m512 sum = _mm512_add_ps(_mm512_add_ps(x[0], x[1]), _mm512_add_ps(x[2], x[3]));
    group.sum[r] = _mm512_fmadd_ps(group.sum[r], _mm512_set1_ps(shrink[r]), sum);
    _mm512_store_si512(p, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(x[1], x[0])));
    _mm512_store_si512(p + 32, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(x[3], x[2])));
    if (shrink[r] == 1.0f) continue;
    for (int32_t i = 0; i < a.dp; i += 16) {
      float* out = group.out + r * a.dp + i;
      _mm512_store_ps(out, _mm512_mul_ps(_mm512_load_ps(out), _mm512_set1_ps(shrink[r])));
    }
  }
}

// out += probabilities * values for the kTiles tiles of columns from `column` on.
template <int kTiles>
inline void add_columns(const Attention& a, const Step& step, const char* v, int32_t column, float* out) {
  const int32_t stride = a.dp * kWord;
  const char* p = reinterpret_cast<const char*>(step.probabilities);
  const char* b = v + column * kWord;
  float* sums = out + column;
  fence();
  _tile_loadd(0, sums, stride);
  if constexpr (kTiles > 1) _tile_loadd(1, sums + 16, stride);
  if constexpr (kTiles > 2) _tile_loadd(2, sums + 32, stride);
  if constexpr (kTiles > 3) _tile_loadd(3, sums + 48, stride);
  for (int32_t i = 0; i < kBlockSteps; ++i, p += 64, b += kTileWords * stride) {
    _tile_loadd(4, p, kBlock * 2);
    _tile_loadd(5, b, stride);
    _tile_dpbf16ps(0, 4, 5);
    if constexpr (kTiles > 1) {
      _tile_loadd(5, b + 64, stride);
      _tile_dpbf16ps(1, 4, 5);
    }
    if constexpr (kTiles > 2) {
      _tile_loadd(5, b + 128, stride);
      _tile_dpbf16ps(2, 4, 5);
    }
    if constexpr (kTiles > 3) {
      _tile_loadd(5, b + 192, stride);
      _tile_dpbf16ps(3, 4, 5);
    }
  }
  _tile_stored(0, sums, stride);
  if constexpr (kTiles > 1) _tile_stored(1, sums + 16, stride);
  if constexpr (kTiles > 2) _tile_stored(2, sums + 32, stride);
  if constexpr (kTiles > 3) _tile_stored(3, sums + 48, stride);
}

void add_values(const Attention& a, const Step& step, const void* values, float* out) {
  const char* v = static_cast<const char*>(values);
  int32_t column = 0;
  for (; column + 64 <= a.dp; column += 64) add_columns<4>(a, step, v, column, out);
  switch ((a.dp - column) / 16) {
    case 3: return add_columns<3>(a, step, v, column, out);
    case 2: return add_columns<2>(a, step, v, column, out);
    case 1: return add_columns<1>(a, step, v, column, out);
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

// The block for a group of which some row does not see all its keys. Their probabilities are zero; so their values do
// nothing, once those that no row sees are zero as well. Only where an infinite or NaN value is seen by some rows and
// not by others, each row needs values of its own: 0 * NaN would be NaN.
void add_seen_values(Attention& a, int32_t block, Step& step, Group& group) {
  const uint16_t* v = static_cast<const uint16_t*>(a.args.v_blocks[block]);
  const int32_t first_key = block * kBlock;
  if (copy_values(v, a.dp, group.least - first_key, group.most - first_key, a.values)) {
    return add_values(a, step, a.values, group.out);
  }
  Group one;
  for (int32_t r = 0; r < a.rows; ++r) {
    copy_values(v, a.dp, kBlock, group.limit[r] - first_key, a.values);
    __builtin_memcpy(one.out, group.out, sizeof(float) * static_cast<size_t>(a.rows * a.dp));
    add_values(a, step, a.values, one.out);
    fence();
    __builtin_memcpy(group.out + r * a.dp, one.out + r * a.dp, sizeof(float) * static_cast<size_t>(a.dp));
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

// All blocks for `count` groups.
void walk(Attention& a, int32_t count) {
  const float factor = a.args.scale * kLog2E;
  int32_t most = 0;
  for (int32_t i = 0; i < count; ++i) most = a.groups[i].most > most ? a.groups[i].most : most;
  const int32_t steps = (most + kBlock - 1) / kBlock * count;
  const auto seen = [&](int32_t i) { return a.groups[i % count].most > i / count * kBlock; };
  const auto next = [&](int32_t i) {
    do ++i;
    while (i < steps && !seen(i));
    return i;
  };
  int32_t now = 0, at = 0;
  score(a, 0, a.groups[0], a.steps[0]);
  while (now < steps) {
    const int32_t then = next(now), block = now / count, first_key = block * kBlock;
    Group& group = a.groups[now % count];
    Step& step = a.steps[at];
    at ^= 1;
    if (then < steps) score(a, then / count, a.groups[then % count], a.steps[at]);
    if (group.least >= first_key + kBlock) {
      soften<true>(a, first_key, factor, group, step);
      add_values(a, step, a.args.v_blocks[block], group.out);
    } else {
      soften<false>(a, first_key, factor, group, step);
      add_seen_values(a, block, step, group);
    }
    now = then;
  }
}

void attention(const AttentionArgs& args) noexcept {
  Attention a;
  a.args = args;
  a.rows = args.r1 - args.r0 < kTileRows ? args.r1 - args.r0 : kTileRows;
  a.dp = padded_head(args.d);
  if (a.rows <= 0) return;
  shape_attention(a.rows, a.dp / 2 % kTileWords);
  for (int32_t r0 = args.r0; r0 < args.r1; r0 += kGroups * kTileRows) {
    int32_t count = 0;
    for (int32_t r = r0; count < kGroups && r < args.r1; r += kTileRows) start(a, r, a.groups[count++]);
    walk(a, count);
    for (int32_t i = 0; i < count; ++i) finish(a, r0 + i * kTileRows, a.groups[i]);
  }
  _tile_release();
}

}  // namespace

const AmxKernels kAmxKernels = {gemm, attention};

}  // namespace idefics::kernels
