// The paged cache of keys and values of the text tower.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/ops.h"

namespace idefics {

// Number of a page: page_size tokens of one sequence, all layers and kv heads.
using PageId = int32_t;

// Owns the bytes of all pages; which sequence owns which page is the caller's business. What a former owner left in a
// page reaches nobody: attention does not read slots beyond a row's limit.
// Layout: [page][layer][kv head][block of 64 tokens]{K block, V block} (kernels/table.h).
// Threads: one owner.
class KvCache {
 public:
  struct Shape {
    KvType dtype;
    int num_layers, kv_heads, head_dim;
    int page_size;  // tokens, a multiple of 64
  };
  KvCache(const Shape& shape, int64_t num_pages);
  // The same over `num_pages` pages of somebody else, aligned to an element.
  KvCache(const Shape& shape, int64_t num_pages, std::byte* pages);

  const Shape& shape() const { return shape_; }
  int64_t num_pages() const { return num_pages_; }
  static int64_t page_bytes(const Shape& shape);
  size_t bytes() const { return memory_.size(); }
  std::byte* data() { return base_; }

  void copy_page(PageId from, PageId to);

  // The blocks of one layer of a sequence that owns `pages`, in order. The pointer tables come from the arena.
  ops::KvBlocks blocks(Arena& arena, int layer, std::span<const PageId> pages) const;
  // Takes from a measuring arena what blocks() takes for `num_pages` pages.
  static void plan_blocks(Arena& arena, const Shape& shape, int64_t num_pages);
  // What the tables of n sequences may take beyond those of one sequence with the pages of all: so many bytes n times.
  static constexpr size_t kTableSlack = 2 * 64;

 private:
  Shape shape_;
  int64_t num_pages_;
  Buffer memory_;  // empty when the pages are borrowed
  std::byte* base_;
};

}  // namespace idefics
