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

const char* missing_nothing() { return nullptr; }

constexpr Level kLevels[] = {
    // the best first
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
