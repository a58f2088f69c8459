#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace idefics {

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "idefics: internal fault: %s does not hold (%s:%d)\n", condition, file, line);
  std::abort();
}

}  // namespace idefics
