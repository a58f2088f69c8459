// How much work the network is, counted from its shapes.
#pragma once

#include <cstdint>

#include "idefics/config.h"
#include "model/network.h"

namespace idefics {

// Floating point operations, a product and a sum being two, of matrix products and attention. Norms, activations and
// the like are left out: less than a hundredth.
int64_t tile_flops(const Idefics3Config& config);  // one tile: vision tower and connector
// The text tower over a prompt of `tokens` tokens, and the head for the last of them.
int64_t prompt_flops(const Idefics3Config& config, int64_t tokens);

// Bytes that decoding one token reads: all matrices of the text tower as they are packed, and the keys and values of
// `context` tokens.
int64_t decode_bytes(const Network& network, const KvCache::Shape& kv, int64_t context);

}  // namespace idefics
