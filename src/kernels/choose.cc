#include <cstdlib>
#include <cstring>
#include <string>

#include "idefics/error.h"
#include "kernels/levels.h"

namespace idefics::kernels {
namespace {

struct Level {
  const Table* table;
  const char* (*missing)();  // the first CPU feature that this level needs and the CPU (or its system) lacks, or null
};

#if defined(__x86_64__)
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
#endif

const char* missing_nothing() { return nullptr; }

constexpr Level kLevels[] = {
    // the best first
#if defined(__x86_64__)
    {&kAvx512Table, missing_avx512},
    {&kAvx2Table, missing_avx2},
#endif
    {&kRefTable, missing_nothing},
};

}  // namespace

const Table* find_table(const char* name) {
  for (const Level& level : kLevels) {
    if (std::strcmp(level.table->name, name) == 0) return level.missing() == nullptr ? level.table : nullptr;
  }
  return nullptr;
}

const Table& choose_table() {
  const char* name = std::getenv("IDEFICS_KERNELS");
  const bool forced = name != nullptr && *name != '\0';
  for (const Level& level : kLevels) {
    const char* missing = level.missing();
    if (!forced && missing == nullptr) return *level.table;
    if (!forced || std::strcmp(level.table->name, name) != 0) continue;
    if (missing == nullptr) return *level.table;
    throw Error(ErrorCode::kUsage, std::string("IDEFICS_KERNELS: this CPU cannot run ") + name + ", it lacks " +
                                       missing + "; unset the variable or name another level");
  }
  throw Error(ErrorCode::kUsage, std::string("IDEFICS_KERNELS: wanted ref, avx2 or avx512, found '") + name + "'" +
                                     "; unset the variable to use the best level of this CPU");
}

}  // namespace idefics::kernels
