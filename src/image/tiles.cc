#include "image/tiles.h"

#include <fmt/format.h>
#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/large_bytes.h"
#include "idefics/error.h"
#include "image/resize.h"

namespace idefics {
namespace {

constexpr int kMaxSide = 4096;                    // the reference's cap on the result of the first resize
constexpr int64_t kMaxPixels = int64_t{1} << 28;  // of the stretched picture

struct Size {
  int64_t width, height;
  bool operator==(const Size&) const = default;
};

// Step 1: the long side becomes `longest_edge`, the short one follows and is made even; then the cap, which keeps odd
// sizes.
Size resize_to_longest_edge(Size s, int longest_edge) {
  double aspect = static_cast<double>(s.width) / static_cast<double>(s.height);
  if (s.width >= s.height) {
    s.width = longest_edge;
    s.height = static_cast<int64_t>(static_cast<double>(s.width) / aspect);
    s.height += s.height % 2;
  } else {
    s.height = longest_edge;
    s.width = static_cast<int64_t>(static_cast<double>(s.height) * aspect);
    s.width += s.width % 2;
  }
  s = {std::max<int64_t>(s.width, 1), std::max<int64_t>(s.height, 1)};

  aspect = static_cast<double>(s.width) / static_cast<double>(s.height);
  if (s.width >= s.height && s.width > kMaxSide) {
    s.width = kMaxSide;
    s.height = static_cast<int64_t>(static_cast<double>(s.width) / aspect);
  } else if (s.height > s.width && s.height > kMaxSide) {
    s.height = kMaxSide;
    s.width = static_cast<int64_t>(static_cast<double>(s.height) * aspect);
  }
  return {std::max<int64_t>(s.width, 1), std::max<int64_t>(s.height, 1)};
}

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Step 2: both sides become multiples of the tile; the short one is computed from the long one already rounded up.
Size stretch_to_tiles(Size s, int tile) {
  const double aspect = static_cast<double>(s.width) / static_cast<double>(s.height);
  if (s.width >= s.height) {
    s.width = round_up(s.width, tile);
    s.height = round_up(static_cast<int64_t>(static_cast<double>(s.width) / aspect), tile);
  } else {
    s.height = round_up(s.height, tile);
    s.width = round_up(static_cast<int64_t>(static_cast<double>(s.height) * aspect), tile);
  }
  return s;
}

// Where the part of row y of the stretched picture lies that belongs to a column of frames.
uint8_t* part_of_row(Frames& frames, int y, int col) {
  const size_t frame = static_cast<size_t>(y / frames.height * frames.cols + col);
  const size_t row = frame * static_cast<size_t>(frames.height) + static_cast<size_t>(y % frames.height);
  return frames.rgb.data() + row * static_cast<size_t>(frames.width) * 3;
}

// The last frame: the stretched picture, which lies cut into the others, at their size.
void add_global_frame(const FramePlan& plan, Resample filter, ThreadPool* pool, Frames& frames) {
  RowPasses passes;
  add_resize(passes, plan.step2_width, plan.step2_height, plan.frame_width, plan.frame_height, filter);
  const size_t part = size_t{3} * static_cast<size_t>(plan.frame_width);
  const auto join = [&frames, part](int first, int count, uint8_t* const* out) {
    for (int r = 0; r < count; ++r) {
      for (int col = 0; col < frames.cols; ++col)
        std::memcpy(out[r] + static_cast<size_t>(col) * part, part_of_row(frames, first + r, col), part);
    }
  };
  const auto source = [&](int window) { return computed_rows(plan.step2_width, plan.step2_height, window, join); };
  uint8_t* const global = frames.rgb.data() + static_cast<size_t>(frames.count - 1) * frames.frame(0).size();
  compute_rows({source, plan.step2_width, plan.step2_height, passes}, pool,
               [&](int y, const uint8_t* row) { std::memcpy(global + static_cast<size_t>(y) * part, row, part); });
}

}  // namespace

FramePlan plan_frames(int width, int height, const ImageProcessorConfig& config) {
  if (width < 1 || height < 1) {
    throw Error(ErrorCode::kImageInvalid, fmt::format("image: {} x {} pixels, wanted at least 1 x 1", width, height));
  }
  const int tile = config.max_image_size;
  if (tile < 1)
    throw Error(ErrorCode::kBadModel, fmt::format("image processor: max_image_size is {}, wanted at least 1", tile));
  Size step1 = {width, height};
  if (config.do_resize) {
    if (config.height && config.width) {
      step1 = {*config.width, *config.height};
    } else if (config.longest_edge > 0) {
      step1 = resize_to_longest_edge(step1, config.longest_edge);
    } else {
      step1 = {0, 0};
    }
    if (step1.width < 1 || step1.height < 1) {
      throw Error(ErrorCode::kBadModel, "image processor: size needs longest_edge, or height and width, of at least 1");
    }
  }
  const Size step2 = config.do_image_splitting ? stretch_to_tiles(step1, tile) : step1;
  // Bounding the sides first keeps the product within 64 bits.
  if (step2.width > kMaxPixels || step2.height > kMaxPixels || step2.width * step2.height > kMaxPixels ||
      int64_t{tile} * tile > kMaxPixels) {
    throw Error(
        ErrorCode::kImageTooLarge,
        fmt::format("image: {} x {} pixels would become {} x {} in tiles of {}, more than {} pixels; send a smaller "
                    "picture or set do_resize",
                    width, height, step2.width, step2.height, tile, kMaxPixels));
  }

  FramePlan plan;
  plan.step1_width = static_cast<int>(step1.width), plan.step1_height = static_cast<int>(step1.height);
  plan.step2_width = static_cast<int>(step2.width), plan.step2_height = static_cast<int>(step2.height);
  if (config.do_image_splitting && (plan.step2_width > tile || plan.step2_height > tile)) {
    plan.rows = plan.step2_height / tile, plan.cols = plan.step2_width / tile;
  }
  plan.num_frames = plan.rows * plan.cols + 1;
  plan.frame_width = plan.frame_height = tile;
  return plan;
}

Frames make_frames(const Image& image, const ImageProcessorConfig& config, ThreadPool* pool) {
  const FramePlan plan = plan_frames(image.width, image.height, config);
  Frames frames;
  frames.rows = plan.rows, frames.cols = plan.cols;
  frames.width = plan.frame_width, frames.height = plan.frame_height;
  frames.count = plan.num_frames;
  const size_t part = size_t{3} * static_cast<size_t>(frames.width);
  frames.rgb = large_bytes(static_cast<size_t>(frames.count) * static_cast<size_t>(frames.height) * part);

  RowPasses passes;
  const Resample filter = config.resample;
  add_resize(passes, image.width, image.height, plan.step1_width, plan.step1_height, filter);
  add_resize(passes, plan.step1_width, plan.step1_height, plan.step2_width, plan.step2_height, filter);
  const bool cut = plan.rows > 0;
  // A single frame is the stretched picture once more resized.
  if (!cut) add_resize(passes, plan.step2_width, plan.step2_height, frames.width, frames.height, filter);
  const auto source = [&](int) { return stored_rows(image.rgb.data(), image.width); };
  compute_rows({source, image.width, image.height, passes}, pool, [&](int y, const uint8_t* row) {
    for (int col = 0; col < std::max(frames.cols, 1); ++col)
      std::memcpy(part_of_row(frames, y, col), row + static_cast<size_t>(col) * part, part);
  });
  // The last frame comes from the stretched picture, whose aspect ratio is no longer the original's.
  if (cut) add_global_frame(plan, filter, pool, frames);
  return frames;
}

std::array<float, 768> pixel_table(const ImageProcessorConfig& config) {
  std::array<float, 768> table;
  for (size_t channel = 0; channel < 3; ++channel) {
    for (int v = 0; v < 256; ++v) {
      float r = static_cast<float>(v);
      if (config.do_rescale) r = static_cast<float>(static_cast<double>(v) * config.rescale_factor);
      if (config.do_normalize) r = (r - config.image_mean[channel]) / config.image_std[channel];
      table[channel * 256 + static_cast<size_t>(v)] = r;
    }
  }
  return table;
}

void pixel_values(std::span<const uint8_t> frame_rgb, int width, int height, const ImageProcessorConfig& config,
                  std::span<float> out) {
  const size_t plane = static_cast<size_t>(width) * static_cast<size_t>(height);
  IDEFICS_CHECK(frame_rgb.size() == 3 * plane && out.size() == 3 * plane);
  const std::array<float, 768> table = pixel_table(config);
  for (size_t channel = 0; channel < 3; ++channel) {
    const uint8_t* from = frame_rgb.data() + channel;
    float* to = out.data() + channel * plane;
    for (size_t i = 0; i < plane; ++i) to[i] = table[channel * 256 + from[3 * i]];
  }
}

std::string encode_png(std::span<const uint8_t> rgb, int width, int height) {
  IDEFICS_CHECK(width > 0 && height > 0 &&
                rgb.size() == size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height));
  png_image png = {};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(width);
  png.height = static_cast<png_uint_32>(height);
  png.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::string bytes(size, '\0');
  const int good = png_image_write_to_memory(&png, bytes.data(), &size, 0, rgb.data(), 0, nullptr);
  png_image_free(&png);
  if (!good) throw Error(ErrorCode::kInternal, "image: writing a PNG failed");
  bytes.resize(size);
  return bytes;
}

}  // namespace idefics
