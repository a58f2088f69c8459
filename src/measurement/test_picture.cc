#include "measurement/test_picture.h"

#include <cstdint>
#include <vector>

#include "image/tiles.h"

namespace idefics {

std::string make_test_picture(int width, int height) {
  std::vector<uint8_t> rgb;
  rgb.reserve(size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height));
  // Slopes across the whole picture, with rings on them.
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      rgb.push_back(static_cast<uint8_t>(255 * x / width));
      rgb.push_back(static_cast<uint8_t>(255 * y / height));
      rgb.push_back(static_cast<uint8_t>((x * x + y * y) >> 12));
    }
  }
  return encode_png(rgb, width, height);
}

}  // namespace idefics
