#include "calibration/peak_loops.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace idefics {

#if defined(__x86_64__)

namespace {

// One step on each of twelve independent sums, registers 2 to 13: enough to hide the latency of two units.
#define CHAINS(STEP) \
  STEP("2")          \
  STEP("3") STEP("4") STEP("5") STEP("6") STEP("7") STEP("8") STEP("9") STEP("10") STEP("11") STEP("12") STEP("13")
constexpr int64_t kChains = 12;

// All operands are zero, so nothing becomes subnormal or infinite.
#define LOOP(name, STEP)                                                                                          \
  void name(int64_t rounds) {                                                                                     \
    asm volatile("vzeroall\n.p2align 5\n1:\n" CHAINS(STEP) "dec %0\njnz 1b\nvzeroupper"                           \
                 : "+r"(rounds)                                                                                   \
                 :                                                                                                \
                 : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
                   "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                                                  \
  }

#define FMA_YMM(sum) "vfmadd231ps %%ymm0, %%ymm0, %%ymm" sum "\n"
#define FMA_ZMM(sum) "vfmadd231ps %%zmm0, %%zmm0, %%zmm" sum "\n"
#define BF16_ZMM(sum) "vdpbf16ps %%zmm0, %%zmm0, %%zmm" sum "\n"
#define INT8_ZMM(sum) "vpdpbusd %%zmm0, %%zmm0, %%zmm" sum "\n"
// Pairs of products in 16 bits, pairs of pairs in 32 bits, then the sum.
#define INT8_YMM(sum)                   \
  "vpmaddubsw %%ymm0, %%ymm0, %%ymm1\n" \
  "vpmaddwd %%ymm0, %%ymm1, %%ymm1\n"   \
  "vpaddd %%ymm1, %%ymm" sum ", %%ymm" sum "\n"

LOOP(fma_ymm, FMA_YMM)
LOOP(fma_zmm, FMA_ZMM)
LOOP(bf16_zmm, BF16_ZMM)
LOOP(int8_ymm, INT8_YMM)
LOOP(int8_zmm, INT8_ZMM)

// Eight tiles of 16 rows of 64 bytes; four of them are sums.
struct alignas(64) TileShapes {
  uint8_t palette = 1, reserved[15] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

#define TILE_LOOP(name, instruction)                                                                    \
  void name(int64_t rounds) {                                                                           \
    const TileShapes shapes;                                                                            \
    asm volatile("ldtilecfg (%1)\n.p2align 5\n1:\n" instruction " %%tmm6, %%tmm4, %%tmm0\n" instruction \
                 " %%tmm7, %%tmm4, %%tmm1\n" instruction " %%tmm6, %%tmm5, %%tmm2\n" instruction        \
                 " %%tmm7, %%tmm5, %%tmm3\ndec %0\njnz 1b\ntilerelease"                                 \
                 : "+r"(rounds)                                                                         \
                 : "r"(&shapes)                                                                         \
                 : "cc", "memory");                                                                     \
  }
TILE_LOOP(bf16_tiles, "tdpbf16ps")
TILE_LOOP(int8_tiles, "tdpbssd")
constexpr int64_t kTileProducts = 4, kTileOutputs = 16 * 16;

bool has_int8_tiles() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kInt8 = 1u << 25;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kInt8) != 0;
}

}  // namespace

PeakLoops peak_loops(std::string_view level) {
  if (level == "avx2") {
    // There is no product of bfloat16: its kernel widens, and computes as the one of float32 does.
    const PeakLoop fma{fma_ymm, kChains * 2 * 8};
    return {.f32 = fma, .bf16 = fma, .int8 = PeakLoop{int8_ymm, kChains * 2 * 32}};
  }
  if (level != "avx512" && level != "amx") return {};
  PeakLoops loops{.f32 = PeakLoop{fma_zmm, kChains * 2 * 16},
                  .bf16 = PeakLoop{bf16_zmm, kChains * 2 * 32},
                  .int8 = PeakLoop{int8_zmm, kChains * 2 * 64}};
  if (level == "amx") {
    loops.bf16 = PeakLoop{bf16_tiles, kTileProducts * kTileOutputs * 2 * 32};
    if (has_int8_tiles()) loops.int8 = PeakLoop{int8_tiles, kTileProducts * kTileOutputs * 2 * 64};
  }
  return loops;
}

#else

PeakLoops peak_loops(std::string_view) { return {}; }

#endif

}  // namespace idefics
