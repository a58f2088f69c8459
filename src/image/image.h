// A decoded picture: 8-bit RGB, nothing else. Every other colour kind ends at the decoder.
#pragma once

#include <cstdint>
#include <vector>

namespace idefics {

struct Image {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  // [height, width, 3], row-major, no padding
};

}  // namespace idefics
