#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <cstring>
#include <string>

#include "idefics/error.h"
#include "kernels/levels.h"

namespace idefics::kernels {
namespace {

struct Level {
  const char* name;
  const Table& (*table)();
  const char* (*missing)();  // the first CPU feature that this level needs and the CPU (or its system) lacks, or null
};

Table join(Table table, const QuantKernels& quant) {
  table.quant = quant;
  return table;
}

const Table& ref_table() {
  static const Table table = join(kRefTable, kRefQuant);
  return table;
}

#if defined(__x86_64__)
const Table& avx2_table() {
  static const Table table = join(kAvx2Table, kAvx2Quant);
  return table;
}

const Table& avx512_table() {
  static const Table table = join(kAvx512Table, kAvx512Quant);
  return table;
}

// __builtin_cpu_supports also asks the system (XGETBV) whether it saves the wide registers.
#define IDEFICS_NEED(feature) \
  if (!__builtin_cpu_supports(feature)) return feature

const char* missing_avx2() {
  IDEFICS_NEED("avx2");
  IDEFICS_NEED("fma");
  return nullptr;
}

const char* missing_avx512() {
  IDEFICS_NEED("avx2");
  IDEFICS_NEED("fma");
  IDEFICS_NEED("avx512f");
  IDEFICS_NEED("avx512bw");
  IDEFICS_NEED("avx512vl");
  IDEFICS_NEED("avx512dq");
  IDEFICS_NEED("avx512vnni");
  IDEFICS_NEED("avx512bf16");
  return nullptr;
}
#undef IDEFICS_NEED

// The tile instructions, with the tiles among the registers that the system saves: bits 17 and 18 of XCR0.
bool cpu_has_tiles() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25, kSavedTiles = 3u << 17;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (edx & kBf16) == 0 || (edx & kTile) == 0) return false;
  if ((edx & kInt8) == 0) return false;
  unsigned saved = 0, saved_high = 0;
  asm("xgetbv" : "=a"(saved), "=d"(saved_high) : "c"(0));
  return (saved & kSavedTiles) == kSavedTiles;
}

// Linux gives tiles only to a process that asks, for all its threads and for good.
bool ask_for_tiles() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

const char* missing_amx() {
  if (const char* missing = missing_avx512()) return missing;
  static const bool has = cpu_has_tiles();
  if (!has) return "amx_tile, amx_bf16 and amx_int8";
  static const bool may = ask_for_tiles();
  return may ? nullptr : "the permission of the system to use amx";
}

const Table& amx_table() {
  static const Table table = [] {
    Table t = join(kAvx512Table, kAmxQuant);
    t.name = "amx";
    t.gemm_bf16 = kAmxKernels.gemm_bf16;
    t.attention_bf16 = kAmxKernels.attention_bf16;
    t.attention_q8 = kAmxKernels.attention_q8;
    return t;
  }();
  return table;
}
#endif

const char* missing_nothing() { return nullptr; }

constexpr Level kLevels[] = {
// the best first
#if defined(__x86_64__)
    {"amx", amx_table, missing_amx},
    {"avx512", avx512_table, missing_avx512},
    {"avx2", avx2_table, missing_avx2},
#endif
    {"ref", ref_table, missing_nothing},
};

}  // namespace

const Table* find_table(const char* name) {
  for (const Level& level : kLevels) {
    if (std::strcmp(level.name, name) == 0) return level.missing() == nullptr ? &level.table() : nullptr;
  }
  return nullptr;
}

const Table& choose_table() {
  const char* name = std::getenv("IDEFICS_KERNELS");
  const bool forced = name != nullptr && *name != '\0';
  for (const Level& level : kLevels) {
    const char* missing = level.missing();
    if (!forced && missing == nullptr) return level.table();
    if (!forced || std::strcmp(level.name, name) != 0) continue;
    if (missing == nullptr) return level.table();
    throw Error(ErrorCode::kUsage, std::string("IDEFICS_KERNELS: this CPU cannot run ") + name + ", it lacks " +
                                       missing + "; unset the variable or name another level");
  }
  throw Error(ErrorCode::kUsage, std::string("IDEFICS_KERNELS: wanted ref, avx2, avx512 or amx, found '") + name + "'" +
                                     "; unset the variable to use the best level of this CPU");
}

}  // namespace idefics::kernels
