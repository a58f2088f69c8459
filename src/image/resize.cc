#include "image/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "base/check.h"
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

Image resize_vertical(const Image& in, int height, Filter filter) {
  const size_t row_bytes = size_t{3} * static_cast<size_t>(in.width);
  Image out{in.width, height, std::vector<uint8_t>(row_bytes * static_cast<size_t>(height))};
  vertical_pass(make_axis(in.height, height, filter), in.rgb.data(), row_bytes, out.rgb.data());
  return out;
}

Image resize_horizontal(const Image& in, int width, Filter filter) {
  Image out{width, in.height,
            std::vector<uint8_t>(size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(in.height))};
  horizontal_pass(make_axis(in.width, width, filter), in.rgb.data(), in.width, in.height, out.rgb.data());
  return out;
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

Image resize_nearest(const Image& in, int width, int height) {
  const std::vector<int> columns = nearest_inputs(in.width, width), rows = nearest_inputs(in.height, height);
  Image out{width, height, std::vector<uint8_t>(size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height))};
  uint8_t* to = out.rgb.data();
  for (const int row : rows) {
    for (const int column : columns) {
      if (row >= 0 && column >= 0) {
        const size_t at = static_cast<size_t>(row) * static_cast<size_t>(in.width) + static_cast<size_t>(column);
        std::memcpy(to, in.rgb.data() + 3 * at, 3);
      }
      to += 3;
    }
  }
  return out;
}

}  // namespace

Image resize(const Image& image, int width, int height, Resample filter) {
  IDEFICS_CHECK(width > 0 && height > 0 && image.width > 0 && image.height > 0);
  if (image.width == width && image.height == height) return image;
  if (filter == Resample::kNearest) return resize_nearest(image, width, height);
  const Filter f = filter_of(filter);
  if (image.width == width) return resize_vertical(image, height, f);
  if (image.height == height) return resize_horizontal(image, width, f);
  const int shrink_x = image.width - width, shrink_y = image.height - height;
  if (shrink_y > 0 && shrink_y > 2 * shrink_x) return resize_horizontal(resize_vertical(image, height, f), width, f);
  return resize_vertical(resize_horizontal(image, width, f), height, f);
}

}  // namespace idefics
