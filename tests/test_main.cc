// The entry of every test program. When IDEFICS_KERNELS asks for a CPU level that this CPU lacks, the program says so
// and exits with 77, which the test runner counts as skipped, never as passed.
#include <gtest/gtest.h>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

// AMX with bf16, and a system that lets this process use it: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
bool has_tiles() {
#if defined(__x86_64__) && defined(__linux__)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kBoth = 1u << 22 | 1u << 24;  // amx_bf16, amx_tile
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (edx & kBoth) != kBoth) return false;
  return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
  return false;
#endif
}

bool cpu_has(const char* level) {
#if defined(__x86_64__)
  if (std::strcmp(level, "avx2") == 0) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (std::strcmp(level, "avx512") == 0 || std::strcmp(level, "amx") == 0) {
    if (std::strcmp(level, "amx") == 0 && !has_tiles()) return false;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
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
