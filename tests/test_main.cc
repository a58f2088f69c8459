// The entry of every test program. When IDEFICS_KERNELS asks for a CPU level that this CPU lacks, the program says so and
// exits with 77, which the test runner counts as skipped, never as passed.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

bool cpu_has(const char* level) {
#if defined(__x86_64__)
  if (std::strcmp(level, "avx2") == 0) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (std::strcmp(level, "avx512") == 0) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
  }
#endif
  return std::strcmp(level, "ref") == 0;
}

}  // namespace

int main(int argc, char** argv) {
  const char* level = std::getenv("IDEFICS_KERNELS");
  if (level != nullptr && !cpu_has(level)) {
    std::printf("skipped: this CPU has no %s\n", level);
    return 77;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
