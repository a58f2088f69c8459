#include "image/codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/large_bytes.h"
#include "image/formats.h"

namespace idefics {
namespace {

constexpr std::array kFormats = {&kJpeg, &kPng, &kWebp, &kTiff, &kGif, &kBmp};

const Format& format_of(Bytes bytes, const ImageLimits& limits) {
  if (bytes.size() > limits.max_bytes) {
    throw Error(
        ErrorCode::kImageTooLarge,
        fmt::format("image: {} bytes, more than the limit of {}; send a smaller file", bytes.size(), limits.max_bytes));
  }
  if (bytes.empty())
    throw Error(ErrorCode::kImageInvalid, "image: no bytes; wanted a JPEG, PNG, WebP, TIFF, GIF or BMP file");
  for (const Format* format : kFormats) {
    if (format->matches(bytes)) return *format;
  }
  throw Error(ErrorCode::kImageInvalid,
              "image: not a picture; wanted the bytes of a JPEG, PNG, WebP, TIFF, GIF or BMP file");
}

}  // namespace

ImageInfo probe_image(std::span<const std::byte> bytes, const ImageLimits& limits) {
  return format_of(bytes, limits).probe(bytes, limits);
}

Image decode_image(std::span<const std::byte> bytes, const ImageLimits& limits) {
  Stored stored = format_of(bytes, limits).decode(bytes, limits);
  return orient(std::move(stored.image), stored.orientation);
}

void fail_image(std::string_view format, std::string_view problem) {
  throw Error(ErrorCode::kImageInvalid, fmt::format("image: the {} {}", format, problem));
}

void fail_truncated(std::string_view format) { fail_image(format, "file is cut off; send the whole file"); }

void fail_too_large(std::string_view format, std::string_view problem) {
  throw Error(ErrorCode::kImageTooLarge, fmt::format("image: the {} {}", format, problem));
}

void check_size(std::string_view format, int64_t width, int64_t height, const ImageLimits& limits) {
  if (width < 1 || height < 1) {
    fail_image(format, fmt::format("picture is {} x {} pixels, wanted at least 1 x 1", width, height));
  }
  if (width > limits.max_side || height > limits.max_side) {
    fail_too_large(format,
                   fmt::format("picture is {} x {} pixels, more than the limit of {} a side; send a smaller one", width,
                               height, limits.max_side));
  }
  // Sides fit in an int here, so that the product cannot wrap.
  if (static_cast<uint64_t>(width) * static_cast<uint64_t>(height) > limits.max_pixels) {
    fail_too_large(format,
                   fmt::format("picture is {} x {} pixels, more than the limit of {} in all; send a smaller one", width,
                               height, limits.max_pixels));
  }
}

Image new_image(int width, int height) {
  return {width, height, large_bytes(size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height))};
}

void cmyk_to_rgb(const uint8_t* cmyk, uint8_t* rgb) {
  const int white = 255 - cmyk[3];
  for (int i = 0; i < 3; ++i) {
    const int product = cmyk[i] * white + 128;
    rgb[i] =
        static_cast<uint8_t>(std::clamp(white - ((product + (product >> 8)) >> 8), 0, 255));  // rounded product / 255
  }
}

Palette::Palette() {
  for (int i = 0; i < 256; ++i) std::fill_n(rgb_[i], 3, static_cast<uint8_t>(i));
}

void Palette::set(int index, uint8_t r, uint8_t g, uint8_t b) {
  rgb_[index][0] = r, rgb_[index][1] = g, rgb_[index][2] = b;
}

void Palette::set_size(int count) {
  for (int i = count; i < 256; ++i) set(i, 0, 0, 0);
}

bool Palette::is_gray_ramp() const { return std::memcmp(rgb_, Palette().rgb_, sizeof(rgb_)) == 0; }

void Palette::expand(const uint8_t* indices, size_t count, uint8_t* rgb) const {
  for (size_t i = 0; i < count; ++i) std::copy_n(rgb_[indices[i]], 3, rgb + 3 * i);
}

void gray_to_rgb(const uint8_t* gray, size_t count, uint8_t* rgb) {
  for (size_t i = 0; i < count; ++i) std::fill_n(rgb + 3 * i, 3, gray[i]);
}

}  // namespace idefics
