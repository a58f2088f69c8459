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

// Columns [start, row_bytes) of one output row from `count` input rows.
void weigh_columns(const int32_t* weights, int count, const uint8_t* const* in, size_t row_bytes, size_t start,
                   uint8_t* out) {
  constexpr size_t kBlock = 1024;
  int32_t sums[kBlock];
  for (; start < row_bytes; start += kBlock) {
    const size_t columns = std::min(kBlock, row_bytes - start);
    std::fill_n(sums, columns, kHalf);
    for (int i = 0; i < count; ++i) {
      const uint8_t* from = in[i] + start;
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

// Sixteen columns, from `start` on, of one output row. The odd input row is paired with itself, its second weight 0.
void weigh_16_columns(const WeightPair* pairs, int count, const uint8_t* const* in, size_t start, uint8_t* out) {
  const __m128i zero = _mm_setzero_si128();
  __m128i hi[4] = {zero, zero, zero, zero}, lo[4] = {zero, zero, zero, zero};
  for (int i = 0; i < count; i += 2, ++pairs) {
    const __m128i a = load16(in[i] + start), b = load16(in[i + 1 < count ? i + 1 : i] + start);
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
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out + start), _mm_packus_epi16(left, right));
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

class HorizontalPass final : public RowPass {
 public:
  HorizontalPass(const Axis& axis, int in_width, int height)
      : RowPass(static_cast<int>(axis.windows.size()), height), axis_(pair_up(axis)), in_width_(in_width) {}
  int window() const override { return kBatch; }
  Scratch make_scratch() const override { return {std::vector<int16_t>(kBatch * stride()), {}}; }
  void compute(RowSource& in, int first, int count, Scratch& scratch, uint8_t* const* out) const override {
    int16_t* const laid_out = scratch.values.data();
    for (int r = 0; r < count; ++r)
      lay_out_pairs(in.row(first + r), in_width_, laid_out + static_cast<size_t>(r) * stride());
    if (count == kBatch) {
      weigh_pixels<kBatch>(axis_, laid_out, stride(), out);
    } else {
      for (int r = 0; r < count; ++r)
        weigh_pixels<1>(axis_, laid_out + static_cast<size_t>(r) * stride(), stride(), out + r);
    }
  }

 private:
  size_t stride() const { return 8 * ((static_cast<size_t>(in_width_) + 1) / 2); }

  PairedAxis axis_;
  int in_width_;
};

#else

class HorizontalPass final : public RowPass {
 public:
  HorizontalPass(const Axis& axis, int, int height)
      : RowPass(static_cast<int>(axis.windows.size()), height), axis_(axis) {}
  int window() const override { return 1; }
  void compute(RowSource& in, int first, int count, Scratch&, uint8_t* const* out) const override {
    for (int r = 0; r < count; ++r) weigh_row(in.row(first + r), out[r]);
  }

 private:
  void weigh_row(const uint8_t* in, uint8_t* out) const {
    const int32_t* weights = axis_.weights.data();
    for (const auto& [first, count] : axis_.windows) {
      int32_t sums[3] = {kHalf, kHalf, kHalf};
      const uint8_t* from = in + size_t{3} * static_cast<size_t>(first);
      for (int i = 0; i < count; ++i) {
        for (int c = 0; c < 3; ++c) sums[c] += *from++ * weights[i];
      }
      for (const int32_t sum : sums) *out++ = to_byte(sum);
      weights += axis_.taps;
    }
  }

  Axis axis_;
};

#endif

class VerticalPass final : public RowPass {
 public:
  VerticalPass(Axis axis, int width) : RowPass(width, static_cast<int>(axis.windows.size())), axis_(std::move(axis)) {
#if defined(__SSE2__)
    for (size_t y = 0; y < axis_.windows.size(); ++y) {
      const auto weight = [&](int i) { return i < axis_.windows[y].count ? weights(y)[i] : 0; };
      for (int i = 0; i < axis_.taps; i += 2) pairs_.push_back(make_pair(weight(i), weight(i + 1)));
    }
#endif
  }
  int window() const override { return axis_.taps; }
  Scratch make_scratch() const override { return {{}, std::vector<const uint8_t*>(static_cast<size_t>(axis_.taps))}; }
  void compute(RowSource& in, int first, int count, Scratch& scratch, uint8_t* const* out) const override {
    for (int r = 0; r < count; ++r) weigh_row(in, static_cast<size_t>(first + r), scratch.rows, out[r]);
  }

 private:
  const int32_t* weights(size_t y) const { return axis_.weights.data() + y * static_cast<size_t>(axis_.taps); }
  void weigh_row(RowSource& in, size_t y, std::vector<const uint8_t*>& rows, uint8_t* out) const {
    const auto [first, count] = axis_.windows[y];
    for (int i = 0; i < count; ++i) rows[static_cast<size_t>(i)] = in.row(first + i);
    const size_t row_bytes = size_t{3} * static_cast<size_t>(width());
    size_t done = 0;
#if defined(__SSE2__)
    const WeightPair* pairs = pairs_.data() + y * ((static_cast<size_t>(axis_.taps) + 1) / 2);
    for (; done + 16 <= row_bytes; done += 16) weigh_16_columns(pairs, count, rows.data(), done, out);
#endif
    weigh_columns(weights(y), count, rows.data(), row_bytes, done, out);
  }

  Axis axis_;
#if defined(__SSE2__)
  std::vector<WeightPair> pairs_;  // [outputs, (taps + 1) / 2]
#endif
};

}  // namespace

std::unique_ptr<const RowPass> horizontal_pass(const Axis& axis, int in_width, int height) {
  return std::make_unique<HorizontalPass>(axis, in_width, height);
}

std::unique_ptr<const RowPass> vertical_pass(Axis axis, int width) {
  return std::make_unique<VerticalPass>(std::move(axis), width);
}

}  // namespace idefics
