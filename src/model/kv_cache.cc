#include "model/kv_cache.h"

#include <cstring>

namespace idefics {

namespace {

int64_t pair_bytes(const KvCache::Shape& s) {
  return ops::k_block_bytes(s.dtype, s.head_dim) + ops::v_block_bytes(s.dtype, s.head_dim);
}
int64_t blocks_per_page(const KvCache::Shape& s) { return s.page_size / kernels::kBlock; }

// The tables of block addresses of one sequence and layer.
struct Pointers {
  void** k;
  void** v;
  Pointers(Arena& arena, const KvCache::Shape& s, int64_t num_blocks)
      : k(arena.take_array<void*>(s.kv_heads * num_blocks)), v(arena.take_array<void*>(s.kv_heads * num_blocks)) {}
};

}  // namespace

int64_t KvCache::page_bytes(const Shape& s) { return pair_bytes(s) * blocks_per_page(s) * s.kv_heads * s.num_layers; }

KvCache::KvCache(const Shape& shape, int64_t num_pages)
    : shape_(shape),
      num_pages_(num_pages),
      memory_(static_cast<size_t>(num_pages * page_bytes(shape)), "the KV cache"),
      base_(memory_.data()) {
  IDEFICS_CHECK(shape.page_size % kernels::kBlock == 0 && num_pages > 0);
}

KvCache::KvCache(const Shape& shape, int64_t num_pages, std::byte* pages)
    : shape_(shape), num_pages_(num_pages), base_(pages) {
  IDEFICS_CHECK(shape.page_size % kernels::kBlock == 0 && pages != nullptr);
}

void KvCache::copy_page(PageId from, PageId to) {
  IDEFICS_CHECK(from >= 0 && from < num_pages_ && to >= 0 && to < num_pages_ && from != to);
  const int64_t bytes = page_bytes(shape_);
  std::memcpy(base_ + to * bytes, base_ + from * bytes, static_cast<size_t>(bytes));
}

ops::KvBlocks KvCache::blocks(Arena& arena, int layer, std::span<const PageId> pages) const {
  const int64_t per_page = blocks_per_page(shape_), num_blocks = std::ssize(pages) * per_page;
  const Pointers table(arena, shape_, num_blocks);
  const int64_t pair = pair_bytes(shape_), k_bytes = ops::k_block_bytes(shape_.dtype, shape_.head_dim);
  for (int64_t i = 0; i < num_blocks; ++i) {
    const PageId page = pages[static_cast<size_t>(i / per_page)];
    IDEFICS_CHECK(page >= 0 && page < num_pages_);
    for (int64_t head = 0; head < shape_.kv_heads; ++head) {
      std::byte* at =
          base_ + page * page_bytes(shape_) + ((layer * shape_.kv_heads + head) * per_page + i % per_page) * pair;
      table.k[head * num_blocks + i] = at;
      table.v[head * num_blocks + i] = at + k_bytes;
    }
  }
  return {.dtype = shape_.dtype,
          .kv_heads = shape_.kv_heads,
          .head_dim = shape_.head_dim,
          .num_blocks = num_blocks,
          .k = table.k,
          .v = table.v};
}

void KvCache::plan_blocks(Arena& arena, const Shape& shape, int64_t num_pages) {
  Pointers(arena, shape, num_pages * blocks_per_page(shape));
}

}  // namespace idefics
