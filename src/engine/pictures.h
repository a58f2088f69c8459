// The tiles of one request until they are encoded.
#pragma once

#include <atomic>
#include <span>
#include <string_view>
#include <vector>

#include "base/thread_pool.h"
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

// Keeps the cut tiles of a picture while the budget allows; otherwise the picture is decoded again when the first of
// its tiles is wanted, and its tiles stay until another picture of the request is wanted. Threads: one owner at a time.
class Pictures {
 public:
  Pictures() = default;
  Pictures(const Pictures&) = delete;
  Pictures& operator=(const Pictures&) = delete;
  ~Pictures();

  // `files` are the encoded pictures, which must stay where they are.
  void set(std::vector<std::string_view> files, const ImageOptions& options, PixelBudget& budget);
  // Keeps the tiles of a picture that was just cut, or lets go of them.
  void offer(int picture, PromptImage& image);
  // RGB of one tile. Errors: those of Processor::cut.
  std::span<const uint8_t> tile(const Processor& processor, ThreadPool* pool, const PromptImage& image, int picture,
                                int tile);
  // The picture's tiles are all encoded.
  void let_go(int picture);

 private:
  struct Picture {
    std::string_view file;
    std::vector<uint8_t> tiles;  // [count, side, side, 3], or empty
    bool budgeted = false;       // the bytes are counted
  };
  std::vector<Picture> pictures_;
  ImageOptions options_;
  PixelBudget* budget_ = nullptr;
  int visiting_ = -1;  // the picture whose tiles are here without being counted
};

}  // namespace idefics
