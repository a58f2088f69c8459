// A hash map from pairs of 32-bit numbers to a 32-bit number, for tables that are filled once and read very often.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace idefics {

// Open addressing, at most half full: a lookup touches one or two cache lines.
// Threads: reading is free for all once it is filled.
class IdMap {
 public:
  static constexpr uint32_t kNone = 0xffffffffu;

  explicit IdMap(size_t max_entries);  // room for so many different keys; more are a bug

  // Sets the value of (a, b), also when there is one already. REQUIRES: value != kNone.
  void set(uint32_t a, uint32_t b, uint32_t value);
  // The value of (a, b), or kNone.
  uint32_t get(uint32_t a, uint32_t b) const {
    const uint64_t key = key_of(a, b);
    for (size_t i = slot_of(key);; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.key == key || slot.value == kNone) return slot.value;
    }
  }

 private:
  struct Slot {
    uint64_t key = 0;
    uint32_t value = kNone;  // kNone: the slot is free
  };

  static uint64_t key_of(uint32_t a, uint32_t b) { return uint64_t{a} << 32 | b; }
  size_t slot_of(uint64_t key) const {
    key *= 0x9e3779b97f4a7c15u;  // 2^64 / golden ratio: the high bits depend on all of the key
    return static_cast<size_t>(key ^ (key >> 32)) & mask_;
  }

  std::vector<Slot> slots_;
  size_t mask_ = 0;
  size_t free_ = 0;
};

}  // namespace idefics
