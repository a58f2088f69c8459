// Encoded pictures (JPEG, PNG, WebP, TIFF, GIF, BMP) to RGB, as the reference loads a file: EXIF orientation applied,
// alpha dropped, 16-bit gray clipped at 255, gamma and colour profiles ignored, the first frame of an animation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "idefics/error.h"
#include "image/image.h"

namespace idefics {

// What a picture may cost. Checked from its header, before memory for pixels is allocated.
struct ImageLimits {
  uint64_t max_bytes = 20 * uint64_t{1} << 20;    // encoded
  uint64_t max_pixels = 89'478'485;               // width * height
  int max_side = 65'500;                          // pixels
  int max_jpeg_scans = 1000;                      // of a progressive JPEG
  uint64_t max_decode_bytes = uint64_t{1} << 30;  // work memory of a decoder beside the picture itself
};

struct ImageInfo {
  std::string_view format;    // "jpeg", "png", "webp", "tiff", "gif", "bmp"
  int width = 0, height = 0;  // as stored, before the EXIF orientation
};

// Format and size from the header alone. Errors as decode_image, as far as the header shows them.
ImageInfo probe_image(std::span<const std::byte> bytes, const ImageLimits& limits = {});

// The whole picture. The format is decided by its first bytes, never by a name.
// Errors: kImageInvalid (not a picture, damaged, cut off, of an unsupported kind), kImageTooLarge (over a limit).
// The text of an error is one line of our own. Threads: no shared state.
Image decode_image(std::span<const std::byte> bytes, const ImageLimits& limits = {});

}  // namespace idefics
