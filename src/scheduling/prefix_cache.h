// Which full pages hold which content, by key.
//
// It owns no page and counts nothing (PagePool does); it only knows names. A page has a key from publish() until
// forget(), which must be called before the page is given new content.
//
// Invariant: key -> page and page -> key are inverse to each other.
// Threads: one owner.
#pragma once

#include <optional>
#include <unordered_map>
#include <vector>

#include "scheduling/key.h"
#include "scheduling/page_pool.h"

namespace idefics {

class PrefixCache {
 public:
  explicit PrefixCache(int32_t num_pages);

  // The page with this content.
  std::optional<PageId> find(const BlockKey& key) const;
  // Makes a page known whose content is complete and will not change. False when another page is known by that key
  // already, or this page by another: the first one stays, the other remains its owner's private copy.
  bool publish(const BlockKey& key, PageId page);
  // Takes the page's key away, if it has one.
  void forget(PageId page);

  size_t size() const { return pages_.size(); }
  bool contains(PageId page) const { return keys_.at(static_cast<size_t>(page)).has_value(); }

  void check_invariants() const;  // O(number of pages); for tests

 private:
  std::unordered_map<BlockKey, PageId, KeyHash> pages_;  // looked up only, never iterated over: order has no meaning
  std::vector<std::optional<BlockKey>> keys_;            // by page
};

}  // namespace idefics
