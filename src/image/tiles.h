// From a picture to the square frames that the vision tower sees: resize, stretch, cut, global thumbnail.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "idefics/processor_config.h"
#include "image/image.h"

namespace idefics {

// Every size on the way, without a pixel touched.
struct FramePlan {
  int step1_width = 0,
      step1_height = 0;  // after the resize to the long side (the picture's own size without do_resize)
  int step2_width = 0, step2_height = 0;  // after the stretch to whole tiles (step 1 again without do_image_splitting)
  int rows = 0, cols = 0;                 // grid of tiles; 0 x 0 when the picture is a single frame
  int num_frames = 0;                     // rows * cols tiles and then the global frame, or 1
  int frame_width = 0, frame_height = 0;  // of every frame
};

// The plan for a picture of width x height. Geometry is computed in doubles in the reference's order of operations,
// since neither exact nor float32 arithmetic gives the same sizes. Errors: kImageInvalid for a side below 1; kBadModel
// for a configuration without a usable size; kImageTooLarge when the stretched picture would exceed 2^28 pixels.
FramePlan plan_frames(int width, int height, const ImageProcessorConfig& config);

// The frames of one picture, one after the other: tiles row by row, the global frame last.
struct Frames {
  int rows = 0, cols = 0;     // as in FramePlan
  int width = 0, height = 0;  // of a frame
  int count = 0;
  std::vector<uint8_t> rgb;  // [count, height, width, 3]
  std::span<const uint8_t> frame(int i) const {
    const size_t size = size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height);
    return std::span(rgb).subspan(static_cast<size_t>(i) * size, size);
  }
};

// Follows plan_frames(image.width, image.height, config); same errors. Uses the threads of `pool`, if there is one,
// which do not change the result.
Frames make_frames(const Image& image, const ImageProcessorConfig& config, ThreadPool* pool = nullptr);

// What each byte of each channel becomes [3, 256], as in the reference's PIL back end:
// float32(double(v) * rescale_factor), then (r - mean) / std in float32.
std::array<float, 768> pixel_table(const ImageProcessorConfig& config);
// Rescales and normalises one frame [height, width, 3] to out [3, height, width] float32.
void pixel_values(std::span<const uint8_t> frame_rgb, int width, int height, const ImageProcessorConfig& config,
                  std::span<float> out);

// The frame [height, width, 3] as the bytes of a PNG file.
std::string encode_png(std::span<const uint8_t> rgb, int width, int height);

}  // namespace idefics
