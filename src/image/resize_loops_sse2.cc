#include <emmintrin.h>

#include <cstddef>
#include <cstdint>

namespace idefics {
namespace {

struct Simd {
  using Reg = __m128i;
  static Reg zero() { return _mm_setzero_si128(); }
  static Reg load(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }
  static void store(void* to, Reg a) { _mm_storeu_si128(static_cast<__m128i*>(to), a); }
  static Reg broadcast(int32_t a) { return _mm_set1_epi32(a); }
  static Reg add(Reg a, Reg b) { return _mm_add_epi32(a, b); }
  static Reg multiply_pairs(Reg a, Reg b) { return _mm_madd_epi16(a, b); }
  static Reg unpack_low(Reg a, Reg b) { return _mm_unpacklo_epi8(a, b); }
  static Reg unpack_high(Reg a, Reg b) { return _mm_unpackhi_epi8(a, b); }
  static Reg pack32(Reg a, Reg b) { return _mm_packs_epi32(a, b); }
  static Reg pack16(Reg a, Reg b) { return _mm_packus_epi16(a, b); }
  template <int kBits>
  static Reg shift_left(Reg a) {
    return _mm_slli_epi32(a, kBits);
  }
  template <int kBits>
  static Reg shift_right(Reg a) {
    return _mm_srai_epi32(a, kBits);
  }
};

}  // namespace
}  // namespace idefics

#include "image/resize_loops_levels.h"
#include "image/resize_loops_simd.h"

namespace idefics {

const ResizeLoops kResizeSse2 = {"sse2", weigh_rows, lay_out, weigh_pixels};

}  // namespace idefics
