#include "text/jinja/taint.h"

#include <algorithm>

namespace idefics::jinja {

void Taint::add_part(const Taint& other, size_t begin, size_t end, size_t at) {
  auto range = std::lower_bound(other.ranges_.begin(), other.ranges_.end(), begin,
                                [](const TextRange& r, size_t value) { return r.end <= value; });
  for (; range != other.ranges_.end() && range->begin < end; ++range) {
    add(std::max(range->begin, begin) - begin + at, std::min(range->end, end) - begin + at);
  }
}

}  // namespace idefics::jinja
