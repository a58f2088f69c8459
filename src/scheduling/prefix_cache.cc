#include "scheduling/prefix_cache.h"

#include "base/check.h"

namespace idefics {

PrefixCache::PrefixCache(int32_t num_pages) {
  pages_.reserve(static_cast<size_t>(num_pages));
  keys_.resize(static_cast<size_t>(num_pages));
}

std::optional<PageId> PrefixCache::find(const BlockKey& key) const {
  const auto it = pages_.find(key);
  if (it == pages_.end()) return std::nullopt;
  return it->second;
}

bool PrefixCache::publish(const BlockKey& key, PageId page) {
  std::optional<BlockKey>& known = keys_.at(static_cast<size_t>(page));
  if (known || !pages_.try_emplace(key, page).second) return false;
  known = key;
  return true;
}

void PrefixCache::forget(PageId page) {
  std::optional<BlockKey>& known = keys_.at(static_cast<size_t>(page));
  if (!known) return;
  pages_.erase(*known);
  known.reset();
}

void PrefixCache::check_invariants() const {
  size_t named = 0;
  for (size_t page = 0; page < keys_.size(); ++page) {
    if (!keys_[page]) continue;
    ++named;
    IDEFICS_CHECK(find(*keys_[page]) == static_cast<PageId>(page));
  }
  IDEFICS_CHECK(named == pages_.size());
}

}  // namespace idefics
