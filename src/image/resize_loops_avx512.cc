#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace idefics {
namespace {

struct Simd {
  using Reg = __m512i;
  static Reg zero() { return _mm512_setzero_si512(); }
  static Reg load(const void* from) { return _mm512_loadu_si512(from); }
  static void store(void* to, Reg a) { _mm512_storeu_si512(to, a); }
  static Reg broadcast(int32_t a) { return _mm512_set1_epi32(a); }
  static Reg add(Reg a, Reg b) { return _mm512_add_epi32(a, b); }
  static Reg multiply_pairs(Reg a, Reg b) { return _mm512_madd_epi16(a, b); }
  static Reg unpack_low(Reg a, Reg b) { return _mm512_unpacklo_epi8(a, b); }
  static Reg unpack_high(Reg a, Reg b) { return _mm512_unpackhi_epi8(a, b); }
  static Reg pack32(Reg a, Reg b) { return _mm512_packs_epi32(a, b); }
  static Reg pack16(Reg a, Reg b) { return _mm512_packus_epi16(a, b); }
  template <int kBits>
  static Reg shift_left(Reg a) {
    return _mm512_slli_epi32(a, kBits);
  }
  template <int kBits>
  static Reg shift_right(Reg a) {
    return _mm512_srai_epi32(a, kBits);
  }
};

}  // namespace
}  // namespace idefics

#include "image/resize_loops_levels.h"
#include "image/resize_loops_simd.h"

namespace idefics {

const ResizeLoops kResizeAvx512 = {"avx512", weigh_rows, lay_out, weigh_pixels};

}  // namespace idefics
