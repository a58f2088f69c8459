#include "kernels/packing.h"

#include <string.h>

#include "base/half.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace idefics::kernels {
namespace {

constexpr int32_t kChunk = 32;  // words of a row that are packed at a time: two cache lines read, kChunk lines written

template <typename T>
T load_as(const PackArgs& a, int64_t row, int32_t k) {
  T value;
  memcpy(&value, static_cast<const char*>(a.w) + (row * a.w_stride + k) * int64_t{sizeof value}, sizeof value);
  return value;
}

float load(const PackArgs& a, int64_t row, int32_t k) {
  return a.w_dtype == DType::kF32 ? load_as<float>(a, row, k) : bf16_to_f32(load_as<uint16_t>(a, row, k));
}

uint16_t load_bf16(const PackArgs& a, int64_t row, int32_t k) {
  if (k >= a.k) return 0;
  return a.w_dtype == DType::kBf16 ? load_as<uint16_t>(a, row, k) : f32_to_bf16(load_as<float>(a, row, k));
}

// A packed matrix is rows of kPanel 32-bit words: one f32 element, or the pair of bf16 elements k and k + 1.
uint32_t load_word(const PackArgs& a, int64_t row, int32_t word) {
  if (a.format == Format::kF32) return std::bit_cast<uint32_t>(load(a, row, word));
  return load_bf16(a, row, 2 * word) | (uint32_t{load_bf16(a, row, 2 * word + 1)} << 16);
}

int32_t words_of(int32_t k, Format format) { return format == Format::kF32 ? k : k / 2 + k % 2; }

// Words [word0, word1) of the columns [first, last), all of one panel.
void pack_words(const PackArgs& a, int32_t first, int32_t last, int32_t word0, int32_t word1, uint32_t* panel) {
  for (int32_t chunk = word0; chunk < word1; chunk += kChunk) {
    const int32_t end = chunk + kChunk < word1 ? chunk + kChunk : word1;
    for (int32_t n = first; n < last; ++n) {
      uint32_t* column = panel + n % kPanel;
      for (int32_t word = chunk; word < end; ++word) {
        column[int64_t{word} * kPanel] = n < a.n1 ? load_word(a, n - a.n0, word) : 0;
      }
    }
  }
}

struct Turned {
  int32_t columns, words;
};

#if defined(__SSE2__)

// Writes 4 words of 4 rows, `stride` bytes apart, as 4 columns of 4 words.
void turn_4x4(const char* rows, int64_t stride, uint32_t* column) {
  __m128 r[4];
  for (int i = 0; i < 4; ++i) r[i] = _mm_loadu_ps(reinterpret_cast<const float*>(rows + i * stride));
  _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]);
  for (int i = 0; i < 4; ++i) _mm_storeu_ps(reinterpret_cast<float*>(column + int64_t{i} * kPanel), r[i]);
}

// Words that are stored as they are packed need only be turned. Does so for the first columns of [first, last) and
// their first words, multiples of 4. 16 words at a time, a cache line of each row, so that the lines that are written
// in quarters are still in the first cache when their last quarter comes.
Turned turn(const PackArgs& a, int32_t first, int32_t last, uint32_t* panel) {
  if (a.format != Format(a.w_dtype)) return {0, 0};
  const int64_t stride = a.w_stride * (a.format == Format::kF32 ? 4 : 2);
  const char* w = static_cast<const char*>(a.w) + (first - a.n0) * stride;
  const Turned turned = {((last < a.n1 ? last : a.n1) - first) / 4 * 4,
                         (a.format == Format::kF32 ? a.k : a.k / 2) / 4 * 4};
  for (int32_t word0 = 0; word0 < turned.words; word0 += 16) {
    const int32_t word1 = word0 + 16 < turned.words ? word0 + 16 : turned.words;
    for (int32_t n = 0; n < turned.columns; n += 4) {
      uint32_t* column = panel + (first + n) % kPanel;
      for (int32_t word = word0; word < word1; word += 4) {
        turn_4x4(w + n * stride + int64_t{4} * word, stride, column + int64_t{word} * kPanel);
      }
    }
  }
  return turned;
}

#else

Turned turn(const PackArgs&, int32_t, int32_t, uint32_t*) { return {0, 0}; }

#endif

}  // namespace

const char* name_of(Format format) {
  switch (format) {
    case Format::kF32: return "f32";
    case Format::kBf16: return "bf16";
    case Format::kQ8: return "q8";
    case Format::kQ4: return "q4";
    case Format::kInt8: return "int8";
  }
  return "";
}

int32_t num_panels(int32_t n) { return n / kPanel + (n % kPanel != 0); }

size_t packed_bytes(int32_t n, int32_t k, Format format) {
  const auto panels = static_cast<size_t>(num_panels(n));
  switch (format) {
    case Format::kQ8: return panels * static_cast<size_t>(q8_panel_bytes(k));
    case Format::kQ4: return panels * static_cast<size_t>(q4_panel_bytes(k));
    case Format::kInt8: return panels * static_cast<size_t>(int8_panel_bytes(k));
    default: return size_t{4} * panels * kPanel * static_cast<size_t>(words_of(k, format));
  }
}

void pack(const PackArgs& a) {
  if (a.format.quantized()) return pack_quantized(a);
  const int32_t words = words_of(a.k, a.format);
  const int32_t end = a.n1 == a.n ? num_panels(a.n) * kPanel : a.n1;  // with the columns beyond N
  for (int32_t first = a.n0; first < end;) {                          // [first, last): columns of one panel
    const int32_t last = first / kPanel * kPanel + kPanel < end ? first / kPanel * kPanel + kPanel : end;
    uint32_t* panel = static_cast<uint32_t*>(a.packed) + int64_t{first / kPanel} * kPanel * words;
    const Turned turned = turn(a, first, last, panel);
    pack_words(a, first, first + turned.columns, turned.words, words, panel);
    pack_words(a, first + turned.columns, last, 0, words, panel);
    first = last;
  }
}

}  // namespace idefics::kernels
