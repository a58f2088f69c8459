#include "image/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "base/check.h"
#include "base/large_bytes.h"
#include "image/resize_pass.h"

namespace idefics {
namespace {

// ---- filters: F(t), zero outside [-support, support] ----

double box(double t) { return t > -0.5 && t <= 0.5 ? 1.0 : 0.0; }

double triangle(double t) {
  t = std::fabs(t);
  return t < 1.0 ? 1.0 - t : 0.0;
}

double hamming(double t) {
  t = std::fabs(t);
  if (t == 0.0) return 1.0;
  if (t >= 1.0) return 0.0;
  t *= std::numbers::pi;
  // The reference has these two constants in single precision.
  return std::sin(t) / t * (static_cast<double>(0.54f) + static_cast<double>(0.46f) * std::cos(t));
}

double bicubic(double t) {
  constexpr double a = -0.5;
  t = std::fabs(t);
  if (t < 1.0) return ((a + 2.0) * t - (a + 3.0)) * t * t + 1;
  if (t < 2.0) return (((t - 5) * t + 8) * t - 4) * a;
  return 0.0;
}

double sinc(double t) {
  if (t == 0.0) return 1.0;
  t *= std::numbers::pi;
  return std::sin(t) / t;
}

double lanczos(double t) { return t >= -3.0 && t < 3.0 ? sinc(t) * sinc(t / 3) : 0.0; }

struct Filter {
  double (*value)(double);
  double support;
};

Filter filter_of(Resample filter) {
  switch (filter) {
    case Resample::kBox: return {box, 0.5};
    case Resample::kBilinear: return {triangle, 1.0};
    case Resample::kHamming: return {hamming, 1.0};
    case Resample::kBicubic: return {bicubic, 2.0};
    default: return {lanczos, 3.0};
  }
}

int32_t to_fixed(double weight) {
  const double scaled = weight * (1 << kWeightBits);
  return static_cast<int32_t>(weight < 0 ? scaled - 0.5 : scaled + 0.5);
}

// Products are evaluated in this order (a multiplication by 1/scale, not a division): one bit of difference could move
// a rounded weight.
Axis make_axis(int in, int out, Filter filter) {
  const double scale = static_cast<double>(in) / out;
  const double filter_scale = std::max(scale, 1.0);
  const double support = filter.support * filter_scale;
  const double inverse = 1.0 / filter_scale;
  Axis axis;
  axis.taps = static_cast<int>(std::ceil(support)) * 2 + 1;
  axis.windows.resize(static_cast<size_t>(out));
  axis.weights.assign(static_cast<size_t>(out) * static_cast<size_t>(axis.taps), 0);
  std::vector<double> w(static_cast<size_t>(axis.taps));
  for (int x = 0; x < out; ++x) {
    const double center = (x + 0.5) * scale;
    const int lo = std::max(static_cast<int>(center - support + 0.5), 0);
    const int hi = std::min(static_cast<int>(center + support + 0.5), in);
    const int count = hi - lo;
    double sum = 0.0;
    for (int i = 0; i < count; ++i) sum += w[static_cast<size_t>(i)] = filter.value((i + lo - center + 0.5) * inverse);
    int32_t* weights = axis.weights.data() + static_cast<size_t>(x) * static_cast<size_t>(axis.taps);
    for (int i = 0; i < count; ++i) {
      double weight = w[static_cast<size_t>(i)];
      if (sum != 0.0) weight /= sum;
      weights[i] = to_fixed(weight);
    }
    axis.windows[static_cast<size_t>(x)] = {lo, count};
  }
  return axis;
}

// For each output the input that it takes, or -1. The coordinate is summed up step by step, rounding errors included,
// as the reference does.
std::vector<int> nearest_inputs(int in, int out) {
  const double step = static_cast<double>(in) / out;
  std::vector<int> inputs;
  double position = step * 0.5;
  for (int x = 0; x < out; ++x, position += step) {
    const int at = static_cast<int>(position);
    inputs.push_back(at < in ? at : -1);
  }
  return inputs;
}

class NearestPass final : public RowPass {
 public:
  NearestPass(int in_width, int in_height, int out_width, int out_height)
      : RowPass(out_width, out_height),
        columns_(nearest_inputs(in_width, out_width)),
        rows_(nearest_inputs(in_height, out_height)) {}
  int window() const override { return 1; }
  void compute(RowSource& in, int first, int count, Scratch&, uint8_t* const* out) const override {
    for (int r = 0; r < count; ++r) {
      const int from = rows_[static_cast<size_t>(first + r)];
      pick(from < 0 ? nullptr : in.row(from), out[r]);
    }
  }

 private:
  void pick(const uint8_t* row, uint8_t* out) const {
    for (const int column : columns_) {
      for (int c = 0; c < 3; ++c) *out++ = row != nullptr && column >= 0 ? row[3 * column + c] : uint8_t{0};
    }
  }
  std::vector<int> columns_, rows_;
};

}  // namespace

void add_resize(RowPasses& passes, int in_width, int in_height, int width, int height, Resample filter) {
  IDEFICS_CHECK(width > 0 && height > 0 && in_width > 0 && in_height > 0);
  if (in_width == width && in_height == height) return;
  if (filter == Resample::kNearest) {
    passes.push_back(std::make_unique<NearestPass>(in_width, in_height, width, height));
    return;
  }
  const Filter f = filter_of(filter);
  const int shrink_x = in_width - width, shrink_y = in_height - height;
  if (shrink_y > 0 && shrink_y > 2 * shrink_x) {
    passes.push_back(vertical_pass(make_axis(in_height, height, f), in_width));
    in_height = height;
  }
  if (in_width != width) passes.push_back(horizontal_pass(make_axis(in_width, width, f), in_width, in_height));
  if (in_height != height) passes.push_back(vertical_pass(make_axis(in_height, height, f), width));
}

Image resize(const Image& image, int width, int height, Resample filter, ThreadPool* pool) {
  RowPasses passes;
  add_resize(passes, image.width, image.height, width, height, filter);
  Image out{width, height, large_bytes(size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height))};
  const size_t row_bytes = size_t{3} * static_cast<size_t>(width);
  compute_rows({[&](int) { return stored_rows(image.rgb.data(), image.width); }, image.width, image.height, passes},
               pool, [&](int y, const uint8_t* row) {
                 std::memcpy(out.rgb.data() + static_cast<size_t>(y) * row_bytes, row, row_bytes);
               });
  return out;
}

}  // namespace idefics
