// The decoders behind image/codec.h, one per file format. Inside this room and its tests only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "image/codec.h"

namespace idefics {

using Bytes = std::span<const std::byte>;

// A picture as stored, and how it has to be turned: EXIF orientation 1 to 8.
struct Stored {
  Image image;
  int orientation = 1;
};

// One file format. Each function throws the errors of decode_image; `decode` checks the limits itself, through
// check_size, before it allocates.
struct Format {
  std::string_view name;
  bool (*matches)(Bytes bytes);  // by the magic number
  ImageInfo (*probe)(Bytes bytes, const ImageLimits& limits);
  Stored (*decode)(Bytes bytes, const ImageLimits& limits);
};

extern const Format kJpeg, kPng, kWebp, kTiff, kGif, kBmp;

// Throws kImageInvalid, "image: the <format> <problem>".
[[noreturn]] void fail_image(std::string_view format, std::string_view problem);
// The same for data that end before the picture is complete.
[[noreturn]] void fail_truncated(std::string_view format);
// Throws kImageTooLarge, "image: the <format> <problem>".
[[noreturn]] void fail_too_large(std::string_view format, std::string_view problem);
// Throws unless width x height is a size of at least 1 x 1 within the limits.
void check_size(std::string_view format, int64_t width, int64_t height, const ImageLimits& limits);
// A black picture of a size that has been checked.
Image new_image(int width, int height);
// Where row y of a picture starts.
inline uint8_t* row_of(Image& image, int y) {
  return image.rgb.data() + size_t{3} * static_cast<size_t>(image.width) * static_cast<size_t>(y);
}

inline bool starts_with(Bytes bytes, std::string_view magic) {
  return bytes.size() >= magic.size() &&
         std::string_view(reinterpret_cast<const char*>(bytes.data()), magic.size()) == magic;
}
inline const uint8_t* as_u8(Bytes bytes) { return reinterpret_cast<const uint8_t*>(bytes.data()); }

// Pillow's CMYK -> RGB for one pixel; 255 is full ink.
void cmyk_to_rgb(const uint8_t* cmyk, uint8_t* rgb);

// The colours of an indexed picture: a gray ramp until they are set.
class Palette {
 public:
  Palette();
  void set(int index, uint8_t r, uint8_t g, uint8_t b);
  // Entries from `count` on become black, as the reference has those that a file leaves out.
  void set_size(int count);
  bool is_gray_ramp() const;
  // Looks up `count` indices; `rgb` has room for 3 * count values.
  void expand(const uint8_t* indices, size_t count, uint8_t* rgb) const;

 private:
  uint8_t rgb_[256][3];
};
// Replicates `count` gray values.
void gray_to_rgb(const uint8_t* gray, size_t count, uint8_t* rgb);

// Orientation by EXIF data (with or without the prefix "Exif\0\0"), or by XMP text (tiff:Orientation). Nothing when
// absent or unusable.
std::optional<int> exif_orientation(Bytes exif);
std::optional<int> xmp_orientation(Bytes xmp);
// The first of the two that says something; 1 otherwise.
int find_orientation(Bytes exif, Bytes xmp);
// Turns a picture by an EXIF orientation; values outside 2 to 8 leave it as it is.
Image orient(Image image, int orientation);

}  // namespace idefics
