// Hands out KV pages by number. It knows nothing of tensors: KvCache owns the bytes, this class owns the bookkeeping.
//
//   PagePool pool(1024);
//   if (auto page = pool.take()) { ...; pool.give_back(*page); }
//
// A page is in one of three states:
//   owned   one or more owners
//   cached  no owner, but its content was marked with keep() and may be taken up again by share()
//   free    no owner, content worthless
//
// Invariants
//   1. num_free() + num_cached() + number of owned pages == num_pages().
//   2. The cached pages form a list in the order in which their last owners left; take() uses them up in that order,
//      and only when no page is free.
// Threads: one owner (the engine thread), no locks inside. All calls are O(1).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace idefics {

using PageId = int32_t;  // the page numbers of model/kv_cache.h

class PagePool {
 public:
  explicit PagePool(int32_t num_pages);  // all pages start free

  // A page with one owner and nothing worth keeping in it: a free one, else the cached one that was left longest ago.
  // Nothing when all pages are owned.
  std::optional<PageId> take();
  // Adds an owner.                               REQUIRES: the page is owned or cached.
  void share(PageId page);
  // Removes an owner; the last one leaves the page cached if it was marked by keep(), else free.
  //                                              REQUIRES: the page is owned.
  void give_back(PageId page);
  // The content is worth keeping until take() hands the page out again.     REQUIRES: the page is owned.
  void keep(PageId page);

  int32_t num_pages() const { return static_cast<int32_t>(slots_.size()) - 1; }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  int32_t num_cached() const { return num_cached_; }
  // How many pages take() can hand out.
  int32_t num_available() const { return num_free() + num_cached_; }
  int32_t num_owners(PageId page) const { return slot(page).owners; }
  bool is_kept(PageId page) const { return slot(page).kept; }

  void check_invariants() const;  // O(num_pages); for tests

 private:
  struct Slot {
    int32_t owners = 0;
    bool kept = false;
    PageId previous = -1, next = -1;  // in the list of cached pages
  };

  const Slot& slot(PageId page) const;
  Slot& slot(PageId page);
  void append_cached(PageId page);
  void unlink_cached(PageId page);
  PageId list_head() const { return num_pages(); }

  std::vector<Slot> slots_;   // one per page, and one that closes the list of cached pages into a ring
  std::vector<PageId> free_;  // a stack: the page given back last is the first to be reused, its bytes may be warm
  int32_t num_cached_ = 0;
};

}  // namespace idefics
