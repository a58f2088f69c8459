#include "text/id_map.h"

#include <bit>

#include "base/check.h"

namespace idefics {

IdMap::IdMap(size_t max_entries)
    : slots_(std::bit_ceil(2 * max_entries + 2)), mask_(slots_.size() - 1), free_(max_entries) {}

void IdMap::set(uint32_t a, uint32_t b, uint32_t value) {
  IDEFICS_CHECK(value != kNone);
  const uint64_t key = key_of(a, b);
  for (size_t i = slot_of(key);; i = (i + 1) & mask_) {
    Slot& slot = slots_[i];
    if (slot.value == kNone) {
      IDEFICS_CHECK(free_ > 0);
      --free_;
    } else if (slot.key != key) {
      continue;
    }
    slot = {key, value};
    return;
  }
}

}  // namespace idefics
