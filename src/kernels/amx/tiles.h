// Moving tiles, for the files of the AMX level.
#pragma once

#include <stdint.h>

#include "kernels/simd.h"

namespace idefics::kernels {
namespace {

// In assembly: the intrinsics of GCC 12 do not tell the compiler that tileloadd reads memory, and take no template
// argument as the number of a tile.

template <int kTile>
inline void clear() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}
template <int kTile>
inline void load(const void* from, int64_t stride) {
  asm volatile("tileloadd (%1,%2), %%tmm%c0" ::"i"(kTile), "r"(from), "r"(stride) : "memory");
}
// The same past L1, for what is read once and would push out what stays there.
template <int kTile>
inline void load_past(const void* from, int64_t stride) {
  asm volatile("tileloaddt1 (%1,%2), %%tmm%c0" ::"i"(kTile), "r"(from), "r"(stride) : "memory");
}
template <int kTile>
inline void store(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c0, (%1,%2)" ::"i"(kTile), "r"(to), "r"(stride) : "memory");
}
constexpr int32_t kTileRows = 16;
constexpr int32_t kRowBytes = kPanel * kWord;  // from row to row of a panel

}  // namespace
}  // namespace idefics::kernels
