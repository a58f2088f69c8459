// Pictures that exist a few rows at a time: the passes of one or more resizes behind each other, each computing the
// rows that the next one asks for. What lies between two passes stays in the cache instead of becoming a picture in
// memory.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "idefics/processor_config.h"

namespace idefics {

// Rows of RGB pixels by number.
class RowSource {
 public:
  virtual ~RowSource() = default;
  // Row y. Valid as long as no row is asked for that lies a window or more from it (RowPass::window).
  virtual const uint8_t* row(int y) = 0;
};

// One pass of a resize. Threads: const, shared by all.
class RowPass {
 public:
  static constexpr int kBatch = 4;  // rows that are computed together

  RowPass(int width, int height) : width_(width), height_(height) {}
  virtual ~RowPass() = default;
  int width() const { return width_; }  // of the output
  int height() const { return height_; }
  // Input rows that an output row, or a batch of them, needs at the same time.
  virtual int window() const = 0;
  // What compute writes to on the way. One per thread.
  struct Scratch {
    std::vector<int16_t> values;
    std::vector<const uint8_t*> rows;
  };
  virtual Scratch make_scratch() const { return {}; }
  // Output rows [first, first + count), count at most kBatch.
  virtual void compute(RowSource& in, int first, int count, Scratch& scratch, uint8_t* const* out) const = 0;

 private:
  int width_, height_;
};
using RowPasses = std::vector<std::unique_ptr<const RowPass>>;

// Computes all rows of a picture: those of `make_source()`, which are `width` wide and `height` high, sent through
// `passes`. Calls take(y, row) once for each row, from several threads, each in increasing order of y but from any y
// on. `make_source` is called once per thread, with the window that it must keep, before any row is taken. `pool` may
// be null. Neither it nor the split between its threads changes a row.
struct RowChain {
  std::function<std::unique_ptr<RowSource>(int window)> make_source;
  int width, height;
  const RowPasses& passes;
};
void compute_rows(const RowChain& chain, ThreadPool* pool, const std::function<void(int y, const uint8_t* row)>& take);

// Rows of pixels that lie behind each other in memory.
std::unique_ptr<RowSource> stored_rows(const uint8_t* rgb, int width);
// Rows that are computed when they are asked for: compute(first, count, out), count at most RowPass::kBatch.
using ComputeRows = std::function<void(int first, int count, uint8_t* const* out)>;
std::unique_ptr<RowSource> computed_rows(int width, int height, int window, ComputeRows compute);

}  // namespace idefics
