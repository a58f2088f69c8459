#include "engine/pictures.h"

#include "base/check.h"

namespace idefics {

Pictures::~Pictures() {
  for (int i = 0; i < std::ssize(pictures_); ++i) let_go(i);
}

void Pictures::set(std::vector<std::string_view> files, const ImageOptions& options, PixelBudget& budget) {
  IDEFICS_CHECK(pictures_.empty());
  for (const std::string_view file : files) pictures_.push_back({.file = file, .tiles = {}});
  options_ = options;
  budget_ = &budget;
}

void Pictures::offer(int picture, PromptImage& image) {
  Picture& p = pictures_[static_cast<size_t>(picture)];
  p.budgeted = budget_->try_take(image.tiles.size());
  if (p.budgeted) p.tiles = std::move(image.tiles);
  image.tiles = {};
}

std::span<const uint8_t> Pictures::tile(const Processor& processor, ThreadPool* pool, const PromptImage& image,
                                        int picture, int tile) {
  Picture& p = pictures_[static_cast<size_t>(picture)];
  if (p.tiles.empty()) {
    if (visiting_ >= 0) let_go(visiting_);
    p.tiles = processor.parts().cut(p.file, options_, pool).tiles;
    visiting_ = picture;
  }
  const size_t bytes = size_t{3} * static_cast<size_t>(image.side) * static_cast<size_t>(image.side);
  return std::span(p.tiles).subspan(static_cast<size_t>(tile) * bytes, bytes);
}

void Pictures::let_go(int picture) {
  Picture& p = pictures_[static_cast<size_t>(picture)];
  if (p.budgeted) budget_->give_back(p.tiles.size());
  p.budgeted = false;
  p.tiles = {};
  if (visiting_ == picture) visiting_ = -1;
}

}  // namespace idefics
