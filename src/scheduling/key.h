// Names of content: 32 opaque bytes, made and salted by the caller (SHA-256). Equal keys mean equal content.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace idefics {

using Key = std::array<uint8_t, 32>;

// Everything that the keys and values of one full page depend on: the key of the page before it, the page's token ids,
// the keys of the tiles whose tokens lie in it, and what the caller keeps apart (model, adapter, tenant).
using BlockKey = Key;

// Everything that the features of one tile depend on: pixels, size, preprocessing, model, adapter.
using TileKey = Key;

// The keys are hashes already.
struct KeyHash {
  size_t operator()(const Key& key) const {
    size_t hash;
    std::memcpy(&hash, key.data(), sizeof hash);
    return hash;
  }
};

}  // namespace idefics
