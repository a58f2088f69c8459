// Products with q8 and q4 matrices, as templates over a struct of vector operations (kernels/simd.h, whose rule of
// internal linkage holds here too). Only the unpacking differs between the two: a group of weights becomes small
// integers as floats, and scales are applied to the sums of a group. So the integers are exact, and many rows share the
// unpacking, while one row multiplies what it has just unpacked.
//
// A struct Simd has, besides what kernels/simd.h asks for,
//   kGroupRows, kGroupCols                  sums of the micro kernel: rows x vectors
//   even_of(x) odd_of(x)                    the bf16 with even (odd) index of kLanes pairs, widened
//   load_bf16(p)                            kLanes bf16, widened
//   load_int8(p)                            kLanes int8 as floats
//   Words, load_words(p), nibble(words, j)  kLanes words; 4 bits of each, less 8, as floats
#pragma once

#include <immintrin.h>

#include "kernels/simd.h"

namespace idefics::kernels {
namespace {

constexpr int32_t kPairs = kGroup / 2;  // of inputs in a group

// ---- the two forms

struct Q8 {
  static int64_t panel_bytes(int32_t k) { return q8_panel_bytes(k); }
  static int64_t first_group(int32_t) { return 0; }
  static constexpr int64_t kGroupBytes = kGroup * kPanel + 2 * kPanel;
  static constexpr int64_t kScale = kGroup * kPanel;  // where the scales of a group begin
  static constexpr bool kOffset = false;

  // f(p, odd, c, values): input 2 p + odd of the group, columns [c, c + kLanes); all inputs for the columns [c0, c1).
  // `odd` is a constant wherever f is called: sums that are chosen by it must stay in registers. begin(line): the
  // values in a line of 64 bytes are about to come.
  template <typename Simd, typename F, typename Begin>
  static inline __attribute__((always_inline)) void for_values(const char* group, int32_t c0, int32_t c1, F f,
                                                               Begin begin) {
    const int8_t* v = reinterpret_cast<const int8_t*>(group);
    for (int32_t p = 0; p < kPairs; ++p) {
      if (c0 == 0) begin(group + 2 * p * kPanel);
#pragma GCC unroll 8
      for (int32_t c = c0; c < c1; c += Simd::kLanes) f(p, 0, c, Simd::load_int8(v + 2 * p * kPanel + c));
      if (c0 == 0) begin(group + (2 * p + 1) * kPanel);
#pragma GCC unroll 8
      for (int32_t c = c0; c < c1; c += Simd::kLanes) f(p, 1, c, Simd::load_int8(v + (2 * p + 1) * kPanel + c));
    }
  }
};

struct Q4 {
  static int64_t panel_bytes(int32_t k) { return q4_panel_bytes(k); }
  static int64_t first_group(int32_t k) { return int64_t{num_groups(k, kGroup)} * 2 * kPanel; }
  static constexpr int64_t kGroupBytes = kGroup * kPanel / 2 + 2 * kPanel;
  static constexpr int64_t kScale = kGroup * kPanel / 2;
  static constexpr bool kOffset = true;

  template <typename Simd, typename F, typename Begin>
  static inline __attribute__((always_inline)) void for_values(const char* group, int32_t c0, int32_t c1, F f,
                                                               Begin begin) {
    for (int32_t i = 0; i < kGroup; i += 8) {
#pragma GCC unroll 8
      for (int32_t c = c0; c < c1; c += Simd::kLanes) {
        if (c * kWord % 64 == 0) begin(group + (i / 8 * kPanel + c) * kWord);
        const auto words = Simd::load_words(group + (i / 8 * kPanel + c) * kWord);
#pragma GCC unroll 8
        for (int32_t j = 0; j < 8; ++j) f((i + j) / 2, j % 2, c, Simd::nibble(words, j));
      }
    }
  }
};

// ---- operands

// The first `count` of 32 inputs as floats, and zeros: first those with even index, then those with odd.
template <typename Simd>
inline void split_group(const uint16_t* inputs, int32_t count, float* x) {
  const char* words = reinterpret_cast<const char*>(inputs);
  for (int32_t i = 0; i < kPairs; i += Simd::kLanes) {
    const auto pairs = Simd::load_first(reinterpret_cast<const float*>(words) + i, words_of<Bf16>(count) - i);
    Simd::store(x + i, Simd::even_of(pairs));
    Simd::store(x + kPairs + i, Simd::odd_of(pairs));
  }
}

// The same for group g of a row of the left operand.
template <typename Simd>
inline void split_group(const GemmArgs& a, int32_t m, int32_t g, float* x) {
  split_group<Simd>(static_cast<const uint16_t*>(a.a) + m * a.a_stride + g * kGroup, a.k - g * kGroup, x);
}

// sums [kRows][kPanel] = the offsets [groups][kPanel] times the sums over the groups of these rows, x [kRows][groups].
template <typename Simd, int kRows, int kCols>
void multiply_offsets(const float* x, int32_t groups, const uint16_t* offset, float* sums) {
  for (int32_t c0 = 0; c0 < kPanel; c0 += kCols * Simd::kLanes) {
    typename Simd::Vector sum[kRows][kCols];
    for (int r = 0; r < kRows; ++r) {
      for (int c = 0; c < kCols; ++c) sum[r][c] = Simd::zero();
    }
    for (int32_t g = 0; g < groups; ++g) {
      typename Simd::Vector y[kCols];
      for (int c = 0; c < kCols; ++c) y[c] = Simd::load_bf16(offset + g * kPanel + c0 + c * Simd::kLanes);
      for (int r = 0; r < kRows; ++r) {
        const auto one = Simd::set(x[r * int64_t{groups} + g]);
        for (int c = 0; c < kCols; ++c) sum[r][c] = Simd::fma(y[c], one, sum[r][c]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int c = 0; c < kCols; ++c) Simd::store(sums + r * kPanel + c0 + c * Simd::kLanes, sum[r][c]);
    }
  }
}

// Zero, or the offsets times the sums over the groups of each row.
template <typename Simd, typename Type>
void start_sums(const QuantGemmArgs& q, int32_t panel, int32_t m, int32_t rows, float* sums) {
  if (!Type::kOffset) {
    for (int32_t i = 0; i < rows * kPanel; i += Simd::kLanes) Simd::store(sums + i, Simd::zero());
    return;
  }
  const int32_t groups = num_groups(q.gemm.k, kGroup);
  const uint16_t* offset =
      reinterpret_cast<const uint16_t*>(static_cast<const char*>(q.gemm.b) + panel * Type::panel_bytes(q.gemm.k));
  const float* x = q.a_groups + int64_t{m} * groups;
  for (int32_t r = 0; r < rows;) {
    // Rows share an offset, which costs as much to load as two of them.
    const bool many = rows - r >= Simd::kGroupRows;
    const int32_t some = many ? Simd::kGroupRows : 1;
    const float* from = x + int64_t{r} * groups;
    many ? multiply_offsets<Simd, Simd::kGroupRows, Simd::kGroupCols>(from, groups, offset, sums + r * kPanel)
         : multiply_offsets<Simd, 1, 4>(from, groups, offset, sums + r * kPanel);
    r += some;
  }
}

// ---- many rows

// What a group adds to the sums [kRows][kPanel]: x and values are floats, [kRows][32] and [32][kPanel], even before
// odd; scale [kPanel]. `even` is room for kRows * kPanel floats.
template <typename Simd, int kRows, int kCols>
void multiply_group(const float* x, const float* values, const float* scale, float* even, float* sums) {
  using Vector = typename Simd::Vector;
  for (int32_t c0 = 0; c0 < kPanel; c0 += kCols * Simd::kLanes) {
    Vector dot[kRows][kCols];
    const float* a = x;
    const float* b = values + c0;
    for (int half = 0; half < 2; ++half) {
      for (int r = 0; r < kRows; ++r) {
        for (int c = 0; c < kCols; ++c) dot[r][c] = Simd::zero();
      }
      const float* const end = a + kPairs;
      do {
        Vector y[kCols];
        for (int c = 0; c < kCols; ++c) y[c] = Simd::load(b + c * Simd::kLanes);
        for (int r = 0; r < kRows; ++r) {
          const Vector one = Simd::set(a[r * kGroup]);
          for (int c = 0; c < kCols; ++c) dot[r][c] = Simd::fma(one, y[c], dot[r][c]);
        }
        ++a;
        b += kPanel;
      } while (a != end);
      if (half == 1) break;
      for (int r = 0; r < kRows; ++r) {
        for (int c = 0; c < kCols; ++c) Simd::store(even + (r * kCols + c) * Simd::kLanes, dot[r][c]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int c = 0; c < kCols; ++c) {
        float* sum = sums + r * kPanel + c0 + c * Simd::kLanes;
        const Vector both = Simd::add(Simd::load(even + (r * kCols + c) * Simd::kLanes), dot[r][c]);
        Simd::store(sum, Simd::fma(Simd::load(scale + c0 + c * Simd::kLanes), both, Simd::load(sum)));
      }
    }
  }
}

template <typename Simd>
inline void multiply_group(int32_t rows, const float* x, const float* values, const float* scale, float* even,
                           float* sums) {
  constexpr int kCols = Simd::kGroupCols;
  switch (rows) {
    case 1: return multiply_group<Simd, 1, kCols>(x, values, scale, even, sums);
    case 2: return multiply_group<Simd, 2, kCols>(x, values, scale, even, sums);
    case 3: return multiply_group<Simd, 3, kCols>(x, values, scale, even, sums);
    case 4: return multiply_group<Simd, 4, kCols>(x, values, scale, even, sums);
    case 5: return multiply_group<Simd, 5, kCols>(x, values, scale, even, sums);
    case 6: return multiply_group<Simd, 6, kCols>(x, values, scale, even, sums);
  }
}

// Rows that share an unpacked group, which costs as much as two of them; their sums fit into L1 beside it.
constexpr int32_t kSharedRows = 72;

template <typename Simd, typename Type>
void add_rows(const QuantGemmArgs& q, int32_t panel, int32_t m, int32_t rows, float* sums) {
  const GemmArgs& a = q.gemm;
  const int32_t groups = num_groups(a.k, kGroup);
  alignas(64) float values[kGroup * kPanel], x[kSharedRows * kGroup], scale[kPanel], even[Simd::kGroupRows * kPanel];
  const char* group = static_cast<const char*>(a.b) + panel * Type::panel_bytes(a.k) + Type::first_group(a.k);
  for (int32_t g = 0; g < groups; ++g, group += Type::kGroupBytes) {
    const auto keep = [&](int32_t p, int odd, int32_t c, typename Simd::Vector v) {
      Simd::store(values + (odd * kPairs + p) * kPanel + c, v);
    };
    Type::template for_values<Simd>(group, 0, kPanel, keep, [](const char*) {});
    const uint16_t* scales = reinterpret_cast<const uint16_t*>(group + Type::kScale);
    for (int32_t c = 0; c < kPanel; c += Simd::kLanes) Simd::store(scale + c, Simd::load_bf16(scales + c));
    for (int32_t r = 0; r < rows; ++r) split_group<Simd>(a, m + r, g, x + r * kGroup);
    for (int32_t r = 0; r < rows;) {
      const int32_t some = next_rows(rows - r, Simd::kGroupRows);
      multiply_group<Simd>(some, x + r * kGroup, values, scale, even, sums + r * kPanel);
      r += some;
    }
  }
}

// ---- one row

// Bytes that are fetched before they are needed: a line for each line that is used, since many at once fill the buffers
// that loads wait for, and in the order of the addresses. More than 2 to 3 KiB made it slower.
constexpr int64_t kAheadOfRow = 2048;

template <typename Simd, typename Type, int kCols>
void multiply_row(const float* x, const char* group, int32_t c0, float* sums) {
  typename Simd::Vector even_sum[kCols], odd_sum[kCols];
  for (int c = 0; c < kCols; ++c) even_sum[c] = odd_sum[c] = Simd::zero();
  const auto add = [&](int32_t p, int odd, int32_t c, typename Simd::Vector v) __attribute__((always_inline)) {
    const int column = (c - c0) / Simd::kLanes;
    auto& dot = odd == 0 ? even_sum[column] : odd_sum[column];
    dot = Simd::fma(Simd::set(x[odd * kPairs + p]), v, dot);
  };
  // Inlined at once: GCC 12 takes a function that only prefetches for one without effect, and drops its calls.
  const auto fetch = [](const char* line) __attribute__((always_inline)) {
    _mm_prefetch(line + kAheadOfRow, _MM_HINT_T0);
  };
  Type::template for_values<Simd>(group, c0, c0 + kCols * Simd::kLanes, add, fetch);
  for (int64_t i = Type::kScale; i < Type::kGroupBytes && c0 == 0; i += 64) fetch(group + i);
  const uint16_t* scale = reinterpret_cast<const uint16_t*>(group + Type::kScale) + c0;
  for (int c = 0; c < kCols; ++c) {
    float* sum = sums + c0 + c * Simd::kLanes;
    const auto both = Simd::add(even_sum[c], odd_sum[c]);
    Simd::store(sum, Simd::fma(Simd::load_bf16(scale + c * Simd::kLanes), both, Simd::load(sum)));
  }
}

template <typename Simd, typename Type>
void add_row(const QuantGemmArgs& q, int32_t panel, int32_t m, float* sums) {
  constexpr int kCols = 4;
  const GemmArgs& a = q.gemm;
  const int32_t groups = num_groups(a.k, kGroup);
  alignas(64) float x[kGroup];
  const char* group = static_cast<const char*>(a.b) + panel * Type::panel_bytes(a.k) + Type::first_group(a.k);
  for (int32_t g = 0; g < groups; ++g, group += Type::kGroupBytes) {
    split_group<Simd>(a, m, g, x);
    for (int32_t c = 0; c < kPanel; c += kCols * Simd::kLanes) multiply_row<Simd, Type, kCols>(x, group, c, sums);
  }
}

// ---- slots

template <typename Simd, typename Type>
void gemm_groups(const QuantGemmArgs& args) noexcept {
  const QuantGemmArgs q = args;
  const GemmArgs& a = q.gemm;
  alignas(64) float sums[kSharedRows * kPanel];
  for (int32_t panel = a.panel0; panel < a.panel1; ++panel) {
    for (int32_t m = a.m0; m < a.m1;) {
      const int32_t rows = next_rows(a.m1 - m, kSharedRows);
      start_sums<Simd, Type>(q, panel, m, rows, sums);
      rows == 1 ? add_row<Simd, Type>(q, panel, m, sums) : add_rows<Simd, Type>(q, panel, m, rows, sums);
      finish<Simd>(a, m, rows, panel, sums);
      m += rows;
    }
  }
}

template <typename Simd>
void group_sums(const GroupSumsArgs& args) noexcept {
  const GroupSumsArgs a = args;
  const int32_t groups = num_groups(a.k, kGroup);
  for (int32_t t = a.t0; t < a.t1; ++t) {
    for (int32_t g = 0; g < groups; ++g) {
      alignas(64) float x[kGroup];
      split_group<Simd>(a.x + t * a.x_stride + g * kGroup, a.k - g * kGroup, x);
      auto sum = Simd::load(x);
      for (int32_t i = Simd::kLanes; i < kGroup; i += Simd::kLanes) sum = Simd::add(sum, Simd::load(x + i));
      a.y[int64_t{t} * groups + g] = Simd::sum(sum);
    }
  }
}

}  // namespace
}  // namespace idefics::kernels
