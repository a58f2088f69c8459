// The two passes, twice: with SSE2, which every x86-64 has, and in plain C++ for other processors and for tails.
//
// SSE2 multiplies 16-bit numbers, two products to a 32-bit sum at once (pmaddwd). A weight of up to 28 bits is
// therefore cut into hi * 2^12 + lo, 0 <= lo < 2^12, and each half is summed on its own: sum = (sum_hi << 12) + sum_lo,
// exact modulo 2^32, and so exact, since the whole sum fits 32 bits. With 32-bit multiplications, which SSE2 has to
// build from pieces, both passes took two to three times as long.
#include "image/resize_pass.h"

#include <algorithm>

#if defined(__SSE2__)
#include <emmintrin.h>

#include <cstring>
#endif

namespace idefics {
namespace {

constexpr int32_t kHalf = 1 << (kWeightBits - 1);

uint8_t to_byte(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kWeightBits, 0, 255)); }

// Columns [start, row_bytes) of one output row.
void weigh_columns(const int32_t* weights, int count, const uint8_t* in, size_t row_bytes, size_t start, uint8_t* out) {
  constexpr size_t kBlock = 1024;
  int32_t sums[kBlock];
  for (; start < row_bytes; start += kBlock) {
    const size_t columns = std::min(kBlock, row_bytes - start);
    std::fill_n(sums, columns, kHalf);
    for (int i = 0; i < count; ++i) {
      const uint8_t* from = in + static_cast<size_t>(i) * row_bytes + start;
      for (size_t j = 0; j < columns; ++j) sums[j] += from[j] * weights[i];
    }
    for (size_t j = 0; j < columns; ++j) out[start + j] = to_byte(sums[j]);
  }
}

#if defined(__SSE2__)

// Two neighbouring weights as the factors of pmaddwd.
struct WeightPair {
  int32_t hi, lo;  // each two 16-bit numbers, the first weight in the lower half
};

WeightPair make_pair(int32_t first, int32_t second) {
  const auto join = [](int32_t a, int32_t b) {
    return static_cast<int32_t>((static_cast<uint32_t>(a) & 0xFFFF) | static_cast<uint32_t>(b) << 16);
  };
  return {join(first >> 12, second >> 12), join(first & 0xFFF, second & 0xFFF)};
}

__m128i finish(__m128i hi, __m128i lo) {
  const __m128i sum = _mm_add_epi32(_mm_add_epi32(_mm_slli_epi32(hi, 12), lo), _mm_set1_epi32(kHalf));
  return _mm_srai_epi32(sum, kWeightBits);
}

__m128i load16(const uint8_t* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }

// Sixteen columns of one output row. `count` rows lie row_bytes apart; the odd one is paired with itself, its second
// weight 0.
void weigh_16_columns(const WeightPair* pairs, int count, const uint8_t* in, size_t row_bytes, uint8_t* out) {
  const __m128i zero = _mm_setzero_si128();
  __m128i hi[4] = {zero, zero, zero, zero}, lo[4] = {zero, zero, zero, zero};
  for (int i = 0; i < count; i += 2, ++pairs) {
    const uint8_t* from = in + static_cast<size_t>(i) * row_bytes;
    const __m128i a = load16(from), b = load16(i + 1 < count ? from + row_bytes : from);
    const __m128i left = _mm_unpacklo_epi8(a, b), right = _mm_unpackhi_epi8(a, b);
    const __m128i values[4] = {_mm_unpacklo_epi8(left, zero), _mm_unpackhi_epi8(left, zero),
                               _mm_unpacklo_epi8(right, zero), _mm_unpackhi_epi8(right, zero)};
    const __m128i weight_hi = _mm_set1_epi32(pairs->hi), weight_lo = _mm_set1_epi32(pairs->lo);
    for (int j = 0; j < 4; ++j) {
      hi[j] = _mm_add_epi32(hi[j], _mm_madd_epi16(values[j], weight_hi));
      lo[j] = _mm_add_epi32(lo[j], _mm_madd_epi16(values[j], weight_lo));
    }
  }
  const __m128i left = _mm_packs_epi32(finish(hi[0], lo[0]), finish(hi[1], lo[1]));
  const __m128i right = _mm_packs_epi32(finish(hi[2], lo[2]), finish(hi[3], lo[3]));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_packus_epi16(left, right));
}

// The weights of an axis for the horizontal pass: every window begins at an even pixel, so that the row can be laid out
// in pairs of pixels once.
struct PairedAxis {
  struct Window {
    int first_pair, num_pairs;
  };
  std::vector<Window> windows;
  std::vector<WeightPair> pairs;  // one window's after the other's
};

PairedAxis pair_up(const Axis& axis) {
  PairedAxis paired;
  for (size_t x = 0; x < axis.windows.size(); ++x) {
    const Axis::Window window = axis.windows[x];
    const int32_t* weights = axis.weights.data() + x * static_cast<size_t>(axis.taps);
    const auto weight = [&](int pixel) {
      return pixel >= window.first && pixel < window.first + window.count ? weights[pixel - window.first] : 0;
    };
    const int first_pair = window.first / 2, num_pairs = (window.first + window.count + 1) / 2 - first_pair;
    paired.windows.push_back({first_pair, num_pairs});
    for (int p = first_pair; p < first_pair + num_pairs; ++p)
      paired.pairs.push_back(make_pair(weight(2 * p), weight(2 * p + 1)));
  }
  return paired;
}

// A row of RGB pixels as 16-bit numbers r0 r1 g0 g1 b0 b1 0 0, r2 r3 ...
void lay_out_pairs(const uint8_t* row, int width, int16_t* pairs) {
  for (int x = 0; x + 1 < width; x += 2, row += 6, pairs += 8) {
    pairs[0] = row[0], pairs[1] = row[3];
    pairs[2] = row[1], pairs[3] = row[4];
    pairs[4] = row[2], pairs[5] = row[5];
    pairs[6] = 0, pairs[7] = 0;
  }
  if (width % 2 != 0) {
    for (int c = 0; c < 3; ++c) pairs[2 * c] = row[c], pairs[2 * c + 1] = 0;
    pairs[6] = 0, pairs[7] = 0;
  }
}

// kRows rows at once, which share the loads of the weights.
template <int kRows>
void weigh_pixels(const PairedAxis& axis, const int16_t* laid_out, size_t row_stride, uint8_t* const* out) {
  const __m128i zero = _mm_setzero_si128();
  const WeightPair* weight = axis.pairs.data();
  size_t at = 0;
  for (const auto& [first_pair, num_pairs] : axis.windows) {
    __m128i hi[kRows], lo[kRows];
    for (int r = 0; r < kRows; ++r) hi[r] = lo[r] = zero;
    const int16_t* from = laid_out + size_t{8} * static_cast<size_t>(first_pair);
    for (int p = 0; p < num_pairs; ++p, ++weight, from += 8) {
      const __m128i weight_hi = _mm_set1_epi32(weight->hi), weight_lo = _mm_set1_epi32(weight->lo);
      for (int r = 0; r < kRows; ++r) {
        const __m128i values =
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + static_cast<size_t>(r) * row_stride));
        hi[r] = _mm_add_epi32(hi[r], _mm_madd_epi16(values, weight_hi));
        lo[r] = _mm_add_epi32(lo[r], _mm_madd_epi16(values, weight_lo));
      }
    }
    for (int r = 0; r < kRows; ++r) {
      const __m128i words = _mm_packs_epi32(finish(hi[r], lo[r]), zero);
      const int32_t pixel = _mm_cvtsi128_si32(_mm_packus_epi16(words, zero));
      std::memcpy(out[r] + at, &pixel, 3);
    }
    at += 3;
  }
}

#endif

}  // namespace

void vertical_pass(const Axis& axis, const uint8_t* in, size_t row_bytes, uint8_t* out) {
#if defined(__SSE2__)
  std::vector<WeightPair> pairs;
#endif
  for (size_t y = 0; y < axis.windows.size(); ++y, out += row_bytes) {
    const auto [first, count] = axis.windows[y];
    const int32_t* weights = axis.weights.data() + y * static_cast<size_t>(axis.taps);
    const uint8_t* from = in + static_cast<size_t>(first) * row_bytes;
    size_t done = 0;
#if defined(__SSE2__)
    pairs.clear();
    for (int i = 0; i < count; i += 2) pairs.push_back(make_pair(weights[i], i + 1 < count ? weights[i + 1] : 0));
    for (; done + 16 <= row_bytes; done += 16)
      weigh_16_columns(pairs.data(), count, from + done, row_bytes, out + done);
#endif
    weigh_columns(weights, count, from, row_bytes, done, out);
  }
}

#if defined(__SSE2__)

void horizontal_pass(const Axis& axis, const uint8_t* in, int in_width, int rows, uint8_t* out) {
  constexpr int kRows = 4;
  const PairedAxis paired = pair_up(axis);
  const size_t in_row = size_t{3} * static_cast<size_t>(in_width), out_row = 3 * axis.windows.size();
  const size_t stride = 8 * ((static_cast<size_t>(in_width) + 1) / 2);
  std::vector<int16_t> laid_out(kRows * stride);
  int y = 0;
  for (; y + kRows <= rows; y += kRows) {
    uint8_t* outs[kRows];
    for (int r = 0; r < kRows; ++r) {
      const auto row = static_cast<size_t>(y + r);
      lay_out_pairs(in + row * in_row, in_width, laid_out.data() + static_cast<size_t>(r) * stride);
      outs[r] = out + row * out_row;
    }
    weigh_pixels<kRows>(paired, laid_out.data(), stride, outs);
  }
  for (; y < rows; ++y) {
    uint8_t* const row_out = out + static_cast<size_t>(y) * out_row;
    lay_out_pairs(in + static_cast<size_t>(y) * in_row, in_width, laid_out.data());
    weigh_pixels<1>(paired, laid_out.data(), stride, &row_out);
  }
}

#else

void horizontal_pass(const Axis& axis, const uint8_t* in, int in_width, int rows, uint8_t* out) {
  for (int y = 0; y < rows; ++y, in += size_t{3} * static_cast<size_t>(in_width)) {
    const int32_t* weights = axis.weights.data();
    for (const auto& [first, count] : axis.windows) {
      int32_t sums[3] = {kHalf, kHalf, kHalf};
      const uint8_t* from = in + size_t{3} * static_cast<size_t>(first);
      for (int i = 0; i < count; ++i) {
        for (int c = 0; c < 3; ++c) sums[c] += *from++ * weights[i];
      }
      for (const int32_t sum : sums) *out++ = to_byte(sum);
      weights += axis.taps;
    }
  }
}

#endif

}  // namespace idefics
