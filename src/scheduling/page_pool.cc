#include "scheduling/page_pool.h"

#include "base/check.h"

namespace idefics {

PagePool::PagePool(int32_t num_pages) {
  IDEFICS_CHECK(num_pages > 0);
  slots_.resize(static_cast<size_t>(num_pages) + 1);
  slots_.back().previous = slots_.back().next = num_pages;
  free_.reserve(static_cast<size_t>(num_pages));
  for (PageId page = num_pages - 1; page >= 0; --page) free_.push_back(page);
}

const PagePool::Slot& PagePool::slot(PageId page) const {
  IDEFICS_CHECK(page >= 0 && page < num_pages());
  return slots_[static_cast<size_t>(page)];
}

PagePool::Slot& PagePool::slot(PageId page) {
  IDEFICS_CHECK(page >= 0 && page < num_pages());
  return slots_[static_cast<size_t>(page)];
}

std::optional<PageId> PagePool::take() {
  PageId page;
  if (!free_.empty()) {
    page = free_.back();
    free_.pop_back();
  } else if (num_cached_ > 0) {
    page = slots_.back().next;
    unlink_cached(page);
  } else {
    return std::nullopt;
  }
  slot(page).owners = 1;
  slot(page).kept = false;
  return page;
}

void PagePool::share(PageId page) {
  Slot& s = slot(page);
  IDEFICS_CHECK(s.owners > 0 || s.kept);
  if (s.owners == 0) unlink_cached(page);
  ++s.owners;
}

void PagePool::give_back(PageId page) {
  Slot& s = slot(page);
  IDEFICS_CHECK(s.owners > 0);
  if (--s.owners > 0) return;
  if (s.kept) {
    append_cached(page);
  } else {
    free_.push_back(page);
  }
}

void PagePool::keep(PageId page) {
  IDEFICS_CHECK(slot(page).owners > 0);
  slot(page).kept = true;
}

void PagePool::append_cached(PageId page) {
  Slot& head = slots_.back();
  Slot& s = slot(page);
  s.previous = head.previous;
  s.next = list_head();
  slots_[static_cast<size_t>(head.previous)].next = page;
  head.previous = page;
  ++num_cached_;
}

void PagePool::unlink_cached(PageId page) {
  Slot& s = slot(page);
  slots_[static_cast<size_t>(s.previous)].next = s.next;
  slots_[static_cast<size_t>(s.next)].previous = s.previous;
  s.previous = s.next = -1;
  --num_cached_;
}

void PagePool::check_invariants() const {
  int32_t owned = 0;
  for (PageId page = 0; page < num_pages(); ++page) owned += slot(page).owners > 0;
  IDEFICS_CHECK(num_free() + num_cached() + owned == num_pages());
  std::vector<bool> seen(slots_.size());
  for (const PageId page : free_) {
    IDEFICS_CHECK(slot(page).owners == 0 && !slot(page).kept && !seen[static_cast<size_t>(page)]);
    seen[static_cast<size_t>(page)] = true;
  }
  int32_t cached = 0;
  PageId previous = list_head();
  for (PageId page = slots_.back().next; page != list_head(); previous = page, page = slot(page).next) {
    IDEFICS_CHECK(++cached <= num_cached_);
    IDEFICS_CHECK(slot(page).owners == 0 && slot(page).kept && slot(page).previous == previous);
    IDEFICS_CHECK(!seen[static_cast<size_t>(page)]);
    seen[static_cast<size_t>(page)] = true;
  }
  IDEFICS_CHECK(cached == num_cached_ && slots_.back().previous == previous);
}

}  // namespace idefics
