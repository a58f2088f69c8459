#include "kernels/packing.h"

#include "base/half.h"

namespace idefics::kernels {
namespace {

constexpr int32_t kChunk = 32;  // words of a row that are turned at a time: two cache lines read, kChunk lines written

float load(const PackArgs& a, int64_t row, int32_t k) {
  const int64_t at = row * a.w_stride + k;
  if (a.w_dtype == DType::kF32) return static_cast<const float*>(a.w)[at];
  return bf16_to_f32(static_cast<const uint16_t*>(a.w)[at]);
}

uint16_t load_bf16(const PackArgs& a, int64_t row, int32_t k) {
  if (k >= a.k) return 0;
  const int64_t at = row * a.w_stride + k;
  if (a.w_dtype == DType::kBf16) return static_cast<const uint16_t*>(a.w)[at];
  return f32_to_bf16(static_cast<const float*>(a.w)[at]);
}

// A packed matrix is rows of kPanel 32-bit words: one f32 element, or the pair of bf16 elements k and k + 1.
uint32_t load_word(const PackArgs& a, int64_t row, int32_t word) {
  if (a.dtype == DType::kF32) return std::bit_cast<uint32_t>(load(a, row, word));
  return load_bf16(a, row, 2 * word) | (uint32_t{load_bf16(a, row, 2 * word + 1)} << 16);
}

int32_t words_of(int32_t k, DType dtype) { return dtype == DType::kF32 ? k : k / 2 + k % 2; }

}  // namespace

int32_t num_panels(int32_t n) { return n / kPanel + (n % kPanel != 0); }

size_t packed_bytes(int32_t n, int32_t k, DType dtype) {
  return size_t{4} * static_cast<size_t>(num_panels(n)) * kPanel * static_cast<size_t>(words_of(k, dtype));
}

void pack(const PackArgs& a) {
  const int32_t words = words_of(a.k, a.dtype);
  const int32_t end = a.n1 == a.n ? num_panels(a.n) * kPanel : a.n1;  // with the columns beyond N
  for (int32_t first = a.n0; first < end;) {                          // [first, last): columns of one panel
    const int32_t last = first / kPanel * kPanel + kPanel < end ? first / kPanel * kPanel + kPanel : end;
    uint32_t* panel = static_cast<uint32_t*>(a.packed) + int64_t{first / kPanel} * kPanel * words;
    for (int32_t word0 = 0; word0 < words; word0 += kChunk) {
      const int32_t word1 = word0 + kChunk < words ? word0 + kChunk : words;
      for (int32_t n = first; n < last; ++n) {
        uint32_t* column = panel + n % kPanel;
        for (int32_t word = word0; word < word1; ++word) {
          column[int64_t{word} * kPanel] = n < a.n1 ? load_word(a, n - a.n0, word) : 0;
        }
      }
    }
    first = last;
  }
}

}  // namespace idefics::kernels
