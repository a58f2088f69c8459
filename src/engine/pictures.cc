#include "engine/pictures.h"

#include "base/check.h"

namespace idefics {

Pictures::~Pictures() {
  for (int i = 0; i < std::ssize(pictures_); ++i) let_go(i);
}

void Pictures::set(std::span<const PictureFile> files, PixelBudget& budget) {
  IDEFICS_CHECK(pictures_.empty());
  for (const PictureFile& file : files) pictures_.push_back({.file = file, .tiles = {}});
  budget_ = &budget;
}

void Pictures::offer(int picture, PromptImage& image) {
  Picture& p = pictures_[static_cast<size_t>(picture)];
  p.budgeted = budget_->try_take(image.tiles.size());
  if (p.budgeted) p.tiles = std::move(image.tiles);
  image.tiles = {};
}

std::optional<std::span<const uint8_t>> Pictures::tile(const PromptImage& image, int picture, int tile) const {
  const Picture& p = pictures_[static_cast<size_t>(picture)];
  if (p.tiles.empty()) return std::nullopt;
  const size_t bytes = size_t{3} * static_cast<size_t>(image.side) * static_cast<size_t>(image.side);
  return std::span(p.tiles).subspan(static_cast<size_t>(tile) * bytes, bytes);
}

void Pictures::come_back(int picture, std::vector<uint8_t> tiles) {
  if (visiting_ >= 0) let_go(visiting_);
  pictures_[static_cast<size_t>(picture)].tiles = std::move(tiles);
  visiting_ = picture;
}

void Pictures::let_go(int picture) {
  Picture& p = pictures_[static_cast<size_t>(picture)];
  if (p.budgeted) budget_->give_back(p.tiles.size());
  p.budgeted = false;
  p.tiles = {};
  if (visiting_ == picture) visiting_ = -1;
}

}  // namespace idefics
