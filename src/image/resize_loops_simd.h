// The loops of resize_loops.h over vectors of any width. Included by one file for each set of instructions, which
// defines `Simd` first, in an anonymous namespace: what is compiled with the flags of a level must not be seen by
// others. Of the standard library only functions that are always inlined or external may be used here.
#pragma once

#include <cstring>

#include "image/resize_loops.h"

namespace idefics {
namespace {

inline Simd::Reg finish(Simd::Reg hi, Simd::Reg lo) {
  const Simd::Reg sum = Simd::add(Simd::add(Simd::shift_left<12>(hi), lo), Simd::broadcast(1 << (kWeightBits - 1)));
  return Simd::shift_right<kWeightBits>(sum);
}

// A vector of columns, from `start` on. Unpacking and packing both work inside of 128 bits, so columns end up where
// they were.
inline void weigh_columns_at(const WeightPair* pairs, int count, const uint8_t* const* in, size_t start, uint8_t* out) {
  using Reg = Simd::Reg;
  const Reg zero = Simd::zero();
  Reg hi[4] = {zero, zero, zero, zero}, lo[4] = {zero, zero, zero, zero};
  for (int i = 0; i < count; i += 2, ++pairs) {
    const Reg a = Simd::load(in[i] + start), b = Simd::load(in[i + 1 < count ? i + 1 : i] + start);
    const Reg left = Simd::unpack_low(a, b), right = Simd::unpack_high(a, b);
    const Reg values[4] = {Simd::unpack_low(left, zero), Simd::unpack_high(left, zero), Simd::unpack_low(right, zero),
                           Simd::unpack_high(right, zero)};
    const Reg weight_hi = Simd::broadcast(pairs->hi), weight_lo = Simd::broadcast(pairs->lo);
    for (int j = 0; j < 4; ++j) {
      hi[j] = Simd::add(hi[j], Simd::multiply_pairs(values[j], weight_hi));
      lo[j] = Simd::add(lo[j], Simd::multiply_pairs(values[j], weight_lo));
    }
  }
  const Reg left = Simd::pack32(finish(hi[0], lo[0]), finish(hi[1], lo[1]));
  const Reg right = Simd::pack32(finish(hi[2], lo[2]), finish(hi[3], lo[3]));
  Simd::store(out + start, Simd::pack16(left, right));
}

// The last vector ends where the row does and computes some columns once more.
inline size_t weigh_rows(const WeightPair* pairs, int count, const uint8_t* const* in, size_t row_bytes, uint8_t* out) {
  constexpr size_t kBytes = sizeof(Simd::Reg);
  if (row_bytes < kBytes) return 0;
  for (size_t start = 0; start + kBytes <= row_bytes; start += kBytes) weigh_columns_at(pairs, count, in, start, out);
  if (row_bytes % kBytes != 0) weigh_columns_at(pairs, count, in, row_bytes - kBytes, out);
  return row_bytes;
}

// Two pixels as pairs of 16 bits, channel by channel. May read 16 bytes.
inline void lay_out_pair(const uint8_t* rgb, int16_t* pair) {
#if defined(__SSSE3__)
  const __m128i places = _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rgb));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(pair), _mm_shuffle_epi8(bytes, places));
#else
  pair[0] = rgb[0], pair[1] = rgb[3];
  pair[2] = rgb[1], pair[3] = rgb[4];
  pair[4] = rgb[2], pair[5] = rgb[5];
  pair[6] = 0, pair[7] = 0;
#endif
}

inline void lay_out(const uint8_t* rgb, int width, int row, int16_t* laid_out) {
  int16_t* pair = laid_out + 8 * row;
  int x = 0;
  // 16 bytes are loaded for each pair: five pixels and a byte.
  for (; x + 6 <= width; x += 2, rgb += 6, pair += 8 * ResizeLoops::kRows) lay_out_pair(rgb, pair);
  for (; x < width; x += 2, rgb += 6, pair += 8 * ResizeLoops::kRows) {
    for (int c = 0; c < 3; ++c) {
      pair[2 * c] = rgb[c];
      pair[2 * c + 1] = x + 1 < width ? rgb[3 + c] : int16_t{0};
    }
    pair[6] = pair[7] = 0;
  }
}

inline void weigh_pixels(const PairWindow* windows, size_t num_windows, const WeightPair* weight,
                         const int16_t* laid_out, int rows, uint8_t* const* out) {
  using Reg = Simd::Reg;
  constexpr int kBytes = sizeof(Reg), kRegs = 16 * ResizeLoops::kRows / kBytes;  // a row has 128 bits
  const Reg zero = Simd::zero();
  for (size_t x = 0; x < num_windows; ++x) {
    Reg hi[kRegs], lo[kRegs];
    for (int r = 0; r < kRegs; ++r) hi[r] = lo[r] = zero;
    const int16_t* from = laid_out + ptrdiff_t{8 * ResizeLoops::kRows} * windows[x].first_pair;
    for (int p = 0; p < windows[x].num_pairs; ++p, ++weight, from += 8 * ResizeLoops::kRows) {
      const Reg weight_hi = Simd::broadcast(weight->hi), weight_lo = Simd::broadcast(weight->lo);
      for (int r = 0; r < kRegs; ++r) {
        const Reg values = Simd::load(from + r * (kBytes / 2));
        hi[r] = Simd::add(hi[r], Simd::multiply_pairs(values, weight_hi));
        lo[r] = Simd::add(lo[r], Simd::multiply_pairs(values, weight_lo));
      }
    }
    alignas(64) uint8_t pixels[ResizeLoops::kRows][16];
    for (int r = 0; r < kRegs; ++r)
      Simd::store(&pixels[r * kBytes / 16][0], Simd::pack16(Simd::pack32(finish(hi[r], lo[r]), zero), zero));
    // Four bytes at once, where the next pixel overwrites the fourth.
    const size_t bytes = x + 1 < num_windows ? 4 : 3;
    for (int r = 0; r < rows; ++r) {
      if (bytes == 4) {
        std::memcpy(out[r] + 3 * x, pixels[r], 4);
      } else {
        std::memcpy(out[r] + 3 * x, pixels[r], 3);
      }
    }
  }
}

}  // namespace
}  // namespace idefics
