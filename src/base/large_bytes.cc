#include "base/large_bytes.h"

#include <sys/mman.h>
#include <unistd.h>

namespace idefics {

std::vector<uint8_t> large_bytes(size_t count) {
  constexpr size_t kLarge = size_t{1} << 20;
  std::vector<uint8_t> bytes;
  bytes.reserve(count);
#if defined(MADV_POPULATE_WRITE)  // Linux 5.14; it is advice: where it is not taken nothing changes
  if (count >= kLarge) {
    const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    const size_t before = (page - reinterpret_cast<uintptr_t>(bytes.data()) % page) % page;
    ::madvise(bytes.data() + before, (count - before) / page * page, MADV_POPULATE_WRITE);
  }
#endif
  bytes.resize(count);
  return bytes;
}

}  // namespace idefics
