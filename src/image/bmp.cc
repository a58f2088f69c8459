// BMP. Read here because the one library at hand (libnsbmp) widens 16-bit colours differently from the reference.
#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "image/formats.h"

namespace idefics {
namespace {

constexpr std::string_view kName = "BMP";
constexpr size_t kFileHeader = 14;

enum Compression : uint32_t { kRaw = 0, kRle8 = 1, kRle4 = 2, kBitfields = 3 };

// Little-endian numbers of the file; reading past its end is the error "cut off".
class Reader {
 public:
  explicit Reader(Bytes bytes) : bytes_(bytes) {}
  uint32_t u8(size_t at) const {
    if (at >= bytes_.size()) fail_truncated(kName);
    return static_cast<uint32_t>(bytes_[at]);
  }
  uint32_t u16(size_t at) const { return u8(at) | u8(at + 1) << 8; }
  uint32_t u32(size_t at) const { return u16(at) | u16(at + 2) << 16; }
  // `size` bytes from `at` on.
  const uint8_t* take(size_t at, size_t size) const {
    if (at > bytes_.size() || size > bytes_.size() - at) fail_truncated(kName);
    return as_u8(bytes_) + at;
  }
  size_t size() const { return bytes_.size(); }

 private:
  Bytes bytes_;
};

struct Header {
  int width = 0, height = 0;
  bool top_down = false;
  uint32_t bits = 0;  // per pixel
  uint32_t compression = kRaw;
  std::array<uint32_t, 3> masks = {};  // red, green, blue; of kBitfields
  uint32_t colors = 0;                 // palette entries
  size_t color_bytes = 4;              // of an entry
  size_t palette = 0, pixels = 0;      // where they start
};

Header read_header(const Reader& file, const ImageLimits& limits) {
  Header h;
  const size_t at = kFileHeader;
  const uint32_t header_size = file.u32(at);
  size_t end = at + header_size;  // of header and masks
  int64_t width = 0, height = 0;
  if (header_size == 12) {  // OS/2
    width = file.u16(at + 4), height = file.u16(at + 6);
    h.bits = file.u16(at + 10);
    h.color_bytes = 3;
  } else if (header_size == 40 || header_size == 52 || header_size == 56 || header_size == 64 || header_size == 108 ||
             header_size == 124) {
    width = file.u32(at + 4), height = file.u32(at + 8);
    h.top_down = file.u8(at + 11) == 0xFF;  // a negative height
    if (h.top_down) height = (int64_t{1} << 32) - height;
    h.bits = file.u16(at + 14);
    h.compression = file.u32(at + 16);
    h.colors = file.u32(at + 32);
    if (h.compression == kBitfields) {
      for (size_t i = 0; i < 3; ++i)
        h.masks[i] = file.u32(at + 40 + 4 * i);  // in the header, or right behind the short one
      if (header_size == 40) end += 12;
    }
    file.take(at, header_size);
  } else {
    fail_image(kName, "file has a header of an unknown kind");
  }
  check_size(kName, width, height, limits);
  h.width = static_cast<int>(width), h.height = static_cast<int>(height);

  const bool indexed = h.bits == 1 || h.bits == 4 || h.bits == 8;
  if (!indexed && h.bits != 16 && h.bits != 24 && h.bits != 32)
    fail_image(kName, "file has an unsupported number of bits a pixel");
  const bool run_length = h.compression == kRle8 || h.compression == kRle4;
  if ((!run_length && h.compression != kRaw && h.compression != kBitfields) || (run_length && !indexed) ||
      (h.compression == kBitfields && indexed)) {
    fail_image(kName, "file has an unsupported compression");
  }
  if (indexed && h.colors == 0) h.colors = 1u << h.bits;
  if (indexed && h.colors > 256) fail_image(kName, "file has more than 256 palette entries");
  h.palette = end;
  const size_t palette_bytes = indexed ? h.colors * h.color_bytes : 0;
  h.pixels = file.u32(10);
  // Some writers point at the palette, or nowhere.
  if (h.pixels == 0 || (indexed && h.pixels == kFileHeader + header_size)) h.pixels = end + palette_bytes;
  return h;
}

Palette read_palette(const Reader& file, const Header& h) {
  Palette palette;
  for (uint32_t i = 0; i < h.colors; ++i) {
    const uint8_t* bgr = file.take(h.palette + i * h.color_bytes, 3);
    palette.set(static_cast<int>(i), bgr[2], bgr[1], bgr[0]);
  }
  // The reference takes the picture for a gray one otherwise.
  if (!palette.is_gray_ramp()) palette.set_size(static_cast<int>(h.colors));
  return palette;
}

// The index of pixel x in a row of 1, 4 or 8 bits a pixel.
void unpack_indices(const uint8_t* row, uint32_t bits, std::vector<uint8_t>& indices) {
  const uint32_t mask = (1u << bits) - 1;
  for (size_t x = 0; x < indices.size(); ++x) {
    const size_t bit = x * bits;
    indices[x] = static_cast<uint8_t>(row[bit / 8] >> (8 - bits - bit % 8) & mask);
  }
}

// Where a channel stands in a 16- or 32-bit pixel, and how it becomes 8 bits.
struct Channel {
  uint32_t shift, max;
  uint8_t operator()(uint32_t pixel) const { return static_cast<uint8_t>((pixel >> shift & max) * 255 / max); }
};

std::array<Channel, 3> channels_of(const Header& h) {
  using Masks = std::array<uint32_t, 3>;
  Masks masks = h.masks;
  if (h.compression == kRaw) masks = h.bits == 16 ? Masks{0x7C00, 0x3E0, 0x1F} : Masks{0xFF0000, 0xFF00, 0xFF};
  if (h.bits == 32 && masks == Masks{}) masks = {0xFF0000, 0xFF00, 0xFF};
  const bool good = h.bits == 16 ? masks == Masks{0xF800, 0x7E0, 0x1F} || masks == Masks{0x7C00, 0x3E0, 0x1F}
                                 : masks == Masks{0xFF0000, 0xFF00, 0xFF} ||
                                       (h.bits == 32 && (masks == Masks{0xFF, 0xFF00, 0xFF0000} ||
                                                         masks == Masks{0xFF000000, 0xFF0000, 0xFF00} ||
                                                         masks == Masks{0xFF000000, 0xFF00, 0xFF}));
  if (!good) fail_image(kName, "file has an unsupported arrangement of colour bits");
  std::array<Channel, 3> channels;
  for (size_t i = 0; i < 3; ++i) {
    const auto shift = static_cast<uint32_t>(__builtin_ctz(masks[i]));
    channels[i] = {shift, masks[i] >> shift};
  }
  return channels;
}

// Run-length coded indices in the order of the file. The file must fill the whole picture.
std::vector<uint8_t> read_run_lengths(const Reader& file, const Header& h) {
  const auto width = static_cast<size_t>(h.width);
  const size_t total = width * static_cast<size_t>(h.height);
  const bool nibbles = h.compression == kRle4;
  std::vector<uint8_t> out;
  out.reserve(std::min(total, file.size() * 128));
  size_t at = h.pixels, x = 0;  // x may be behind out.size() % width where a run was cut at the end of its row
  while (out.size() < total) {
    const uint32_t count = file.u8(at), value = file.u8(at + 1);
    at += 2;
    if (count > 0) {  // a run
      const size_t run = std::min({size_t{count}, x < width ? width - x : 0, total - out.size()});
      for (size_t i = 0; i < run; ++i)
        out.push_back(static_cast<uint8_t>(!nibbles ? value : i % 2 == 0 ? value >> 4 : value & 15));
      x += run;
    } else if (value == 0) {  // end of the row
      out.resize((out.size() + width - 1) / width * width);
      x = 0;
    } else if (value == 1) {  // end of the picture
      fail_truncated(kName);
    } else if (value == 2) {  // a step right and down
      const size_t step = file.u8(at) + file.u8(at + 1) * width;
      at += 2;
      out.resize(std::min(total, out.size() + step));
      x = out.size() % width;
    } else {  // pixels as they are, padded to two bytes
      const size_t run = std::min(total - out.size(), size_t{value});
      const size_t bytes = nibbles ? (run + 1) / 2 : run;
      const uint8_t* from = file.take(at, bytes);
      for (size_t i = 0; i < run; ++i)
        out.push_back(static_cast<uint8_t>(!nibbles ? from[i] : i % 2 == 0 ? from[i / 2] >> 4 : from[i / 2] & 15));
      at += bytes;
      at += at % 2;
      x += value;
    }
  }
  return out;
}

bool matches(Bytes bytes) { return starts_with(bytes, "BM"); }

ImageInfo probe(Bytes bytes, const ImageLimits& limits) {
  const Header h = read_header(Reader(bytes), limits);
  return {"bmp", h.width, h.height};
}

Stored decode(Bytes bytes, const ImageLimits& limits) {
  const Reader file(bytes);
  const Header h = read_header(file, limits);
  const auto width = static_cast<size_t>(h.width), height = static_cast<size_t>(h.height);
  const auto output_row = [&](size_t y) { return static_cast<int>(h.top_down ? y : height - 1 - y); };
  if (h.compression == kRle8 || h.compression == kRle4) {
    const Palette palette = read_palette(file, h);
    const std::vector<uint8_t> indices = read_run_lengths(file, h);
    Image image = new_image(h.width, h.height);
    for (size_t y = 0; y < height; ++y) palette.expand(indices.data() + y * width, width, row_of(image, output_row(y)));
    return {std::move(image), 1};
  }

  const size_t row_bytes = (width * h.bits + 7) / 8, stride = (width * h.bits + 31) / 32 * 4;
  const uint8_t* pixels = file.take(h.pixels, stride * (height - 1) + row_bytes);
  Image image = new_image(h.width, h.height);
  if (h.bits <= 8) {
    const Palette palette = read_palette(file, h);
    std::vector<uint8_t> indices(width);
    for (size_t y = 0; y < height; ++y) {
      unpack_indices(pixels + y * stride, h.bits, indices);
      palette.expand(indices.data(), width, row_of(image, output_row(y)));
    }
    return {std::move(image), 1};
  }
  const std::array<Channel, 3> channels = channels_of(h);
  const size_t pixel_bytes = h.bits / 8;
  for (size_t y = 0; y < height; ++y) {
    const uint8_t* from = pixels + y * stride;
    uint8_t* to = row_of(image, output_row(y));
    for (size_t x = 0; x < width; ++x, from += pixel_bytes, to += 3) {
      uint32_t pixel = 0;
      for (size_t i = 0; i < pixel_bytes; ++i) pixel |= uint32_t{from[i]} << (8 * i);
      for (size_t i = 0; i < 3; ++i) to[i] = channels[i](pixel);
    }
  }
  return {std::move(image), 1};
}

}  // namespace

const Format kBmp = {"bmp", matches, probe, decode};

}  // namespace idefics
