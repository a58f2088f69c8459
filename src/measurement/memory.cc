#include "measurement/memory.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

namespace idefics {

int64_t peak_rss_bytes() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return int64_t{1024} * usage.ru_maxrss;
}

bool restart_peak_rss() {
  const int file = ::open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
  if (file < 0) return false;
  constexpr char kPeak = '5';  // proc_pid_clear_refs(5)
  const bool good = ::write(file, &kPeak, 1) == 1;
  ::close(file);
  return good;
}

}  // namespace idefics
