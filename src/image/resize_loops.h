// The inner loops of both passes of a resize, once for each set of vector instructions. Every one gives the same bytes,
// so the fastest that the CPU has is taken, whatever level the kernels of the model have. Inside this room only.
//
// The instructions multiply 16-bit numbers, two products to a 32-bit sum at once (pmaddwd). A weight of up to 28 bits
// is therefore cut into hi * 2^12 + lo, 0 <= lo < 2^12, and each half is summed on its own: sum = (sum_hi << 12) +
// sum_lo, exact modulo 2^32, and so exact, since the whole sum fits 32 bits. With 32-bit multiplications, which SSE2
// has to build from pieces, both passes took two to three times as long.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace idefics {

// Fraction bits of a weight: 32 less 8 of the pixel and 2 for overshoot.
constexpr int kWeightBits = 22;

// Two neighbouring weights as the factors of pmaddwd.
struct WeightPair {
  int32_t hi, lo;  // each two 16-bit numbers, the first weight in the lower half
};

// The inputs of one output, in pairs: input 2 * first_pair is the first one.
struct PairWindow {
  int32_t first_pair, num_pairs;
};

struct ResizeLoops {
  static constexpr int kRows = 4;  // that lay_out and weigh_pixels see side by side

  const char* name;

  // One output row from `count` input rows of row_bytes bytes, of which the last, when their number is odd, is paired
  // with itself and a weight of 0. Says how many columns are done: all, or none when a row is shorter than a vector.
  size_t (*weigh_rows)(const WeightPair* pairs, int count, const uint8_t* const* in, size_t row_bytes, uint8_t* out);

  // A row of `width` RGB pixels as 16-bit numbers r0 r1 g0 g1 b0 b1 0 0, for row `row` of kRows.
  //   laid_out  [ceil(width / 2), kRows, 8]
  void (*lay_out)(const uint8_t* rgb, int width, int row, int16_t* laid_out);

  // num_windows pixels of each of the first `rows` rows of `laid_out`.
  //   weights  those of one window after those of the other
  //   out      [rows] rows of num_windows RGB pixels
  void (*weigh_pixels)(const PairWindow* windows, size_t num_windows, const WeightPair* weights,
                       const int16_t* laid_out, int rows, uint8_t* const* out);
};

// Those that this CPU can run, the fastest first. None on other processors than x86-64.
std::span<const ResizeLoops* const> resize_loops();

}  // namespace idefics
