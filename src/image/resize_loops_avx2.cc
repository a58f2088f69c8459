#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace idefics {
namespace {

struct Simd {
  using Reg = __m256i;
  static Reg zero() { return _mm256_setzero_si256(); }
  static Reg load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
  static void store(void* to, Reg a) { _mm256_storeu_si256(static_cast<__m256i*>(to), a); }
  static Reg broadcast(int32_t a) { return _mm256_set1_epi32(a); }
  static Reg add(Reg a, Reg b) { return _mm256_add_epi32(a, b); }
  static Reg multiply_pairs(Reg a, Reg b) { return _mm256_madd_epi16(a, b); }
  static Reg unpack_low(Reg a, Reg b) { return _mm256_unpacklo_epi8(a, b); }
  static Reg unpack_high(Reg a, Reg b) { return _mm256_unpackhi_epi8(a, b); }
  static Reg pack32(Reg a, Reg b) { return _mm256_packs_epi32(a, b); }
  static Reg pack16(Reg a, Reg b) { return _mm256_packus_epi16(a, b); }
  template <int kBits>
  static Reg shift_left(Reg a) {
    return _mm256_slli_epi32(a, kBits);
  }
  template <int kBits>
  static Reg shift_right(Reg a) {
    return _mm256_srai_epi32(a, kBits);
  }
};

}  // namespace
}  // namespace idefics

#include "image/resize_loops_levels.h"
#include "image/resize_loops_simd.h"

namespace idefics {

const ResizeLoops kResizeAvx2 = {"avx2", weigh_rows, lay_out, weigh_pixels};

}  // namespace idefics
