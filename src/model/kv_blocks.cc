#include "model/kv_blocks.h"

namespace idefics {

ops::KvBlocks take_kv_blocks(Arena& arena, KvType dtype, int kv_heads, int head_dim, int64_t num_tokens) {
  const int64_t num_blocks = (num_tokens + kernels::kBlock - 1) / kernels::kBlock, count = kv_heads * num_blocks;
  const int64_t k_bytes = ops::k_block_bytes(dtype, head_dim), v_bytes = ops::v_block_bytes(dtype, head_dim);
  void** k = arena.take_array<void*>(count);
  void** v = arena.take_array<void*>(count);
  const auto bytes = static_cast<size_t>(count * (k_bytes + v_bytes));
  auto* memory = static_cast<char*>(arena.take(bytes));
  if (memory != nullptr) {
    for (int64_t i = 0; i < count; ++i) {
      k[i] = memory + i * (k_bytes + v_bytes);
      v[i] = memory + i * (k_bytes + v_bytes) + k_bytes;
    }
  }
  return {.dtype = dtype, .kv_heads = kv_heads, .head_dim = head_dim, .num_blocks = num_blocks, .k = k, .v = v};
}

}  // namespace idefics
