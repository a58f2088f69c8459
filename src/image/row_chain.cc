#include "image/row_chain.h"

#include <algorithm>
#include <atomic>

#include "base/check.h"

namespace idefics {
namespace {

class StoredRows final : public RowSource {
 public:
  StoredRows(const uint8_t* rgb, size_t row_bytes) : rgb_(rgb), row_bytes_(row_bytes) {}
  const uint8_t* row(int y) override { return rgb_ + static_cast<size_t>(y) * row_bytes_; }

 private:
  const uint8_t* rgb_;
  size_t row_bytes_;
};

// Keeps the last rows. A batch that begins at row y takes the places of rows y - places and following, which are out
// of the window.
class ComputedRows final : public RowSource {
 public:
  ComputedRows(int width, int height, int window, ComputeRows compute)
      : row_bytes_(size_t{3} * static_cast<size_t>(width)),
        height_(height),
        places_(std::min(window, height) + RowPass::kBatch - 1),
        compute_(std::move(compute)),
        rows_(static_cast<size_t>(places_) * row_bytes_),
        held_(static_cast<size_t>(places_), -1) {}

  const uint8_t* row(int y) override {
    if (held_[place(y)] != y) fill(y);
    return data(y);
  }

 private:
  size_t place(int y) const { return static_cast<size_t>(y % places_); }
  uint8_t* data(int y) { return rows_.data() + place(y) * row_bytes_; }
  void fill(int first) {
    uint8_t* out[RowPass::kBatch];
    const int count = std::min(RowPass::kBatch, height_ - first);
    for (int i = 0; i < count; ++i) {
      out[i] = data(first + i);
      held_[place(first + i)] = first + i;
    }
    compute_(first, count, out);
  }

  size_t row_bytes_;
  int height_, places_;
  ComputeRows compute_;
  std::vector<uint8_t> rows_;  // [places, row_bytes]
  std::vector<int> held_;      // which row lies in a place
};

// The source and the rows behind each pass, for one thread.
class Line {
 public:
  explicit Line(const RowChain& chain) {
    // The rows behind the last pass are only handed on, one by one.
    const auto window_behind = [&](size_t i) { return i < chain.passes.size() ? chain.passes[i]->window() : 1; };
    rows_.push_back(chain.make_source(window_behind(0)));
    for (size_t i = 0; i < chain.passes.size(); ++i) {
      const RowPass& pass = *chain.passes[i];
      RowSource& in = *rows_.back();
      const auto scratch = std::make_shared<RowPass::Scratch>(pass.make_scratch());
      rows_.push_back(computed_rows(pass.width(), pass.height(), window_behind(i + 1),
                                    [&pass, &in, scratch](int first, int count, uint8_t* const* out) {
                                      pass.compute(in, first, count, *scratch, out);
                                    }));
    }
  }
  const uint8_t* row(int y) { return rows_.back()->row(y); }

 private:
  std::vector<std::unique_ptr<RowSource>> rows_;
};

}  // namespace

std::unique_ptr<RowSource> stored_rows(const uint8_t* rgb, int width) {
  return std::make_unique<StoredRows>(rgb, size_t{3} * static_cast<size_t>(width));
}

std::unique_ptr<RowSource> computed_rows(int width, int height, int window, ComputeRows compute) {
  return std::make_unique<ComputedRows>(width, height, window, std::move(compute));
}

void compute_rows(const RowChain& chain, ThreadPool* pool, const std::function<void(int y, const uint8_t* row)>& take) {
  const int height = chain.passes.empty() ? chain.height : chain.passes.back()->height();
  const int threads = pool == nullptr ? 1 : pool->num_threads();
  // The rows that the windows of two bands share are computed twice: few bands, and none of a few rows.
  const int band = threads == 1 ? height : std::max(32, (height + 4 * threads - 1) / (4 * threads));
  std::vector<Line> lines;  // made here: the body of a region must not throw
  for (int i = 0; i < std::min(threads, (height + band - 1) / band); ++i) lines.emplace_back(chain);
  std::atomic<int> next{0};
  const auto work = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int first = next.fetch_add(band); first < height; first = next.fetch_add(band)) {
        for (int y = first; y < std::min(first + band, height); ++y) take(y, lines[static_cast<size_t>(i)].row(y));
      }
    }
  };
  if (pool == nullptr) {
    work(0, 1);
  } else {
    pool->parallel_for(std::ssize(lines), 1, work);
  }
}

}  // namespace idefics
