// The two passes, by the loops of resize_loops.h where the processor has any, and in plain C++ for other processors and
// for tails.
#include "image/resize_pass.h"

#include <algorithm>

#include "image/resize_loops.h"

namespace idefics {
namespace {

constexpr int32_t kHalf = 1 << (kWeightBits - 1);

uint8_t to_byte(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kWeightBits, 0, 255)); }

// Columns [start, row_bytes) of one output row from `count` input rows.
void weigh_columns(const int32_t* weights, int count, const uint8_t* const* in, size_t row_bytes, size_t start,
                   uint8_t* out) {
  constexpr size_t kBlock = 1024;
  int32_t sums[kBlock];
  for (; start < row_bytes; start += kBlock) {
    const size_t columns = std::min(kBlock, row_bytes - start);
    std::fill_n(sums, columns, kHalf);
    for (int i = 0; i < count; ++i) {
      const uint8_t* from = in[i] + start;
      for (size_t j = 0; j < columns; ++j) sums[j] += from[j] * weights[i];
    }
    for (size_t j = 0; j < columns; ++j) out[start + j] = to_byte(sums[j]);
  }
}

WeightPair make_pair(int32_t first, int32_t second) {
  const auto join = [](int32_t a, int32_t b) {
    return static_cast<int32_t>((static_cast<uint32_t>(a) & 0xFFFF) | static_cast<uint32_t>(b) << 16);
  };
  return {join(first >> 12, second >> 12), join(first & 0xFFF, second & 0xFFF)};
}

// The weights of an axis for the horizontal pass: every window begins at an even pixel, so that the row can be laid out
// in pairs of pixels once.
struct PairedAxis {
  std::vector<PairWindow> windows;
  std::vector<WeightPair> pairs;  // one window's after the other's
};

PairedAxis pair_up(const Axis& axis) {
  PairedAxis paired;
  for (size_t x = 0; x < axis.windows.size(); ++x) {
    const Axis::Window window = axis.windows[x];
    const int32_t* weights = axis.weights.data() + x * static_cast<size_t>(axis.taps);
    const auto weight = [&](int pixel) {
      return pixel >= window.first && pixel < window.first + window.count ? weights[pixel - window.first] : 0;
    };
    const int first_pair = window.first / 2, num_pairs = (window.first + window.count + 1) / 2 - first_pair;
    paired.windows.push_back({first_pair, num_pairs});
    for (int p = first_pair; p < first_pair + num_pairs; ++p)
      paired.pairs.push_back(make_pair(weight(2 * p), weight(2 * p + 1)));
  }
  return paired;
}

class HorizontalPass final : public RowPass {
 public:
  HorizontalPass(const Axis& axis, int in_width, int height, const ResizeLoops& loops)
      : RowPass(static_cast<int>(axis.windows.size()), height),
        axis_(pair_up(axis)),
        in_width_(in_width),
        loops_(loops) {}
  int window() const override { return kBatch; }
  Scratch make_scratch() const override {
    const size_t pairs = (static_cast<size_t>(in_width_) + 1) / 2;
    return {std::vector<int16_t>(pairs * size_t{8 * kBatch}), {}};
  }
  void compute(RowSource& in, int first, int count, Scratch& scratch, uint8_t* const* out) const override {
    static_assert(kBatch == ResizeLoops::kRows);
    int16_t* const laid_out = scratch.values.data();
    for (int r = 0; r < count; ++r) loops_.lay_out(in.row(first + r), in_width_, r, laid_out);
    loops_.weigh_pixels(axis_.windows.data(), axis_.windows.size(), axis_.pairs.data(), laid_out, count, out);
  }

 private:
  PairedAxis axis_;
  int in_width_;
  const ResizeLoops& loops_;
};

class PlainHorizontalPass final : public RowPass {
 public:
  PlainHorizontalPass(const Axis& axis, int height)
      : RowPass(static_cast<int>(axis.windows.size()), height), axis_(axis) {}
  int window() const override { return 1; }
  void compute(RowSource& in, int first, int count, Scratch&, uint8_t* const* out) const override {
    for (int r = 0; r < count; ++r) weigh_row(in.row(first + r), out[r]);
  }

 private:
  void weigh_row(const uint8_t* in, uint8_t* out) const {
    const int32_t* weights = axis_.weights.data();
    for (const auto& [first, count] : axis_.windows) {
      int32_t sums[3] = {kHalf, kHalf, kHalf};
      const uint8_t* from = in + size_t{3} * static_cast<size_t>(first);
      for (int i = 0; i < count; ++i) {
        for (int c = 0; c < 3; ++c) sums[c] += *from++ * weights[i];
      }
      for (const int32_t sum : sums) *out++ = to_byte(sum);
      weights += axis_.taps;
    }
  }

  Axis axis_;
};

class VerticalPass final : public RowPass {
 public:
  VerticalPass(Axis axis, int width, const ResizeLoops* loops)
      : RowPass(width, static_cast<int>(axis.windows.size())), axis_(std::move(axis)), loops_(loops) {
    for (size_t y = 0; y < axis_.windows.size(); ++y) {
      const auto weight = [&](int i) { return i < axis_.windows[y].count ? weights(y)[i] : 0; };
      for (int i = 0; i < axis_.taps; i += 2) pairs_.push_back(make_pair(weight(i), weight(i + 1)));
    }
  }
  int window() const override { return axis_.taps; }
  Scratch make_scratch() const override { return {{}, std::vector<const uint8_t*>(static_cast<size_t>(axis_.taps))}; }
  void compute(RowSource& in, int first, int count, Scratch& scratch, uint8_t* const* out) const override {
    for (int r = 0; r < count; ++r) weigh_row(in, static_cast<size_t>(first + r), scratch.rows, out[r]);
  }

 private:
  const int32_t* weights(size_t y) const { return axis_.weights.data() + y * static_cast<size_t>(axis_.taps); }
  void weigh_row(RowSource& in, size_t y, std::vector<const uint8_t*>& rows, uint8_t* out) const {
    const auto [first, count] = axis_.windows[y];
    for (int i = 0; i < count; ++i) rows[static_cast<size_t>(i)] = in.row(first + i);
    const size_t row_bytes = size_t{3} * static_cast<size_t>(width());
    const WeightPair* pairs = pairs_.data() + y * ((static_cast<size_t>(axis_.taps) + 1) / 2);
    const size_t done = loops_ == nullptr ? 0 : loops_->weigh_rows(pairs, count, rows.data(), row_bytes, out);
    weigh_columns(weights(y), count, rows.data(), row_bytes, done, out);
  }

  Axis axis_;
  const ResizeLoops* loops_;
  std::vector<WeightPair> pairs_;  // [outputs, (taps + 1) / 2]
};

}  // namespace

const ResizeLoops* fastest_loops() { return resize_loops().empty() ? nullptr : resize_loops().front(); }

std::unique_ptr<const RowPass> horizontal_pass(const Axis& axis, int in_width, int height, const ResizeLoops* loops) {
  if (loops == nullptr) return std::make_unique<PlainHorizontalPass>(axis, height);
  return std::make_unique<HorizontalPass>(axis, in_width, height, *loops);
}

std::unique_ptr<const RowPass> vertical_pass(Axis axis, int width, const ResizeLoops* loops) {
  return std::make_unique<VerticalPass>(std::move(axis), width, loops);
}

}  // namespace idefics
