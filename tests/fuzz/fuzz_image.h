// One decoder under the fuzzer, whatever the first bytes say.
#pragma once

#include "image/formats.h"

namespace idefics {

inline int fuzz_image(const Format& format, const uint8_t* data, size_t size) {
  // Small, so that the time goes into parsing and not into filling pixels.
  const ImageLimits limits = {.max_bytes = 1 << 20,
                              .max_pixels = 1 << 16,
                              .max_side = 1 << 12,
                              .max_jpeg_scans = 20,
                              .max_decode_bytes = 16 << 20};
  const Bytes bytes = std::as_bytes(std::span(data, size));
  try {
    format.probe(bytes, limits);
  } catch (const Error&) {
  }
  try {
    Stored stored = format.decode(bytes, limits);
    orient(std::move(stored.image), stored.orientation);
  } catch (const Error&) {
  }
  return 0;
}

}  // namespace idefics
