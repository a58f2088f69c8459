// Key and value blocks that live in scratch memory for one call.
#pragma once

#include "tensor/ops.h"

namespace idefics {

// Blocks for `num_tokens` tokens, from the arena.
ops::KvBlocks take_kv_blocks(Arena& arena, KvType dtype, int kv_heads, int head_dim, int64_t num_tokens);

}  // namespace idefics
