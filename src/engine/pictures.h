// The tiles of one request until they are encoded.
#pragma once

#include <atomic>
#include <optional>
#include <span>
#include <vector>

#include "processor/parts.h"

namespace idefics {

// Bytes of cut tiles that all requests of an engine hold together.
// Threads: any.
class PixelBudget {
 public:
  explicit PixelBudget(size_t bytes) : left_(static_cast<int64_t>(bytes)) {}
  bool try_take(size_t bytes) {
    const auto wanted = static_cast<int64_t>(bytes);
    if (left_.fetch_sub(wanted) >= wanted) return true;
    left_.fetch_add(wanted);
    return false;
  }
  void give_back(size_t bytes) { left_.fetch_add(static_cast<int64_t>(bytes)); }

 private:
  std::atomic<int64_t> left_;
};

// Keeps the cut tiles of a picture while the budget allows; otherwise the picture is to be cut again when the first of
// its tiles is wanted, and its tiles stay until another picture of the request comes back. Threads: one owner at a
// time.
class Pictures {
 public:
  Pictures() = default;
  Pictures(const Pictures&) = delete;
  Pictures& operator=(const Pictures&) = delete;
  ~Pictures();

  // The bytes of the files must stay where they are.
  void set(std::span<const PictureFile> files, PixelBudget& budget);
  // Keeps the tiles of a picture that was just cut, or lets go of them.
  void offer(int picture, PromptImage& image);
  const PictureFile& file(int picture) const { return pictures_[static_cast<size_t>(picture)].file; }
  // RGB of one tile; nothing when the picture has to come back for that.
  std::optional<std::span<const uint8_t>> tile(const PromptImage& image, int picture, int tile) const;
  // Takes the tiles of a picture that was cut again.
  void come_back(int picture, std::vector<uint8_t> tiles);
  // The picture's tiles are all encoded.
  void let_go(int picture);

 private:
  struct Picture {
    PictureFile file;
    std::vector<uint8_t> tiles;  // [count, side, side, 3], or empty
    bool budgeted = false;       // the bytes are counted
  };
  std::vector<Picture> pictures_;
  PixelBudget* budget_ = nullptr;
  int visiting_ = -1;  // the picture whose tiles are here without being counted
};

}  // namespace idefics
