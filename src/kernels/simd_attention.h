// Attention as a template over vector operations; linkage and Simd as in kernels/simd.h.
//
// A tile of rows walks over the blocks together. For each block and group of at most Simd::kMaxRows rows: scores by the
// micro kernel on K, probabilities by an online softmax, and the micro kernel again on V.
//
// What Simd adds for this:
//   kMaxRows                                 rows of the micro kernel
//   kPerFloat<Type>                          elements in a float slot of its left operand: 2 where it takes pairs of
//   bf16 store_operand<Type>(p, x)                kLanes values, rounded to Type, as left operand; kLanes / kPerFloat
//   slots multiply_zero<Type>(rows, cols, product) and multiply_add<Type>: the micro kernel; cols a multiple of 16
//   words add_even(sum, p, pairs)                  sum + p[0] * the even bf16 of kLanes pairs, the odd ones being cut
//   off
//   widen(from, count, to)                         int8 to the same numbers in bf16; count a multiple of 64
#pragma once

#include "kernels/simd.h"

namespace idefics::kernels {
namespace {

// out[r][c] (= or +=) sum over w of a[r][w] * b[w][c]. Strides in bytes for a and b, in floats for out.
struct Product {
  const float* a;  // left operand: the slots of `words` words in each row
  const char* b;   // rows of words
  float* out;
  int64_t a_stride, b_stride, out_stride;
  int32_t words;  // at least 1
};

// A block is read from L2 once for this many rows.
constexpr int32_t kTileRows = 24;

// The state of the rows between two blocks. Rows lie as close as the head in hand allows: at a stride of 1 KiB they
// would share a few sets of the cache.
template <typename Simd>
struct Tile {
  alignas(64) float q[kTileRows * kMaxHead];    // [rows][q_slots] left operand
  alignas(64) float out[kTileRows * kMaxHead];  // [rows][dp] sum of probability * value, relative to `max`
  typename Simd::Vector sum[kTileRows];         // sums of probabilities, relative to `max`, one for each lane
  float max[kTileRows];
  int32_t limit[kTileRows];
  int32_t rows, dp, q_slots;
};

// The rows of a tile that are multiplied together, and what they see of the block in hand.
template <typename Simd>
struct Group {
  alignas(64) float scores[Simd::kMaxRows * kBlock];  // then probabilities, as left operand, with the same stride
  int32_t keys[Simd::kMaxRows];                       // how many keys of the block each row sees; 0 or less: none
  int32_t first, rows;                                // rows of the tile
};

// What a block is to the rows: keys and values as the micro kernel wants them, and the scales of q8.
struct Block {
  const char *k, *v;
  const float *k_scale, *v_scale;  // [kBlock] or null
};

template <typename Simd, typename Type>
void start(const AttentionArgs& a, int32_t r0, int32_t rows, Tile<Simd>& tile) {
  constexpr int32_t kPerFloat = Simd::template kPerFloat<Type>;
  tile.rows = rows;
  tile.dp = padded_head(a.d);
  tile.q_slots = tile.dp / kPerFloat;
  for (int32_t r = 0; r < rows; ++r) {
    const int32_t token = (r0 + r) / a.group, head = (r0 + r) % a.group;
    const int64_t q = token * a.q_stride + int64_t{head} * a.d;
    for (int32_t i = 0; i < tile.dp; i += Simd::kLanes) {
      Simd::template store_operand<Type>(tile.q + r * tile.q_slots + i / kPerFloat,
                                         Simd::load_first(a.q, a.q_dtype, q + i, a.d - i));
      Simd::store(tile.out + r * tile.dp + i, Simd::zero());
    }
    tile.sum[r] = Simd::zero();
    tile.max[r] = -__builtin_inff();
    tile.limit[r] = a.limit[token];
  }
}

// Scales and hides scores; returns for each row the new maximum of the row.
template <typename Simd, bool kQ8>
inline void mask_scores(Group<Simd>& group, const Block& block, float factor, const Tile<Simd>& tile, float* max) {
  const auto least = Simd::set(-__builtin_inff());
  for (int32_t r = 0; r < group.rows; ++r) {
    auto high = least;
    for (int32_t c = 0; c < kBlock; c += Simd::kLanes) {
      float* s = group.scores + r * kBlock + c;
      auto score = Simd::load(s);
      if (kQ8) score = Simd::mul(score, Simd::load(block.k_scale + c));
      const auto x = Simd::keep_first(Simd::mul(score, Simd::set(factor)), group.keys[r] - c, least);
      Simd::store(s, x);
      high = Simd::max(high, x);
    }
    const float block_max = Simd::highest(high), old_max = tile.max[group.first + r];
    max[r] = old_max < block_max ? block_max : old_max;
  }
}

// Scores become probabilities relative to the new maximum; `sum` and `out` of the tile are brought to that maximum.
// `factor` is scale * log2(e): exp(scale s) = 2^(factor s).
template <typename Simd, typename Type, bool kQ8>
void soften(Group<Simd>& group, const Block& block, float factor, Tile<Simd>& tile) {
  constexpr int32_t kPerFloat = Simd::template kPerFloat<Type>;
  static_assert(Simd::kMaxRows <= Simd::kLanes);
  alignas(64) float max[Simd::kLanes] = {};
  alignas(64) float shrink[Simd::kLanes];
  mask_scores<Simd, kQ8>(group, block, factor, tile, max);
  const auto old_max = Simd::load_first(tile.max + group.first, group.rows);
  Simd::store(shrink, Simd::exp2(Simd::sub(old_max, Simd::load(max))));
  for (int32_t r = 0; r < group.rows; ++r) {
    if (group.keys[r] <= 0) continue;
    float* s = group.scores + r * kBlock;
    const int32_t row = group.first + r;
    auto sum = Simd::zero();
    for (int32_t c = 0; c < kBlock; c += Simd::kLanes) {
      auto p = Simd::exp2(Simd::sub(Simd::load(s + c), Simd::set(max[r])));
      sum = Simd::add(sum, p);
      // The scale of a hidden key may be anything.
      if (kQ8) p = Simd::keep_first(Simd::mul(p, Simd::load(block.v_scale + c)), group.keys[r] - c, Simd::zero());
      Simd::template store_operand<Type>(s + c / kPerFloat, p);
    }
    tile.max[row] = max[r];
    tile.sum[row] = Simd::fma(tile.sum[row], Simd::set(shrink[r]), sum);
    if (shrink[r] == 1.0f) continue;
    for (int32_t i = 0; i < tile.dp; i += Simd::kLanes) {
      float* out = tile.out + row * tile.dp + i;
      Simd::store(out, Simd::mul(Simd::load(out), Simd::set(shrink[r])));
    }
  }
}

// out[r0 .. r0 + rows) of the group += probabilities * values, over the words [word0, word1) of keys.
template <typename Simd, typename Type>
inline void add_values(const Group<Simd>& group, int32_t r0, int32_t rows, int32_t word0, int32_t word1, const char* v,
                       Tile<Simd>& tile) {
  constexpr int32_t kSlots = Type::kPerWord / Simd::template kPerFloat<Type>;  // in a word
  const int64_t v_stride = int64_t{tile.dp} * kWord;
  Simd::template multiply_add<Type>(
      rows, tile.dp,
      {group.scores + r0 * kBlock + word0 * kSlots, v + word0 * v_stride, tile.out + (group.first + r0) * tile.dp,
       kBlock * int64_t{sizeof(float)}, v_stride, tile.dp, word1 - word0});
}

// out[r] += probability * value of the last key that the row sees, when the other half of its pair is hidden. That half
// may hold anything, so it is cut off: 0 * NaN would be NaN.
template <typename Simd>
inline void add_last_value(const Group<Simd>& group, int32_t r, const char* v, Tile<Simd>& tile) {
  const int32_t pair = group.keys[r] / 2;
  const float* p = group.scores + r * kBlock + pair * 2 / Simd::template kPerFloat<Bf16>;
  for (int32_t i = 0; i < tile.dp; i += Simd::kLanes) {
    float* out = tile.out + (group.first + r) * tile.dp + i;
    Simd::store(out, Simd::add_even(Simd::load(out), p, v + (int64_t{pair} * tile.dp + i) * kWord));
  }
}

// Each row adds exactly the keys that it sees, in increasing order: together as far as all rows see, then one by one.
template <typename Simd, typename Type>
void add_seen_values(const Group<Simd>& group, const char* v, Tile<Simd>& tile) {
  constexpr int32_t kWords = kBlock / Type::kPerWord;
  int32_t common = kWords;
  for (int32_t r = 0; r < group.rows; ++r) {
    const int32_t words = group.keys[r] <= 0 ? 0 : group.keys[r] / Type::kPerWord;
    if (words < common) common = words;
  }
  if (common > 0) add_values<Simd, Type>(group, 0, group.rows, 0, common, v, tile);
  if (common == kWords) return;
  for (int32_t r = 0; r < group.rows; ++r) {
    if (group.keys[r] <= 0) continue;
    const int32_t words = group.keys[r] / Type::kPerWord;
    if (words > common) add_values<Simd, Type>(group, r, 1, common, words, v, tile);
    if (group.keys[r] % Type::kPerWord != 0) add_last_value(group, r, v, tile);
  }
}

template <typename Simd, typename Type, bool kQ8>
void add_block(const AttentionArgs& a, int32_t number, const Block& block, Tile<Simd>& tile) {
  Group<Simd> group;
  for (group.first = 0; group.first < tile.rows; group.first += group.rows) {
    group.rows = next_rows(tile.rows - group.first, Simd::kMaxRows);
    bool seen = false;
    for (int32_t r = 0; r < group.rows; ++r) {
      const int32_t rest = tile.limit[group.first + r] - number * kBlock;
      group.keys[r] = rest < kBlock ? rest : kBlock;
      seen = seen || rest > 0;
    }
    if (!seen) continue;
    Simd::template multiply_zero<Type>(
        group.rows, kBlock,
        {tile.q + group.first * tile.q_slots, block.k, group.scores, tile.q_slots * int64_t{sizeof(float)},
         int64_t{kBlock} * kWord, kBlock, words_of<Type>(a.d)});
    soften<Simd, Type, kQ8>(group, block, a.scale * kLog2E, tile);
    add_seen_values<Simd, Type>(group, block.v, tile);
  }
}

template <typename Simd>
int32_t most_seen(const Tile<Simd>& tile) {
  int32_t most = 0;
  for (int32_t r = 0; r < tile.rows; ++r) most = tile.limit[r] > most ? tile.limit[r] : most;
  return most;
}

template <typename Simd>
void finish(const AttentionArgs& a, int32_t r0, const Tile<Simd>& tile) {
  for (int32_t r = 0; r < tile.rows; ++r) {
    const int32_t token = (r0 + r) / a.group, head = (r0 + r) % a.group;
    const auto sum = Simd::set(Simd::sum(tile.sum[r]));
    for (int32_t i = 0; i < a.d; i += Simd::kLanes) {
      Simd::store_first(a.y, a.y_dtype, token * a.y_stride + int64_t{head} * a.d + i, a.d - i,
                        Simd::div(Simd::load(tile.out + r * tile.dp + i), sum));
    }
  }
}

// A block of q8 as bf16, for all rows of a tile.
struct Widened {
  alignas(64) uint16_t k[kBlock * kMaxHead];
  alignas(64) uint16_t v[kBlock * kMaxHead];
};

template <typename Simd>
Block widen_block(const AttentionArgs& a, int32_t number, Widened& to) {
  const int32_t count = kBlock * padded_head(a.d);
  const auto* k = static_cast<const int8_t*>(a.k_blocks[number]);
  const auto* v = static_cast<const int8_t*>(a.v_blocks[number]);
  Simd::widen(k, count, to.k);
  Simd::widen(v, count, to.v);
  return {reinterpret_cast<const char*>(to.k), reinterpret_cast<const char*>(to.v),
          reinterpret_cast<const float*>(k + count), reinterpret_cast<const float*>(v + count)};
}

template <typename Simd>
void attention_q8(const AttentionArgs& args) noexcept {
  const AttentionArgs a = args;
  Tile<Simd> tile;
  Widened widened;
  for (int32_t r0 = a.r0; r0 < a.r1; r0 += kTileRows) {
    start<Simd, Bf16>(a, r0, a.r1 - r0 < kTileRows ? a.r1 - r0 : kTileRows, tile);
    const int32_t most = most_seen(tile);
    for (int32_t number = 0; number * kBlock < most; ++number) {
      add_block<Simd, Bf16, true>(a, number, widen_block<Simd>(a, number, widened), tile);
    }
    finish(a, r0, tile);
  }
}

template <typename Simd, typename Type>
void attention(const AttentionArgs& args) noexcept {
  const AttentionArgs a = args;
  Tile<Simd> tile;
  for (int32_t r0 = a.r0; r0 < a.r1; r0 += kTileRows) {
    start<Simd, Type>(a, r0, a.r1 - r0 < kTileRows ? a.r1 - r0 : kTileRows, tile);
    const int32_t most = most_seen(tile);
    for (int32_t number = 0; number * kBlock < most; ++number) {
      const Block block = {static_cast<const char*>(a.k_blocks[number]), static_cast<const char*>(a.v_blocks[number]),
                           nullptr, nullptr};
      add_block<Simd, Type, false>(a, number, block, tile);
    }
    finish(a, r0, tile);
  }
}

// A row of d elements of dtype, from x[at] on, as floats: where it lies, or in `room`.
template <typename Simd>
inline const float* as_floats(const void* x, DType dtype, int64_t at, int32_t d, float* room) {
  if (dtype == DType::kF32) return static_cast<const float*>(x) + at;
  for (int32_t i = 0; i < d; i += Simd::kLanes) Simd::store(room + i, Simd::load_first(x, dtype, at + i, d - i));
  return room;
}

// A row of d floats as q8: d integers, zeros up to padded_head(d), and their scale.
template <typename Simd>
inline float quantize_head(const float* x, int32_t d, int8_t* to) {
  auto most = Simd::zero(), difference = Simd::zero();  // NaN where x is not finite
  for (int32_t i = 0; i < d; i += Simd::kLanes) {
    const auto some = Simd::load_first(x + i, d - i);
    most = Simd::max(most, Simd::max(some, Simd::sub(Simd::zero(), some)));
    difference = Simd::add(difference, Simd::sub(some, some));
  }
  const float highest = Simd::highest(most);
  const bool finite = Simd::sum(difference) == 0.0f;
  const float inverse = finite && highest >= 0x1p-100f ? 127.0f / highest : 0.0f;
  for (int32_t i = 0; i < padded_head(d); i += Simd::kLanes) {
    // 1.5 2^23 + n: the step of such floats is 1, and their lowest byte is that of n.
    alignas(64) float sums[Simd::kLanes];
    auto some = Simd::load_first(x + i, d - i);
    if (!finite) some = Simd::zero();
    Simd::store(sums, Simd::fma(some, Simd::set(inverse), Simd::set(12582912.0f)));
    for (int32_t j = 0; j < Simd::kLanes; ++j) __builtin_memcpy(to + i + j, sums + j, 1);
  }
  return !finite ? __builtin_nanf("") : inverse == 0.0f ? 0.0f : highest / 127.0f;
}

// Bytes, since the neighbours in a pair may be written by another thread.
template <typename Simd>
void store_q8(const KvStoreArgs& a, int32_t slot, const float* key, const float* value) {
  const int32_t dp = padded_head(a.d);
  auto* k = static_cast<int8_t*>(a.k_block);
  auto* v = static_cast<int8_t*>(a.v_block);
  alignas(64) int8_t keys[kMaxHead], values[kMaxHead];
  const float k_scale = quantize_head<Simd>(key, a.d, keys), v_scale = quantize_head<Simd>(value, a.d, values);
  for (int32_t i = 0; i < dp; i += 2) __builtin_memcpy(k + (i / 2 * kBlock + slot) * 2, keys + i, 2);
  for (int32_t i = 0; i < dp; ++i) v[(slot / 2 * dp + i) * 2 + slot % 2] = values[i];
  __builtin_memcpy(k + kBlock * dp + 4 * slot, &k_scale, sizeof(k_scale));
  __builtin_memcpy(v + kBlock * dp + 4 * slot, &v_scale, sizeof(v_scale));
}

}  // namespace
}  // namespace idefics::kernels
