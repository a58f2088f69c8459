#include "image/resize_loops.h"

#include <vector>

#if defined(__x86_64__)
#include "image/resize_loops_levels.h"
#endif

namespace idefics {
namespace {

std::vector<const ResizeLoops*> find_loops() {
  std::vector<const ResizeLoops*> loops;
#if defined(__x86_64__)
  // __builtin_cpu_supports also asks the system whether it saves the wide registers.
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) loops.push_back(&kResizeAvx512);
  if (__builtin_cpu_supports("avx2")) loops.push_back(&kResizeAvx2);
  loops.push_back(&kResizeSse2);
#endif
  return loops;
}

}  // namespace

std::span<const ResizeLoops* const> resize_loops() {
  static const std::vector<const ResizeLoops*> loops = find_loops();
  return loops;
}

}  // namespace idefics
