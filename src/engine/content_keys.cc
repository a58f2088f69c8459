#include "engine/content_keys.h"

#include "base/sha256.h"

namespace idefics {

namespace {

// What a digest is about comes first, and each part of variable length has its length before it: two different
// contents never give the same bytes.
enum class Subject : uint8_t { kSalt = 1, kTile = 2, kPage = 3 };

Key salt_key(std::string_view salt) {
  return Sha256().add_value(Subject::kSalt).add(std::as_bytes(std::span(salt))).digest();
}

}  // namespace

TileKey tile_key(std::string_view salt, int side, std::span<const uint8_t> rgb) {
  return Sha256()
      .add_value(Subject::kTile)
      .add_value(salt_key(salt))
      .add_value(side)
      .add_value(rgb.size())
      .add(std::as_bytes(rgb))
      .digest();
}

BlockKeyChain::BlockKeyChain(std::string_view salt, int page_size) : page_size_(page_size), root_(salt_key(salt)) {}

void BlockKeyChain::extend(std::span<const int32_t> tokens, std::span<const SequenceTile> tiles, int tile_tokens) {
  if (page_size_ == 0) return;
  const auto page = static_cast<size_t>(page_size_);
  while ((keys_.size() + 1) * page <= tokens.size()) {
    keys_.push_back(next(tokens.subspan(keys_.size() * page, page), tiles, tile_tokens));
  }
}

BlockKey BlockKeyChain::next(std::span<const int32_t> page, std::span<const SequenceTile> tiles,
                             int tile_tokens) const {
  Sha256 sha;
  sha.add_value(Subject::kPage).add_value(keys_.empty() ? root_ : keys_.back());
  sha.add_value(page.size()).add(std::as_bytes(page));
  const auto begin = static_cast<int32_t>(keys_.size()) * page_size_, end = begin + page_size_;
  for (const SequenceTile& tile : tiles) {
    if (tile.first >= end || tile.first + tile_tokens <= begin) continue;
    sha.add_value(tile.first - begin).add_value(tile.key);
  }
  return sha.digest();
}

}  // namespace idefics
