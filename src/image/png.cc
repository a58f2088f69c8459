// PNG, by libpng.
#include <png.h>

#include <csetjmp>
#include <cstring>
#include <utility>
#include <vector>

#include "image/formats.h"

namespace idefics {
namespace {

constexpr std::string_view kName = "PNG";
constexpr std::string_view kMagic("\x89PNG\r\n\x1a\n", 8);
constexpr png_alloc_size_t kMaxText = 1 << 18;  // bytes of a text, unpacked
constexpr png_uint_32 kMaxTexts = 32;

uint32_t big_endian32(const uint8_t* p) {
  return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | uint32_t{p[3]};
}

// libpng reports errors by a jump. Each method that may jump holds nothing but plain values, and says false after one.
class PngReader {
 public:
  explicit PngReader(Bytes bytes) : next_(as_u8(bytes)), left_(bytes.size()) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
    if (png_ == nullptr) throw std::bad_alloc();
    info_ = png_create_info_struct(png_);
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      throw std::bad_alloc();
    }
  }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }

  // Reads everything before the pixels, and asks for 8-bit samples without alpha (16-bit gray stays as it is).
  bool read_header(int max_side) {
    if (setjmp(png_jmpbuf(png_))) return false;
    png_set_read_fn(png_, this, on_read);
    const auto side = static_cast<png_uint_32>(max_side);
    png_set_user_limits(png_, side, side);
    // Of the ancillary chunks only those are read that may hold the orientation; profiles may unpack to gigabytes.
    // Longer or more texts than these limits are dropped. Checksums count everywhere.
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
    static constexpr png_byte kTexts[] = "tEXt\0zTXt\0iTXt";
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_AS_DEFAULT, kTexts, 3);
    png_set_chunk_malloc_max(png_, kMaxText);
    png_set_chunk_cache_max(png_, kMaxTexts);
    png_set_crc_action(png_, PNG_CRC_DEFAULT, PNG_CRC_ERROR_QUIT);
    png_set_option(png_, PNG_MAXIMUM_INFLATE_WINDOW, PNG_OPTION_ON);  // some writers declare too small a window
    png_read_info(png_, info_);
    const int color = png_get_color_type(png_, info_);
    if (color == PNG_COLOR_TYPE_PALETTE) {
      png_set_packing(png_);
    } else if (color == PNG_COLOR_TYPE_GRAY) {
      png_set_expand_gray_1_2_4_to_8(png_);
      if (png_get_bit_depth(png_, info_) == 16) png_set_swap(png_);  // to little-endian
    } else {
      png_set_strip_16(png_);
    }
    png_set_strip_alpha(png_);
    passes_ = png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }
  bool read_row(uint8_t* row) {
    if (setjmp(png_jmpbuf(png_))) return false;
    png_read_row(png_, row, nullptr);
    return true;
  }
  // Reads the chunks behind the pixels, which need not be complete.
  void read_end() {
    if (setjmp(png_jmpbuf(png_))) return;
    png_read_end(png_, info_);
  }
  // The last text of that name; empty when there is none.
  std::string_view find_text(std::string_view name) const {
    png_textp texts = nullptr;
    int count = 0;
    png_get_text(png_, info_, &texts, &count);
    for (int i = count - 1; i >= 0; --i) {
      if (texts[i].key != nullptr && texts[i].text != nullptr && name == texts[i].key) return texts[i].text;
    }
    return {};
  }
  bool cut_off() const { return cut_off_; }
  int passes() const { return passes_; }
  int width() const { return static_cast<int>(png_get_image_width(png_, info_)); }
  int height() const { return static_cast<int>(png_get_image_height(png_, info_)); }
  size_t row_bytes() const { return png_get_rowbytes(png_, info_); }
  bool has_palette() const { return png_get_color_type(png_, info_) == PNG_COLOR_TYPE_PALETTE; }
  Palette palette() const {
    png_colorp colors = nullptr;
    int count = 0;
    png_get_PLTE(png_, info_, &colors, &count);
    Palette palette;
    for (int i = 0; i < count; ++i) palette.set(i, colors[i].red, colors[i].green, colors[i].blue);
    palette.set_size(count);
    return palette;
  }

 private:
  [[noreturn]] static void on_error(png_structp png, png_const_charp) { png_longjmp(png, 1); }
  static void on_warning(png_structp, png_const_charp) {}
  static void on_read(png_structp png, png_bytep to, size_t size) {
    auto* self = static_cast<PngReader*>(png_get_io_ptr(png));
    if (size > self->left_) {
      self->cut_off_ = true;
      png_error(png, "");
    }
    std::memcpy(to, self->next_, size);
    self->next_ += size;
    self->left_ -= size;
  }

  const uint8_t* next_;
  size_t left_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  int passes_ = 1;
  bool cut_off_ = false;
};

// The rows as libpng gives them: one byte of gray or index, two of 16-bit gray, or RGB.
void row_to_rgb(const PngReader& png, const Palette& palette, const uint8_t* row, uint8_t* rgb) {
  const auto width = static_cast<size_t>(png.width());
  if (png.has_palette()) {
    palette.expand(row, width, rgb);
  } else if (png.row_bytes() == width) {
    gray_to_rgb(row, width, rgb);
  } else {
    // 16-bit gray is clipped, not scaled, so that ordinary pictures of that kind come out nearly white: as the
    // reference does.
    for (size_t x = 0; x < width; ++x) {
      std::memset(rgb + 3 * x, row[2 * x + 1] != 0 ? 255 : row[2 * x], 3);
    }
  }
}

// EXIF data as ImageMagick writes them: an empty line, "exif", the size, and then hexadecimal digits in lines.
std::string parse_raw_profile(std::string_view text) {
  for (int line = 0; line < 3; ++line) {
    const size_t end = text.find('\n');
    if (end == text.npos) return {};
    text.remove_prefix(end + 1);
  }
  std::string bytes;
  int digits = 0, value = 0;
  for (const char c : text) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) continue;
    value = value * 16 + digit;
    if (++digits % 2 == 0) bytes.push_back(static_cast<char>(std::exchange(value, 0)));
  }
  return bytes;
}

// What a walk over the chunks finds.
struct Chunks {
  bool to_pixels = false;  // all chunks before the pixels are complete
  bool to_end = false;     // all chunks are
  Bytes exif;              // the last eXIf, before or behind the pixels; libpng would take 20 ns a byte for it
};

// Also protects libpng, which trusts the length of a text so far as to allocate it.
Chunks walk_chunks(Bytes bytes) {
  Chunks chunks;
  for (size_t at = kMagic.size(); at + 12 <= bytes.size();) {
    const size_t size = big_endian32(as_u8(bytes) + at);  // then the type, the data, a checksum
    const Bytes type = bytes.subspan(at + 4, 4);
    chunks.to_pixels |= starts_with(type, "IDAT");
    if (size > bytes.size() - at - 12) break;
    if (starts_with(type, "eXIf")) chunks.exif = bytes.subspan(at + 8, size);
    if (starts_with(type, "IEND")) {
      chunks.to_end = true;
      break;
    }
    at += 12 + size;
  }
  return chunks;
}

int orientation_of(Bytes exif, const PngReader& png) {
  const Bytes xmp = std::as_bytes(std::span(png.find_text("XML:com.adobe.xmp")));
  if (!exif.empty()) return find_orientation(exif, xmp);
  const std::string profile = parse_raw_profile(png.find_text("Raw profile type exif"));
  return find_orientation(std::as_bytes(std::span(profile)), xmp);
}

bool matches(Bytes bytes) { return starts_with(bytes, kMagic); }

ImageInfo probe(Bytes bytes, const ImageLimits& limits) {
  if (bytes.size() < 33) fail_truncated(kName);
  if (!starts_with(bytes.subspan(12), "IHDR")) fail_image(kName, "file does not start with its header");
  const uint32_t width = big_endian32(as_u8(bytes) + 16), height = big_endian32(as_u8(bytes) + 20);
  check_size(kName, width, height, limits);
  return {"png", static_cast<int>(width), static_cast<int>(height)};
}

Stored decode(Bytes bytes, const ImageLimits& limits) {
  probe(bytes, limits);
  const Chunks chunks = walk_chunks(bytes);
  if (!chunks.to_pixels && chunks.to_end) fail_image(kName, "file holds no pixels");
  if (!chunks.to_pixels) fail_truncated(kName);
  PngReader png(bytes);
  const auto fail = [&] {
    if (png.cut_off()) fail_truncated(kName);
    fail_image(kName, "file is damaged");
  };
  if (!png.read_header(limits.max_side)) fail();
  Image image = new_image(png.width(), png.height());
  const size_t row_bytes = png.row_bytes();
  const bool direct = row_bytes == size_t{3} * static_cast<size_t>(image.width) && !png.has_palette();
  const bool interlaced = png.passes() > 1;
  // Interlaced rows are completed pass by pass, so all of them must be kept.
  std::vector<uint8_t> rows(direct ? 0 : row_bytes * static_cast<size_t>(interlaced ? image.height : 1));
  const Palette palette = png.palette();
  for (int pass = 0; pass < png.passes(); ++pass) {
    for (int y = 0; y < image.height; ++y) {
      uint8_t* rgb = row_of(image, y);
      uint8_t* row = direct ? rgb : rows.data() + (interlaced ? row_bytes * static_cast<size_t>(y) : 0);
      if (!png.read_row(row)) fail();
      if (!direct && pass + 1 == png.passes()) row_to_rgb(png, palette, row, rgb);
    }
  }
  if (chunks.to_end) png.read_end();
  return {std::move(image), orientation_of(chunks.exif, png)};
}

}  // namespace

const Format kPng = {"png", matches, probe, decode};

}  // namespace idefics
