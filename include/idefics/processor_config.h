// What the image processor of a checkpoint does to a picture (preprocessor_config.json or processor_config.json).
#pragma once

#include <array>
#include <cstdint>
#include <optional>

namespace idefics {

// PIL's numbers of the resampling filters.
enum class Resample : int { kNearest = 0, kLanczos = 1, kBilinear = 2, kBicubic = 3, kBox = 4, kHamming = 5 };

// Defaults are those of the reference's image processor class, used for keys that a file leaves out.
struct ImageProcessorConfig {
  bool do_convert_rgb = true;
  bool do_resize = true;
  // Target of the first resize: the long side in pixels (`longest_edge`), or a fixed height and width when both are
  // set.
  int longest_edge = 1456;
  std::optional<int> height, width;
  Resample resample = Resample::kLanczos;
  bool do_image_splitting = true;
  int max_image_size = 364;  // side of a tile, pixels (`max_image_size.longest_edge`)
  bool do_rescale = true;
  double rescale_factor = 1.0 / 255.0;
  bool do_normalize = true;
  std::array<float, 3> image_mean = {0.5f, 0.5f, 0.5f};
  std::array<float, 3> image_std = {0.5f, 0.5f, 0.5f};
  bool do_pad = true;
};

// processor_config.json.
struct ProcessorConfig {
  ImageProcessorConfig image;
  int image_seq_len = 169;  // image tokens a tile takes in the prompt
};

}  // namespace idefics
