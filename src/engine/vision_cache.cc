#include "engine/vision_cache.h"

#include "base/check.h"

namespace idefics {

bool VisionCache::find_and_pin(const TileKey& key) {
  const auto it = entries_.find(key);
  if (it == entries_.end()) return false;
  if (!it->second.pinned) unpinned_.erase(it->second.place);
  it->second.pinned = true;
  return true;
}

std::span<float> VisionCache::add_pinned(const TileKey& key) {
  IDEFICS_CHECK(!entries_.contains(key));
  return entries_.emplace(key, Entry{take_buffer(), true, {}}).first->second.features;
}

// The buffer of the entry that would leave next, or a new one while there is room.
std::vector<float> VisionCache::take_buffer() {
  if (unpinned_.empty() || bytes() + entry_bytes() <= limit_) return std::vector<float>(floats_);
  const auto oldest = entries_.find(unpinned_.front());
  std::vector<float> buffer = std::move(oldest->second.features);
  entries_.erase(oldest);
  unpinned_.pop_front();
  return buffer;
}

void VisionCache::unpin(const TileKey& key) {
  Entry& entry = entries_.at(key);
  IDEFICS_CHECK(entry.pinned);
  entry.pinned = false;
  entry.place = unpinned_.insert(unpinned_.end(), key);
  while (bytes() > limit_ && !unpinned_.empty()) {
    entries_.erase(unpinned_.front());
    unpinned_.pop_front();
  }
}

void VisionCache::clear() {
  entries_.clear();
  unpinned_.clear();
}

void VisionCache::drop(const TileKey& key) {
  const auto it = entries_.find(key);
  IDEFICS_CHECK(it != entries_.end() && it->second.pinned);
  entries_.erase(it);
}

}  // namespace idefics
