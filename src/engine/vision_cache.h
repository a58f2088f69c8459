// Features of tiles by content.
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

#include "scheduling/key.h"

namespace idefics {

// Entries that a running sequence needs are pinned and stay; the others stay while all together are within the limit,
// and leave in the order of their last use.
// Threads: one owner.
class VisionCache {
 public:
  // `floats` of an entry; `limit_bytes` of all entries that nobody needs.
  VisionCache(size_t floats, size_t limit_bytes) : floats_(floats), limit_(limit_bytes) {}

  // Pins the entry; false when there is none.
  bool find_and_pin(const TileKey& key);
  // A new entry, pinned, to be filled by the caller. REQUIRES: there is none with this key.
  std::span<float> add_pinned(const TileKey& key);
  // REQUIRES: pinned.
  void unpin(const TileKey& key);
  // Takes a pinned entry away whose features could not be computed.
  void drop(const TileKey& key);

  void clear();

  bool contains(const TileKey& key) const { return entries_.contains(key); }
  // REQUIRES: there is one.
  std::span<const float> features(const TileKey& key) const { return entries_.at(key).features; }

  size_t bytes() const { return entries_.size() * entry_bytes(); }
  size_t pinned_bytes() const { return (entries_.size() - unpinned_.size()) * entry_bytes(); }

 private:
  struct Entry {
    std::vector<float> features;
    bool pinned;
    std::list<TileKey>::iterator place;  // in unpinned_, when not pinned
  };
  size_t entry_bytes() const { return floats_ * sizeof(float); }
  std::vector<float> take_buffer();

  size_t floats_, limit_;
  std::unordered_map<TileKey, Entry, KeyHash> entries_;  // looked up only
  std::list<TileKey> unpinned_;                          // least recently used first
};

}  // namespace idefics
