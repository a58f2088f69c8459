// TIFF, by libtiff: the first page.
#include <tiffio.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "image/formats.h"

namespace idefics {
namespace {

constexpr std::string_view kName = "TIFF";

// ---- the file in memory ----

struct Source {
  Bytes bytes;
  uint64_t position = 0;
};

Source& source_of(thandle_t handle) { return *static_cast<Source*>(handle); }

tmsize_t read_bytes(thandle_t handle, void* to, tmsize_t size) {
  Source& source = source_of(handle);
  if (size <= 0 || source.position >= source.bytes.size()) return 0;
  const size_t count = std::min(static_cast<size_t>(size), source.bytes.size() - static_cast<size_t>(source.position));
  std::memcpy(to, source.bytes.data() + source.position, count);
  source.position += count;
  return static_cast<tmsize_t>(count);
}

toff_t seek_to(thandle_t handle, toff_t offset, int whence) {
  Source& source = source_of(handle);
  if (whence == SEEK_CUR) offset += source.position;
  if (whence == SEEK_END) offset += source.bytes.size();
  return source.position = offset;
}

int map_file(thandle_t handle, void** base, toff_t* size) {
  const Bytes bytes = source_of(handle).bytes;
  *base = const_cast<std::byte*>(bytes.data());  // libtiff only reads through it
  *size = bytes.size();
  return 1;
}

int swallow_message(TIFF*, void*, const char*, const char*, va_list) { return 1; }

struct CloseTiff {
  void operator()(TIFF* tiff) const { TIFFClose(tiff); }
};
using Tiff = std::unique_ptr<TIFF, CloseTiff>;

Tiff open_tiff(Source& source, const ImageLimits& limits) {
  struct FreeOptions {
    void operator()(TIFFOpenOptions* options) const { TIFFOpenOptionsFree(options); }
  };
  const std::unique_ptr<TIFFOpenOptions, FreeOptions> options(TIFFOpenOptionsAlloc());
  if (!options) throw std::bad_alloc();
  TIFFOpenOptionsSetErrorHandlerExtR(options.get(), swallow_message, nullptr);
  TIFFOpenOptionsSetWarningHandlerExtR(options.get(), swallow_message, nullptr);
  TIFFOpenOptionsSetMaxSingleMemAlloc(options.get(),
                                      static_cast<tmsize_t>(std::min<uint64_t>(limits.max_decode_bytes, INT64_MAX)));
  Tiff tiff(TIFFClientOpenExt(
      "", "r", &source, read_bytes, [](thandle_t, void*, tmsize_t) -> tmsize_t { return 0; }, seek_to,
      [](thandle_t) { return 0; }, [](thandle_t handle) -> toff_t { return source_of(handle).bytes.size(); }, map_file,
      [](thandle_t, void*, toff_t) {}, options.get()));
  if (!tiff) fail_image(kName, "file is damaged");
  return tiff;
}

template <class T>
T field(TIFF* tiff, uint32_t tag, T otherwise) {
  T value{};
  return TIFFGetFieldDefaulted(tiff, tag, &value) ? value : otherwise;
}

// ---- what the samples mean ----

enum class Color { kGray, kIndexed, kRgb, kCmyk, kYcbcr };

struct Layout {
  int width = 0, height = 0;
  Color color = Color::kGray;
  uint16_t bits = 1;     // per sample
  uint16_t samples = 1;  // per pixel
  uint16_t format = SAMPLEFORMAT_UINT;
  bool white_is_zero = false;
  bool premultiplied = false;  // the sample after the colour is an alpha that they have been multiplied with
  bool planar = false;         // one plane after the other
};

size_t color_samples(Color color) {
  switch (color) {
    case Color::kGray:
    case Color::kIndexed: return 1;
    case Color::kRgb:
    case Color::kYcbcr: return 3;
    case Color::kCmyk: return 4;
  }
  return 0;
}

Color color_of(uint16_t photometric, uint16_t samples) {
  switch (photometric) {
    case PHOTOMETRIC_MINISWHITE:
    case PHOTOMETRIC_MINISBLACK: return Color::kGray;
    case PHOTOMETRIC_RGB: return Color::kRgb;
    case PHOTOMETRIC_PALETTE: return Color::kIndexed;
    case PHOTOMETRIC_SEPARATED: return Color::kCmyk;
    case PHOTOMETRIC_YCBCR: return samples == 1 ? Color::kGray : Color::kYcbcr;
    default: fail_image(kName, "file has an unsupported colour space");
  }
}

bool depth_supported(const Layout& l) {
  if (l.format == SAMPLEFORMAT_IEEEFP) return l.bits == 32 && l.color == Color::kGray && l.samples == 1;
  if (l.format == SAMPLEFORMAT_INT && l.bits < 8) return false;
  if (l.format != SAMPLEFORMAT_UINT && l.format != SAMPLEFORMAT_INT) return false;
  switch (l.bits) {
    case 1:
    case 2:
    case 4: return l.samples == 1 && (l.color == Color::kGray || l.color == Color::kIndexed);
    case 8: return true;
    case 16: return l.color == Color::kGray ? l.samples == 1 : l.color == Color::kRgb || l.color == Color::kCmyk;
    case 32: return l.color == Color::kGray && l.samples == 1;
    default: return false;
  }
}

// Only the common codecs: the others are rare in pictures and a risk.
bool compression_supported(uint16_t compression) {
  switch (compression) {
    case COMPRESSION_NONE:
    case COMPRESSION_CCITTRLE:
    case COMPRESSION_CCITTFAX3:
    case COMPRESSION_CCITTFAX4:
    case COMPRESSION_LZW:
    case COMPRESSION_JPEG:
    case COMPRESSION_ADOBE_DEFLATE:
    case COMPRESSION_DEFLATE:
    case COMPRESSION_PACKBITS: return TIFFIsCODECConfigured(compression) != 0;
    default: return false;
  }
}

Layout read_layout(TIFF* tiff, const ImageLimits& limits) {
  const int64_t width = field<uint32_t>(tiff, TIFFTAG_IMAGEWIDTH, 0),
                height = field<uint32_t>(tiff, TIFFTAG_IMAGELENGTH, 0);
  check_size(kName, width, height, limits);
  Layout l;
  l.width = static_cast<int>(width), l.height = static_cast<int>(height);
  const auto compression = field<uint16_t>(tiff, TIFFTAG_COMPRESSION, COMPRESSION_NONE);
  if (!compression_supported(compression)) fail_image(kName, "file has an unsupported compression");
  const auto photometric = field<uint16_t>(tiff, TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_MINISWHITE);
  l.bits = field<uint16_t>(tiff, TIFFTAG_BITSPERSAMPLE, 1);
  l.samples = field<uint16_t>(tiff, TIFFTAG_SAMPLESPERPIXEL, 1);
  l.color = color_of(photometric, l.samples);
  l.format = field<uint16_t>(tiff, TIFFTAG_SAMPLEFORMAT, SAMPLEFORMAT_UINT);
  l.white_is_zero = photometric == PHOTOMETRIC_MINISWHITE;
  l.planar = field<uint16_t>(tiff, TIFFTAG_PLANARCONFIG, PLANARCONFIG_CONTIG) == PLANARCONFIG_SEPARATE;
  const size_t wanted = color_samples(l.color);
  if (l.samples < wanted || l.samples > wanted + 3)
    fail_image(kName, "file has an unsupported number of samples a pixel");
  uint16_t num_extra = 0;
  const uint16_t* extra = nullptr;
  if (l.color == Color::kRgb && TIFFGetField(tiff, TIFFTAG_EXTRASAMPLES, &num_extra, &extra) && num_extra > 0) {
    l.premultiplied = l.samples > wanted && extra[0] == EXTRASAMPLE_ASSOCALPHA;
  }
  if (!depth_supported(l)) fail_image(kName, "file has an unsupported number of bits a sample");
  if (l.color == Color::kYcbcr && compression == COMPRESSION_JPEG && !l.planar) {
    TIFFSetField(tiff, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
    l.color = Color::kRgb;
  }
  return l;
}

Palette read_palette(TIFF* tiff, const Layout& l) {
  Palette palette;
  if (l.color != Color::kIndexed) return palette;
  uint16_t *red = nullptr, *green = nullptr, *blue = nullptr;
  if (!TIFFGetField(tiff, TIFFTAG_COLORMAP, &red, &green, &blue)) fail_image(kName, "file lacks its palette");
  for (int i = 0; i < 1 << l.bits; ++i) {
    palette.set(i, static_cast<uint8_t>(red[i] >> 8), static_cast<uint8_t>(green[i] >> 8),
                static_cast<uint8_t>(blue[i] >> 8));
  }
  return palette;
}

// ---- samples to 8 bits, 8 bits to RGB ----

template <class T>
uint8_t clip(T value) {
  if (!(value > 0)) return 0;  // a NaN, too
  return value >= 255 ? 255 : static_cast<uint8_t>(value);
}

template <class T>
T load(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <class T>
void clip_samples(const uint8_t* from, size_t count, uint8_t* to) {
  for (size_t i = 0; i < count; ++i) to[i] = clip(load<T>(from + i * sizeof(T)));
}

// A row of `count` samples to 8 bits each. Gray of 16 bits and more is clipped at 255, colours keep their high byte.
void to_8_bits(const Layout& l, const uint8_t* from, size_t count, uint8_t* to) {
  const bool is_signed = l.format == SAMPLEFORMAT_INT;
  if (l.bits == 8) {
    std::memcpy(to, from, count);
  } else if (l.bits < 8) {
    const unsigned max = (1u << l.bits) - 1, scale = l.color == Color::kGray ? 255 / max : 1;
    for (size_t i = 0; i < count; ++i) {
      const size_t bit = i * l.bits;
      to[i] = static_cast<uint8_t>((from[bit / 8] >> (8 - l.bits - bit % 8) & max) * scale);
    }
  } else if (l.bits == 16 && l.color != Color::kGray) {
    for (size_t i = 0; i < count; ++i) to[i] = static_cast<uint8_t>(load<uint16_t>(from + 2 * i) >> 8);
  } else if (l.bits == 16) {
    is_signed ? clip_samples<int16_t>(from, count, to) : clip_samples<uint16_t>(from, count, to);
  } else if (l.format == SAMPLEFORMAT_IEEEFP) {
    clip_samples<float>(from, count, to);
  } else {
    clip_samples<int32_t>(from, count, to);
  }
  if (l.white_is_zero && l.bits <= 8) {
    for (size_t i = 0; i < count; ++i) to[i] = static_cast<uint8_t>(255 - to[i]);
  }
}

// Undoes the multiplication of a colour with its alpha.
uint8_t divide_by_alpha(uint8_t value, uint8_t alpha) {
  return alpha == 0 ? uint8_t{0} : static_cast<uint8_t>(std::min(255, value * 255 / alpha));
}

// `count` pixels of `samples` 8-bit samples each to RGB.
void to_rgb(const Layout& l, const Palette& palette, const uint8_t* from, size_t samples, size_t count, uint8_t* rgb) {
  const auto each = [&](auto convert) {
    for (size_t i = 0; i < count; ++i) convert(from + i * samples, rgb + 3 * i);
  };
  switch (l.color) {
    case Color::kGray: return each([](const uint8_t* in, uint8_t* out) { std::fill_n(out, 3, *in); });
    case Color::kIndexed: return each([&](const uint8_t* in, uint8_t* out) { palette.expand(in, 1, out); });
    case Color::kCmyk: return each(cmyk_to_rgb);
    default: break;
  }
  if (!l.premultiplied) return each([](const uint8_t* in, uint8_t* out) { std::copy_n(in, 3, out); });
  each([](const uint8_t* in, uint8_t* out) {
    for (int c = 0; c < 3; ++c) out[c] = divide_by_alpha(in[c], in[3]);
  });
}

// ---- blocks: strips or tiles ----

struct Blocks {
  bool tiled = false;
  uint32_t width = 0, height = 0;  // of a block
  size_t bytes = 0, row_bytes = 0;
};

Blocks read_blocks(TIFF* tiff, const Layout& l, const ImageLimits& limits) {
  Blocks b;
  b.tiled = TIFFIsTiled(tiff) != 0;
  if (b.tiled) {
    b.width = field<uint32_t>(tiff, TIFFTAG_TILEWIDTH, 0), b.height = field<uint32_t>(tiff, TIFFTAG_TILELENGTH, 0);
  } else {
    b.width = static_cast<uint32_t>(l.width);
    b.height = std::min(field<uint32_t>(tiff, TIFFTAG_ROWSPERSTRIP, UINT32_MAX), static_cast<uint32_t>(l.height));
  }
  if (b.width == 0 || b.height == 0) fail_image(kName, "file is damaged");
  if (uint64_t{b.width} * b.height > limits.max_pixels)
    fail_too_large(kName, "file has blocks of more pixels than allowed");
  const uint64_t bytes = b.tiled ? TIFFTileSize64(tiff) : TIFFVStripSize64(tiff, b.height);
  const uint64_t row_bytes = b.tiled ? TIFFTileRowSize64(tiff) : TIFFScanlineSize64(tiff);
  const uint64_t row_samples = uint64_t{b.width} * (l.planar ? 1 : l.samples);
  // Rows are read with this arithmetic below, whatever the library says.
  if (row_bytes < (row_samples * l.bits + 7) / 8 || bytes < row_bytes * b.height || bytes > limits.max_decode_bytes) {
    fail_image(kName, "file is damaged");
  }
  b.bytes = static_cast<size_t>(bytes), b.row_bytes = static_cast<size_t>(row_bytes);
  return b;
}

// Reads the block of `plane` whose top left pixel is (x, y). A strip at the bottom may be shorter than the others.
void read_block(TIFF* tiff, const Blocks& b, uint32_t x, uint32_t y, uint16_t plane, uint32_t rows, uint8_t* to) {
  const auto wanted = static_cast<tmsize_t>(b.tiled ? b.bytes : b.row_bytes * rows);
  const tmsize_t got = b.tiled ? TIFFReadEncodedTile(tiff, TIFFComputeTile(tiff, x, y, 0, plane), to, wanted)
                               : TIFFReadEncodedStrip(tiff, TIFFComputeStrip(tiff, y, plane), to, wanted);
  if (got < wanted) fail_image(kName, "file is damaged or cut off");
}

Image read_pixels(TIFF* tiff, const Layout& l, const ImageLimits& limits) {
  const Blocks b = read_blocks(tiff, l, limits);
  const Palette palette = read_palette(tiff, l);
  const auto width = static_cast<uint32_t>(l.width), height = static_cast<uint32_t>(l.height);
  const size_t block_samples = l.planar ? 1 : l.samples;
  const size_t used = color_samples(l.color) + (l.premultiplied ? 1 : 0);
  const auto num_planes = static_cast<uint16_t>(l.planar ? used : 1);
  const auto block = std::make_unique_for_overwrite<uint8_t[]>(b.bytes);
  std::vector<uint8_t> samples(b.width * block_samples);
  // Planes are brought together pixel by pixel before they can become colours.
  std::vector<uint8_t> joined(l.planar ? used * width * size_t{height} : 0);
  Image image = new_image(l.width, l.height);
  for (uint16_t plane = 0; plane < num_planes; ++plane) {
    for (uint32_t y = 0; y < height; y += b.height) {
      const uint32_t rows = std::min(b.height, height - y);
      for (uint32_t x = 0; x < width; x += b.width) {
        read_block(tiff, b, x, y, plane, rows, block.get());
        const size_t columns = std::min(b.width, width - x);
        for (uint32_t row = 0; row < rows; ++row) {
          to_8_bits(l, block.get() + row * b.row_bytes, columns * block_samples, samples.data());
          if (!l.planar) {
            to_rgb(l, palette, samples.data(), block_samples, columns,
                   row_of(image, static_cast<int>(y + row)) + size_t{3} * x);
            continue;
          }
          uint8_t* to = joined.data() + ((y + row) * size_t{width} + x) * used + plane;
          for (size_t i = 0; i < columns; ++i) to[i * used] = samples[i];
        }
      }
    }
  }
  if (l.planar) to_rgb(l, palette, joined.data(), used, width * size_t{height}, image.rgb.data());
  return image;
}

// YCbCr that is not JPEG comes subsampled in many ways; libtiff's own conversion takes care of them.
Image read_ycbcr(TIFF* tiff, const Layout& l, uint16_t orientation) {
  const auto width = static_cast<uint32_t>(l.width), height = static_cast<uint32_t>(l.height);
  std::vector<uint32_t> raster(width * size_t{height});
  // Asking for the orientation that the file has means: leave the rows as stored.
  if (!TIFFReadRGBAImageOriented(tiff, width, height, raster.data(), orientation, 1))
    fail_image(kName, "file is damaged");
  Image image = new_image(l.width, l.height);
  uint8_t* to = image.rgb.data();
  for (const uint32_t pixel : raster) {
    *to++ = static_cast<uint8_t>(TIFFGetR(pixel));
    *to++ = static_cast<uint8_t>(TIFFGetG(pixel));
    *to++ = static_cast<uint8_t>(TIFFGetB(pixel));
  }
  return image;
}

bool matches(Bytes bytes) {
  using namespace std::string_view_literals;
  return starts_with(bytes, "II*\0"sv) || starts_with(bytes, "MM\0*"sv) || starts_with(bytes, "II+\0"sv) ||
         starts_with(bytes, "MM\0+"sv);
}

ImageInfo probe(Bytes bytes, const ImageLimits& limits) {
  Source source{bytes};
  const Tiff tiff = open_tiff(source, limits);
  const Layout l = read_layout(tiff.get(), limits);
  return {"tiff", l.width, l.height};
}

Stored decode(Bytes bytes, const ImageLimits& limits) {
  Source source{bytes};
  const Tiff tiff = open_tiff(source, limits);
  const Layout l = read_layout(tiff.get(), limits);
  const auto orientation = field<uint16_t>(tiff.get(), TIFFTAG_ORIENTATION, ORIENTATION_TOPLEFT);
  Stored stored;
  stored.image = l.color == Color::kYcbcr ? read_ycbcr(tiff.get(), l, orientation) : read_pixels(tiff.get(), l, limits);
  stored.orientation = orientation;
  return stored;
}

}  // namespace

const Format kTiff = {"tiff", matches, probe, decode};

}  // namespace idefics
