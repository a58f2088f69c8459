// Names of what requests have in common: tiles by their pixels, pages of the cache by all that their keys and values
// depend on. SHA-256, since a collision would show one user another one's picture.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "scheduling/key.h"
#include "scheduling/sequence.h"

namespace idefics {

// The key of one square tile of `side` pixels. Model and preprocessing are those of the engine that owns the caches;
// the salt keeps tenants apart.
//   rgb  [side, side, 3]
TileKey tile_key(std::string_view salt, int side, std::span<const uint8_t> rgb);

// The keys of the full pages of a growing sequence, each made from the one before, the page's tokens and the tiles
// whose tokens lie in it.
class BlockKeyChain {
 public:
  BlockKeyChain() = default;  // has no keys, and never gets any
  BlockKeyChain(std::string_view salt, int page_size);

  // `tokens` and `tiles` are those of the whole sequence; what was there at an earlier call must not have changed.
  //   tile_tokens  tokens of a tile
  void extend(std::span<const int32_t> tokens, std::span<const SequenceTile> tiles, int tile_tokens);
  const std::vector<BlockKey>& keys() const { return keys_; }

 private:
  BlockKey next(std::span<const int32_t> page, std::span<const SequenceTile> tiles, int tile_tokens) const;

  int page_size_ = 0;
  Key root_{};
  std::vector<BlockKey> keys_;
};

}  // namespace idefics
